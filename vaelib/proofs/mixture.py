"""Proofs about VaDE: its clusters against K-Means and a fitted mixture, their shapes, their uncertainty."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import adjusted_rand_score, homogeneity_score

from .. import plots
from ..config import InputError
from ..evaluation import clustering as clu
from ..evaluation import mixture as mix
from ..manifest import UNLABELLED
from ..models import VaDE
from ..runs import Run, find_runs, load_run
from .clusters import baseline_spaces, known
from .proof import Proof


def _require_mixture(run: Run) -> int:
    if not isinstance(run.model, VaDE):
        raise InputError(f"{run.name} has no mixture: use a vade run")
    return min(run.config.model.components, len(run.rows("train", True)))


def _require_genres(run: Run) -> None:
    found = min(len(set(run.labels(split, "genre")[known(run, split, "genre")])) for split in ("train", "test"))
    if found < 2:
        told = "one genre" if found else "no genres"
        raise InputError(f"{run.store.path.name} has {told} in train or in test: clusters need labels to meet")


def rival(run: Run) -> Run | None:
    """The plain VAE that VaDE is measured against: same backbone, store, input and seed, as many epochs in all.

    Without one, a VAE of as many epochs as VaDE's pretraining; the newest if there are several.
    """
    c = run.config
    same = {"fingerprint": c.fingerprint, "detilt": c.detilt, "seed": c.training.seed, "target": c.training.target}
    model = "conv_vae" if c.model.backbone == "conv" else "basic_vae"
    for epochs in (c.training.total_epochs, c.training.pretrain_epochs):
        found = find_runs(run.folder.parent, model=model, epochs=epochs, beta=c.training.beta, **same)
        if found:
            return load_run(found[-1])
    return None


def clustering_comparison(run: Run) -> Proof:
    """VaDE's own clusters against clusters fitted afterwards, all with the same K, scored on test genres.

    VAE + K-Means and VAE + GMM need a plain run to compare with (`rival`); without one they are left out.

    Raises:
        InputError: no mixture, or fewer than two genres.
    """
    k, seed = _require_mixture(run), run.config.training.seed
    _require_genres(run)
    plain, there = rival(run), known(run, "test", "genre", True)
    truth = run.labels("test", "genre", True)[there]
    found = {"VaDE": run.responsibilities("test", True).argmax(1)}
    spaces = {"VaDE's codes": (run.embed_tracks("train").means, run.embed_tracks("test").means)}
    if plain is not None:
        spaces["VAE"] = (plain.embed_tracks("train").means, plain.embed_tracks("test").means)
    for name, (train, test) in spaces.items():
        found[f"{name} + K-Means"] = clu.kmeans_assign(train, test, k, seed)
        found[f"{name} + GMM"] = clu.gmm_assign(train, test, k, seed)
    for name, (train, test) in baseline_spaces(run).items():
        found[f"{name} + K-Means"] = clu.kmeans_assign(train, test, k, seed)
    scores = {name: clu.cluster_scores(truth, a[there]) for name, a in found.items()}
    null = clu.permutation_null(clu.adjusted_mutual_info, truth, found["VaDE"][there], n=50)
    ari_null = clu.permutation_null(adjusted_rand_score, truth, found["VaDE"][there], n=50)
    numbers = {f"{name}: {m.upper()}": s[m] for name, s in scores.items() for m in ("ami", "ari", "nmi")}
    numbers["AMI with permuted labels, 95th percentile"] = null.p95
    numbers["ARI with permuted labels, 95th percentile"] = ari_null.p95
    best = max(scores, key=lambda n: scores[n]["ami"])
    figure, _ = plots.bars(
        {n: s["ami"] for n, s in scores.items()},
        dict.fromkeys(scores, null.p95),
        f"AMI with the genres on test, K = {k}",
    )
    other = max((n for n in scores if n != "VaDE"), key=lambda n: scores[n]["ami"])
    gap = scores["VaDE"]["ami"] - scores[other]["ami"]
    with_plain = (
        f"The plain VAE is {plain.name} of {plain.summary['epochs']} epochs (VaDE: {run.summary['epochs']} in all)."
        if plain
        else "No plain VAE on the same backbone and input is there to compare with."
    )
    sentence = (
        f"VaDE's clusters reach AMI {scores['VaDE']['ami']:.3f} (ARI {scores['VaDE']['ari']:.3f}) with the genres; the "
        f"best alternative, {other}, {scores[other]['ami']:.3f}: VaDE is {'ahead' if gap > 0 else 'behind'} by "
        f"{abs(gap):.3f}. {with_plain} One seed cannot decide a gap of a few hundredths."
    )
    numbers["best of all: AMI"] = scores[best]["ami"]
    partners = (plain.folder.name,) if plain else ()
    return Proof("clustering_comparison", run.name, numbers, sentence, figure, partners=partners)


def cluster_contents(run: Run) -> Proof:
    """What each component holds: its most frequent genres, families and languages, on test."""
    _require_mixture(run)
    table, found = run.store.table.loc[run.rows("test", True)], run.responsibilities("test", True).argmax(1)
    numbers = {
        "components with a test clip": float(len(set(found))),
        "components": float(run.config.model.components),
        "share of components with a test clip": len(set(found)) / run.config.model.components,
    }
    for label in ("language", "family", "genre"):
        there = known(run, "test", label, True)
        truth = table[label].to_numpy()[there]
        if len(set(truth)) < 2:
            continue
        null = clu.permutation_null(homogeneity_score, truth, found[there], n=50)
        numbers[f"homogeneity of {label}"] = float(homogeneity_score(truth, found[there]))
        numbers[f"homogeneity of {label} with permuted labels, 95th percentile"] = null.p95
    contents = table.assign(component=found)[["component", "genre", "family", "language"]]
    figure, _ = plots.contents(contents)
    largest = contents["component"].value_counts().index[0]
    members = contents[contents["component"] == largest]
    counts = {c: members[c][members[c] != UNLABELLED].value_counts() for c in ("genre", "family", "language")}
    told = [f"{c} {v.index[0]} {v.iloc[0] / len(members):.0%}" for c, v in counts.items() if len(v)]
    said = " ".join(
        f"Knowing the component explains {numbers[f'homogeneity of {c}']:.0%} of the {c}'s entropy (permuted labels: "
        f"{numbers[f'homogeneity of {c} with permuted labels, 95th percentile']:.0%})."
        for c in ("language", "family", "genre") if f"homogeneity of {c}" in numbers
    )  # fmt: skip
    sentence = (
        f"{len(set(found))} of {run.config.model.components} components hold a test clip. {said} The largest, "
        f"component {largest} with {len(members)} clips: {', '.join(told) or 'none has a label'}. With a handful of "
        "clips per component, shares are rough."
    )
    return Proof("cluster_contents", run.name, numbers, sentence, figure)


def gmm_components(run: Run) -> Proof:
    """The mixture's Gaussians over the clips: how many are used, how far from round they are."""
    k = _require_mixture(run)
    gamma = run.responsibilities("test", True)
    used = mix.occupancy(gamma)
    variances = run.model.component_logvars().exp().detach().numpy()
    means = run.model.mixture["means"].detach().numpy()
    train, test = run.embed_tracks("train").means, run.embed_tracks("test").means
    centre = train.mean(0)
    _, _, axes = np.linalg.svd(train - centre, full_matrices=False)
    plane = axes[:2]
    live = train.var(0) > 0.01 * train.var(0).max()
    shape = mix.diag_vs_spherical_loglik(train[:, live], test[:, live], k, run.config.training.seed)
    numbers = {
        "components with a test clip": float(used.populated),
        "effective number of components": float(used.effective),
        "axis ratio, median over components": float(np.median(np.sqrt(np.percentile(variances, 90, 1)
                                                                      / np.percentile(variances, 10, 1)))),
        "held-out log-likelihood, diagonal": float(shape.diag),
        "held-out log-likelihood, spherical": float(shape.spherical),
        "held-out log-likelihood, diagonal - spherical": float(shape.difference.mean()),
    }  # fmt: skip
    covariances = np.einsum("il,kl,jl->kij", plane, variances, plane)
    figure, _ = plots.ellipses(
        (test - centre) @ plane.T, run.labels("test", "language", True), (means - centre) @ plane.T, covariances,
        f"{run.name}: test clips and 1-σ ellipses of {len(means)} components",
    )  # fmt: skip
    sentence = (
        f"{used.populated} of {len(means)} components hold a test clip (effective number {used.effective:.1f}). "
        f"Diagonal components describe held-out codes {'better' if shape.diag > shape.spherical else 'no better'} "
        f"than spherical ones ({shape.diag:.1f} against {shape.spherical:.1f} nats per clip). The picture shows two of "
        f"{train.shape[1]} dimensions, so ellipses that overlap here may be apart elsewhere."
    )
    per_clip = {"held-out log-likelihood, diagonal - spherical": shape.difference}
    return Proof("gmm_components", run.name, numbers, sentence, figure, per_clip)


