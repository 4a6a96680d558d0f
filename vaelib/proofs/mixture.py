"""Proofs about VaDE: its clusters against K-Means and a fitted mixture, their shapes, their uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score, homogeneity_score

from .. import plots
from ..collection import UNLABELLED
from ..config import InputError
from ..metrics import clustering as clu
from ..metrics import mixture as mix
from ..metrics.spectrogram import ratio_values
from ..metrics.statistics import bootstrap_interval
from ..models import VaDE
from ..runs import Run, open_run
from ..training import pretraining_of
from .clusters import baseline_spaces, known, number_of_clusters, own_clusters
from .proof import Proof

ALWAYS = 0.999  # a mixture whose least confident clip is above it is always sure
# what is measured of the least and of the most certain clips
OF_TWO = "own genre among the two likeliest"
DIFFERENT = "two likeliest of different genres"
APART = "distance to the likeliest component / to the second"
SAME = "ARI of VaDE's clusters with the K-Means clusters of its pretraining"


def _require_mixture(run: Run) -> int:
    if not isinstance(run.model, VaDE):
        raise InputError(f"{run.name} has no mixture: use a vade run")
    return number_of_clusters(run, 0)


def _require_genres(run: Run) -> None:
    found = min(len(set(run.labels(split, "genre")[known(run, split, "genre")])) for split in ("train", "test"))
    if found < 2:
        told = "one genre" if found else "no genres"
        raise InputError(f"{run.store.path.name} has {told} in train or in test: clusters need labels to meet")


def rival(run: Run) -> Run | None:
    """The plain VAE that VaDE is measured against: same backbone, store, input and settings, as many epochs in all.

    Without one, a VAE of as many epochs as VaDE's pretraining: the pretraining itself, as it stood at its end.
    """
    plain = pretraining_of(run.config)
    for epochs in (run.config.training.total_epochs, run.config.training.pretrain_epochs):
        wanted = replace(plain, training=replace(plain.training, epochs=epochs))
        folder = run.folder.parent / wanted.run_id
        if (folder / "done.json").is_file():
            return open_run(folder)
    return None


def clustering_comparison(run: Run) -> Proof:
    """VaDE's own clusters against clusters fitted afterwards, all with the same K, scored on test genres.

    VAE + K-Means and VAE + GMM need a plain run to compare with (`rival`); without one they are left out. Every
    score has its values over clips, so that a difference on the same clips has a paired interval.

    Raises:
        InputError: no mixture, or fewer than two genres.
    """
    k, seed = _require_mixture(run), run.config.training.seed
    _require_genres(run)
    plain, there = rival(run), known(run, "test", "genre", True)
    truth = run.labels("test", "genre", True)[there]
    found = {"VaDE": own_clusters(run, k)}
    spaces = {"VaDE's codes": (run.embed_tracks("train").means, run.embed_tracks("test").means)}
    if plain is not None:
        spaces["VAE"] = (plain.embed_tracks("train").means, plain.embed_tracks("test").means)
    for name, (train, test) in spaces.items():
        found[f"{name} + K-Means"] = clu.kmeans_assign(train, test, k, seed)
        found[f"{name} + GMM"] = clu.gmm_assign(train, test, k, seed)
    for name, (train, test) in baseline_spaces(run).items():
        found[f"{name} + K-Means"] = clu.kmeans_assign(train, test, k, seed)
    started = plain is not None and plain.config.training.epochs == run.config.training.pretrain_epochs
    kept = {SAME: float(adjusted_rand_score(found["VAE + K-Means"], found["VaDE"]))} if started else {}
    found = {name: a[there] for name, a in found.items()}
    scores = {name: clu.cluster_scores(truth, a) for name, a in found.items()}
    numbers = {f"{name}: {m.upper()}": s[m] for name, s in scores.items() for m in ("ami", "ari", "nmi")}
    per_clip = {
        f"{name}: {m}": clu.leave_one_out_values(metric, truth, a)
        for name, a in found.items()
        for m, metric in (("AMI", clu.adjusted_mutual_info), ("ARI", adjusted_rand_score))
    }
    for m, metric in (("AMI", clu.adjusted_mutual_info), ("ARI", adjusted_rand_score)):
        null = clu.permutation_null(metric, truth, found["VaDE"], n=50)
        numbers[f"{m} with permuted labels, 95th percentile"] = null.p95
    others = [n for n in scores if n != "VaDE"]
    for name in others:
        ahead = bootstrap_interval((per_clip["VaDE: ARI"] - per_clip[f"{name}: ARI"])[None])
        ends = {"": ahead.mean, ", low": ahead.low, ", high": ahead.high}
        numbers |= {f"ARI, VaDE - {name}{end}": value for end, value in ends.items()}
    numbers |= {"clusters": float(k)} | kept
    shown = {  # without detilt, raw is the same bar twice
        f"{n} (own components)" if n == "VaDE" else n: s["ari"] for n, s in scores.items()
        if run.config.detilt or "raw log-mel" not in n
    }  # fmt: skip
    null = numbers["ARI with permuted labels, 95th percentile"]
    figure, _ = plots.bars(shown, dict.fromkeys(shown, null), f"ARI with the genres on test, K = {k}")
    other = max(others, key=lambda n: scores[n]["ari"])
    gap, low, high = (numbers[f"ARI, VaDE - {other}{end}"] for end in ("", ", low", ", high"))
    place = "ahead" if low > 0 else "behind" if high < 0 else "not told apart"
    with_plain = (
        f"The plain VAE is {plain.name} of {plain.summary['epochs']} epochs (VaDE: {run.summary['epochs']} in all)."
        if plain
        else "No plain VAE of the same settings is there to compare with."
    )
    still = ", and its clusters are the same as K-Means gave it: the joint phase moved no test clip"
    start = f"The mixture starts on K-Means clusters of the pretrained codes{still if stands_still(numbers) else ''}."
    sentence = (
        f"VaDE's own components (K = {k}) reach ARI {scores['VaDE']['ari']:.3f} and AMI {scores['VaDE']['ami']:.3f} "
        f"with the genres (permuted labels: {null:.3f}); the best alternative with the same K, {other}, ARI "
        f"{scores[other]['ari']:.3f}. On these clips VaDE is {place}: {gap:+.3f}, 95 % interval over clips {low:+.3f} "
        f"to {high:+.3f}. {start} {with_plain} Another seed can turn a small gap."
    )
    partners = (plain.folder.name,) if plain else ()
    return Proof("clustering_comparison", run.name, numbers, sentence, figure, per_clip, partners)


def stands_still(numbers: Mapping[str, float]) -> bool:
    """Whether VaDE's clusters of the test clips are those of the K-Means that it starts on."""
    return numbers.get(SAME, 0.0) > 1 - 1e-9


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


