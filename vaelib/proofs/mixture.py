"""Proofs about VaDE: its clusters against K-Means and a fitted mixture, their shapes, their uncertainty."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score

from .. import plots
from ..config import InputError
from ..evaluation import clustering as clu
from ..evaluation import mixture as mix
from ..models import VaDE
from ..runs import Run
from .proof import Proof


def _require_mixture(run: Run) -> int:
    if not isinstance(run.model, VaDE):
        raise InputError(f"{run.name} has no mixture: use a vade run")
    return min(run.config.model.components, len(run.store.rows("train")))


def clip_spectra(run: Run, split: str) -> np.ndarray:
    """(clip, bins): whole spectrograms, windows averaged, flattened: what K-Means sees without a model."""
    return run.reconstruct(split)[0].reshape(len(run.store.rows(split)), -1)


def pca_codes(run: Run, dims: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """PCA of the scaled log-mel windows, fitted on train: (train, dims) and (test, dims)."""
    from sklearn.decomposition import PCA

    train, test = clip_spectra(run, "train"), clip_spectra(run, "test")
    pca = PCA(min(dims, *train.shape), random_state=0).fit(train)
    return pca.transform(train), pca.transform(test)


def clustering_comparison(run: Run, plain: Run | None = None) -> Proof:
    """VaDE's own clusters against clusters fitted afterwards, all with the same K, scored on test genres.

    Args:
        plain: A VAE run of the same backbone (`conv_vae`) for VAE + K-Means and VAE + GMM, if there is one.
    """
    k, seed = _require_mixture(run), run.config.training.seed
    truth = run.labels("test", "genre")
    found = {"VaDE, argmax p(c|clip)": run.responsibilities("test").argmax(1)}
    spaces = {"VaDE's codes": (run.embed("train").means, run.embed("test").means)}
    if plain is not None:
        spaces[plain.name] = (plain.embed("train").means, plain.embed("test").means)
    for name, (train, test) in spaces.items():
        found[f"{name} + K-Means"] = clu.kmeans_assign(train, test, k, seed)
        found[f"{name} + GMM"] = clu.gmm_assign(train, test, k, seed)
    found["PCA of the log-mel + K-Means"] = clu.kmeans_assign(*pca_codes(run), k, seed)
    scores = {name: clu.cluster_scores(truth, a) for name, a in found.items()}
    own = "VaDE, argmax p(c|clip)"
    null = clu.permutation_null(adjusted_mutual_info_score, truth, found[own], n=50)
    numbers = {f"{name}: {m.upper()}": s[m] for name, s in scores.items() for m in ("ami", "ari")}
    numbers["AMI with permuted labels, 95th percentile"] = null.p95
    figure, _ = plots.bars(
        {n: s["ami"] for n, s in scores.items()},
        dict.fromkeys(scores, null.p95),
        f"AMI with the genres on test, K = {k}",
    )
    rival = max((n for n in scores if n != own), key=lambda n: scores[n]["ami"])
    gap = scores[own]["ami"] - scores[rival]["ami"]
    sentence = (
        f"VaDE's clusters reach AMI {scores[own]['ami']:.3f} (ARI {scores[own]['ari']:.3f}) with the genres; the best "
        f"alternative, {rival}, {scores[rival]['ami']:.3f}: VaDE is {'ahead' if gap > 0 else 'behind'} by "
        f"{abs(gap):.3f}. One seed cannot decide a gap of a few hundredths."
    )
    return Proof("clustering_comparison", run.name, numbers, sentence, figure)


def gmm_components(run: Run) -> Proof:
    """The mixture's Gaussians over the clips: how many are used, how far from round they are."""
    k = _require_mixture(run)
    gamma = run.responsibilities("test")
    used = mix.occupancy(gamma)
    variances = run.model.component_logvars().exp().detach().numpy()
    means = run.model.mixture["means"].detach().numpy()
    train, test = run.embed("train").means, run.embed("test").means
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
    }  # fmt: skip
    covariances = np.einsum("il,kl,jl->kij", plane, variances, plane)
    figure, _ = plots.ellipses(
        (test - centre) @ plane.T, run.labels("test", "language"), (means - centre) @ plane.T, covariances,
        f"{run.name}: test clips and 1-σ ellipses of {len(means)} components",
    )  # fmt: skip
    sentence = (
        f"{used.populated} of {len(means)} components hold a test clip (effective number {used.effective:.1f}). "
        f"Diagonal components describe held-out codes {'better' if shape.diag > shape.spherical else 'no better'} "
        f"than spherical ones ({shape.diag:.1f} against {shape.spherical:.1f} nats per clip). The picture shows two of "
        f"{train.shape[1]} dimensions, so ellipses that overlap here may be apart elsewhere."
    )
    return Proof("gmm_components", run.name, numbers, sentence, figure)


def soft_clustering(run: Run) -> Proof:
    """Is VaDE's confidence worth something? Confidence against agreement with each cluster's majority genre."""
    _require_mixture(run)
    train, test = run.responsibilities("train"), run.responsibilities("test")
    confidence = test.max(1)
    known, truth, found = (train.argmax(1), run.labels("train", "genre")), run.labels("test", "genre"), test.argmax(1)
    agree = mix.majority_agreement(*known, found, truth)
    null = clu.permutation_null(lambda y, c: mix.majority_agreement(*known, c, y).mean(), truth, found, n=50)
    table = mix.reliability(confidence, agree)
    entropy = mix.occupancy(test).entropy
    unsure = np.argsort(confidence)[: len(confidence) // 4 or 1]
    numbers = {
        "mean confidence": float(confidence.mean()),
        "agreement with the cluster's majority genre": float(agree.mean()),
        "agreement with permuted labels, 95th percentile": null.p95,
        "expected calibration error": mix.expected_calibration_error(confidence, agree),
        "agreement of the least confident quarter": float(agree[unsure].mean()),
        "mean entropy (nats)": float(entropy.mean()),
    }
    figure, _ = plots.reliability((table.low + table.high) / 2, table.accuracy, table.count, entropy)
    names = run.store.table.loc[run.store.rows("test")[unsure[:3]], "path"].str.rsplit("/", n=1).str[-1]
    sentence = (
        f"Mean confidence is {confidence.mean():.0%}, agreement with the majority genre {agree.mean():.0%} "
        f"(permuted labels: {null.p95:.0%}): calibration error {numbers['expected calibration error']:.2f}. "
        f"The least confident quarter agrees in {agree[unsure].mean():.0%} of the cases. Most uncertain: "
        f"{', '.join(names)}. Confidence is about clusters, not genres: "
        "a pure cluster of two genres can be confident and half wrong."
    )
    return Proof("soft_clustering", run.name, numbers, sentence, figure)