def soft_clustering(run: Run) -> Proof:
    """Is VaDE's confidence worth something? Confidence against agreement with each cluster's majority genre.

    Raises:
        InputError: no mixture, or fewer than two genres.
    """
    _require_mixture(run)
    _require_genres(run)
    there = {s: known(run, s, "genre", True) for s in ("train", "test")}
    train, test = (run.responsibilities(s, True)[there[s]] for s in there)
    confidence = test.max(1)
    seen = (train.argmax(1), run.labels("train", "genre", True)[there["train"]])
    truth, found = run.labels("test", "genre", True)[there["test"]], test.argmax(1)
    agree = mix.majority_agreement(*seen, found, truth)
    null = clu.permutation_null(lambda y, c: mix.majority_agreement(*seen, c, y).mean(), truth, found, n=50)
    table = mix.reliability(confidence, agree)
    entropy = mix.occupancy(test).entropy
    order = np.argsort(confidence, kind="stable")
    unsure, sure = order[: len(order) // 4 or 1], order[-(len(order) // 4 or 1) :]
    numbers = {
        "mean confidence": float(confidence.mean()),
        "agreement with the cluster's majority genre": float(agree.mean()),
        "agreement with permuted labels, 95th percentile": null.p95,
        "expected calibration error": mix.expected_calibration_error(confidence, agree),
        "agreement of the least confident quarter": float(agree[unsure].mean()),
        "agreement of the most confident quarter": float(agree[sure].mean()),
        "agreement, most - least confident quarter": float(agree[sure].mean() - agree[unsure].mean()),
        "mean entropy (nats)": float(entropy.mean()),
    }
    figure, _ = plots.reliability((table.low + table.high) / 2, table.accuracy, table.count, entropy)
    names = run.store.table.loc[run.rows("test", True)[there["test"]][unsure[:3]], "path"].str.rsplit("/", n=1).str[-1]
    sentence = (
        f"Mean confidence is {confidence.mean():.0%}, agreement with the majority genre {agree.mean():.0%} "
        f"(permuted labels: {null.p95:.0%}): calibration error {numbers['expected calibration error']:.2f}. "
        f"The least confident quarter agrees in {agree[unsure].mean():.0%}, the most confident in "
        f"{agree[sure].mean():.0%} of the cases. Most uncertain: "
        f"{', '.join(names)}. Confidence is about clusters, not genres: "
        "a pure cluster of two genres can be confident and half wrong."
    )
    return Proof("soft_clustering", run.name, numbers, sentence, figure)