def temperature(run: Run) -> float:
    """What the log-responsibilities are divided by to be honest forecasts; fitted on the validation clips.

    Of these the genres are used, for this one number; 1 where none is labelled.

    Raises:
        InputError: no mixture, or fewer than two genres.
    """
    genre_of, there = _genres_of_components(run), known(run, "validation", "genre", True)
    if not there.any():
        return 1.0
    log_gamma = run.log_responsibilities("validation", True)[there]
    heard = np.array([genre_of.get(c, "") for c in log_gamma.argmax(1)])
    return mix.fit_temperature(log_gamma, heard == run.labels("validation", "genre", True)[there])


def uncertainty(run: Run) -> pd.DataFrame:
    """The test tracks of known genre, the least certain first, and what each lies between.

    Certainty is the margin, the log-odds of the likeliest component against the second: it tells clips apart whose
    probabilities are all rounded to 1.

    Returns:
        One row per track: `row` of the store; `genre`; `first` and `second` component; `first_genre` and
        `second_genre`, the most frequent ones in the training clips ("" without any); `margin` in nats; `confidence`
        and `entropy` of the responsibilities at the run's `temperature`; `plain_confidence`, at temperature 1;
        `ratio` of the distances from the clip's code to the means of the two components (1: half way between them).

    Raises:
        InputError: no mixture, fewer than two components, or fewer than two genres.
    """
    genre_of, there = _genres_of_components(run), known(run, "test", "genre", True)
    if run.config.model.components < 2:
        raise InputError(f"{run.name} has one component, which every clip is sure of: train with two or more")
    log_gamma = run.log_responsibilities("test", True)[there].astype(float)
    soft = mix.tempered(log_gamma, temperature(run))
    first, second = np.argsort(-log_gamma, 1, kind="stable")[:, :2].T
    codes, means = run.embed_tracks("test").means[there], run.model.mixture["means"].detach().numpy()
    near, far = (np.linalg.norm(codes - means[c], axis=1) for c in (first, second))
    table = pd.DataFrame(
        {
            "row": run.rows("test", True)[there],
            "genre": run.labels("test", "genre", True)[there],
            "first": first,
            "second": second,
            "first_genre": [genre_of.get(c, "") for c in first],
            "second_genre": [genre_of.get(c, "") for c in second],
            "margin": mix.margins(log_gamma),
            "confidence": soft.max(1),
            "entropy": mix.occupancy(soft).entropy,
            "plain_confidence": mix.tempered(log_gamma, 1.0).max(1),
            "ratio": near / np.maximum(far, 1e-12),
        }
    )
    return table.sort_values("margin", kind="stable", ignore_index=True)


def _genres_of_components(run: Run) -> dict[int, str]:
    """Component → the most frequent genre of its training tracks."""
    _require_mixture(run)
    _require_genres(run)
    there = known(run, "train", "genre", True)
    own = run.log_responsibilities("train", True)[there].argmax(1)
    return mix.majority_classes(own, run.labels("train", "genre", True)[there])


def soft_clustering(run: Run) -> Proof:
    """Is VaDE's confidence worth something? Confidence against agreement with each cluster's majority genre.

    The responsibilities are also read at the `temperature` that validation clips ask for. The least and the most
    certain quarter of the clips are compared: in agreement, and in how near each lies to a second component.

    Raises:
        InputError: no mixture, or fewer than two genres.
    """
    table, warm = uncertainty(run), temperature(run)
    agree = (table["genre"] == table["first_genre"]).to_numpy()
    of_two = agree | (table["genre"] == table["second_genre"]).to_numpy()
    confidence, plain = table["confidence"].to_numpy(), table["plain_confidence"].to_numpy()
    chance = clu.permutation_null(lambda y, c: float((y == c).mean()), table["genre"], table["first_genre"], n=50)
    quarter = len(table) // 4 or 1
    unsure, sure = np.arange(len(table)) < quarter, np.arange(len(table)) >= len(table) - quarter
    values = {
        "agreement with the cluster's majority genre": agree,
        "expected calibration error": mix.calibration_errors(confidence, agree),
        "expected calibration error, temperature 1": mix.calibration_errors(plain, agree),
        "agreement, most - least confident quarter": ratio_values(agree * sure, sure)
        - ratio_values(agree * unsure, unsure),
        f"{APART}, least - most confident quarter": ratio_values(table["ratio"] * unsure, unsure)
        - ratio_values(table["ratio"] * sure, sure),
    }
    quarters = {
        f"{name}, {which} confident quarter": float(np.mean(of[some]))
        for name, of in (
            ("agreement", agree),
            (OF_TWO, of_two),
            (DIFFERENT, (table["first_genre"] != table["second_genre"]).to_numpy()),
            (APART, table["ratio"].to_numpy()),
        )
        for which, some in (("least", unsure), ("most", sure))
    }
    numbers = {name: float(np.mean(v)) for name, v in values.items()} | quarters
    numbers |= {
        "temperature": warm,
        "mean confidence": float(confidence.mean()),
        "lowest confidence, also at temperature 1": float(min(confidence.min(), plain.min())),
        "mean confidence, temperature 1": float(plain.mean()),
        "agreement with permuted labels, 95th percentile": chance.p95,
        "mean entropy (nats)": float(table["entropy"].mean()),
    }
    curves = {
        "as trained": mix.reliability(plain, agree),
        f"temperature {warm:.3g}": mix.reliability(confidence, agree),
    }
    figure, _ = plots.reliability(
        {name: (c.confidence, c.accuracy, c.count) for name, c in curves.items()},
        table["margin"].to_numpy(), table["ratio"].to_numpy(), agree,
    )  # fmt: skip
    near, far = (numbers[f"{APART}, {which} confident quarter"] for which in ("least", "most"))
    few, split = (numbers[f"{name}, least confident quarter"] for name in (OF_TWO, DIFFERENT))
    nearer = bootstrap_interval(values[f"{APART}, least - most confident quarter"][None])
    between = (
        f"The least certain are nearer to a second component than the most certain: {near:.2f} times as far from the "
        f"likeliest as from the second, against {far:.2f} (1 is half way; 95 % of the difference over clips "
        f"{nearer.low:+.2f} to {nearer.high:+.2f}). "
        if nearer.low > 0
        else ""
    )
    names = ", ".join(Path(run.store.name(r)).stem for r in table["row"][:3])
    sentence = (
        f"As trained, the mean confidence is {plain.mean():.0%} and agreement with the majority genre "
        f"{agree.mean():.0%} (permuted labels: {chance.p95:.0%}). {calibration(numbers)} (temperature: {warm:.3g}, one "
        f"number fitted on the genres of the validation clips). By the margin, the least certain quarter agrees in "
        f"{agree[unsure].mean():.0%}, the most certain in {agree[sure].mean():.0%} of the cases. {between}One of the "
        f"two components that are likeliest for the least certain is of their genre in {few:.0%}, and in "
        f"{1 - split:.0%} both are parts of one genre. Least certain: {names}."
    )
    return Proof("soft_clustering", run.name, numbers, sentence, figure, values)


def always_sure(numbers: Mapping[str, float]) -> bool:
    """Whether the confidence of every clip is all but 1, as trained and with the fitted temperature."""
    return numbers["lowest confidence, also at temperature 1"] > ALWAYS


def calibration(numbers: Mapping[str, float]) -> str:
    """What the numbers of `soft_clustering` say of the confidence, and of what a temperature does to it."""
    error, plain = (f"{numbers[f'expected calibration error{end}']:.3f}" for end in ("", ", temperature 1"))
    if always_sure(numbers):
        return f"It is always sure, so its calibration error, {plain}, is its share of wrong clips"
    if error == plain:
        return f"Its calibration error is {plain}, which a fitted temperature does not change"
    return f"Its calibration error is {plain} as trained, {error} with a fitted temperature"
