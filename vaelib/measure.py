"""The measurements that every model's notebook takes of its run, so that notebook 07 can compare them.

Each one keeps its numbers, figure and sentence with the run (`claims.keep`), or the reason why there are none.
Notebook 03 writes out reconstruction and clustering, 04 disentanglement.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from . import claims, plots
from .collection import UNLABELLED
from .config import InputError
from .factors import LIVE_KL, Factors, codes_of, factors_of, live_dimensions, meanings
from .factors import label as dimension_label
from .metrics import clustering as clu
from .metrics.disentanglement import KNOWN, axes_verdict, component_codes, disentanglement_scores, mig
from .metrics.judges import linear_probe
from .metrics.reading import coarse
from .metrics.spectrogram import reconstruction_scores
from .models import VaDE, build
from .runs import Run
from .windows import Clips

LABELS = ("genre", "language")
BASELINES = {  # short name in an id → in words
    "pca": "PCA of the log-mel",
    "mfcc": "MFCC statistics",
    "untrained": "untrained encoder",
    "pca_raw": "PCA of the raw log-mel",
}


def reconstruction(run: Run, shown: int = 6) -> claims.Results:
    """Reconstructions of the test clips: error per bin and band, R² against the mean picture, edges, onsets."""
    x, xhat = run.reconstruct("test")
    numbers, per_clip = reconstruction_scores(x, xhat, mean_window(run, "train"))
    pick = np.linspace(0, len(x) - 1, shown).astype(int)
    rows, genres = {"original": x[pick], run.name: xhat[pick]}, run.labels("test", "genre")[pick]
    figure, _ = plots.gallery(rows, run.store.front_end, genres, "Test clips and their reconstructions")
    text = (
        f"MSE {numbers['rec.mse']:.4f} per bin on test (inputs in [0, 1]), R² {numbers['rec.r2']:.2f} (always "
        f"answering the mean training spectrogram: 0), {numbers['rec.edges_time']:.0%} of the edge energy along time "
        f"kept, onset envelopes correlate {numbers['rec.onset_r']:.2f}."
    )
    return claims.keep(run, "reconstruction", numbers, per_clip, figure, text)


def clustering(run: Run) -> claims.Results:
    """Clusters of the test tracks against genres and languages, beside permuted labels and spaces without training.

    All have the same number of clusters: that of the classes, or of VaDE's components. Conditional models encode
    without the label. Clips without a label are not scored.
    """
    seed, numbers, per_clip, spaces = run.config.training.seed, {}, {}, {}
    train, test = run.embed_tracks("train").means, run.embed_tracks("test").means
    for label in LABELS:
        truth, there = run.labels("test", label, True), known(run, "test", label, True)
        train_truth, train_there = run.labels("train", label, True), known(run, "train", label, True)
        classes = len(set(train_truth[train_there]))
        if classes < 2 or len(set(truth[there])) < 2:
            continue
        k = number_of_clusters(run, classes)
        spaces = spaces or baseline_spaces(run)
        baselines = {name: clu.kmeans_assign(a, b, k, seed)[there] for name, (a, b) in spaces.items()}
        found, values = clu.clustering_scores(truth[there], own_clusters(run, k)[there], test[there], baselines)
        probe = linear_probe(train[train_there], train_truth[train_there], test[there], truth[there], seed)
        found |= {"k": float(k), "probe": probe.balanced_accuracy, "chance": probe.chance}
        numbers |= {f"{label}.{name}": v for name, v in found.items()}
        per_clip |= {f"{label}.{name}": v for name, v in values.items()}
    if not numbers:
        reason = f"{run.store.path.name} has fewer than two genres and languages: clusters need labels to meet"
        return claims.skip(run, "clustering", reason)
    label = next(name for name in LABELS if f"{name}.k" in numbers)
    n = {name.removeprefix(f"{label}."): v for name, v in numbers.items()}
    # raw and input are the same where a clip's loudness and tilt stay in
    others = {name: n[f"ami.{short}"] for short, name in BASELINES.items() if run.config.detilt or short != "pca_raw"}
    shown = {run.name: n["ami"]} | {f"{name} + K-Means": v for name, v in others.items()}
    title = f"AMI with the {label} on test, K = {n['k']:.0f}"
    figure, _ = plots.bars(shown, dict.fromkeys(shown, n["ami.null_p95"]), title)
    return claims.keep(run, "clustering", numbers, per_clip, figure, _clustering_text(run, label, n, others))


def _clustering_text(run: Run, label: str, n: dict[str, float], others: dict[str, float]) -> str:
    whose = "Its own components" if isinstance(run.model, VaDE) else "K-Means clusters of its codes"
    best = max(others, key=others.get)
    order = "more" if n["ami"] > others[best] else "no more"
    more = ": the code knows much that the clusters do not find" if n["probe"] > n["accuracy"] + 0.1 else ""
    return (
        f"{whose} (K = {n['k']:.0f}) agree with the {label} at AMI {n['ami']:.3f} and ARI {n['ari']:.3f} on test "
        f"(permuted labels: {n['ami.null_p95']:.3f}): {order} than the best space without training, {best} (AMI "
        f"{others[best]:.3f}). A linear probe reads the {label} from the code in {n['probe']:.0%} of the cases (chance "
        f"{n['chance']:.0%}){more}. One seed."
    )


def disentanglement(run: Run, shown: int = 12) -> claims.Results:
    """MIG, SAP and DCI of a run on its factors, with nulls and linear baselines; written out in notebook 04.

    Dimensions are live, here as everywhere, by their KL on test clips.
    """
    try:
        factors = factors_of(run)
    except InputError as e:
        return claims.skip(run, "disentanglement", str(e))
    codes, live, found = codes_of(run, factors.rows), live_dimensions(run), meanings(run)
    train, test = (np.isin(factors.rows, run.rows(split)) for split in ("train", "test"))
    pictures, seed = coarse(run.middle_windows(factors.rows)), run.config.training.seed
    pca, ica = component_codes(pictures[train], pictures, len(factors.values), seed)
    others = {"pca": pca, "ica": ica, "samples": codes_of(run, factors.rows, sampled=True)}
    numbers, per_clip = disentanglement_scores(codes, factors.values, live, train, test, others, seed)
    numbers["live.count"] = float((run.embed("test").kl > LIVE_KL).sum())
    rows, columns = (
        [dimension_label(int(d), found) for d in live[:shown]],
        [factors.text(name) for name in factors.values],
    )
    title = f"{run.name}: what a dimension knows of each factor\n({len(rows)} of {numbers['live.count']:.0f} live ones)"
    matrix = pd.DataFrame(mig(codes, factors.values).matrix[live[:shown]], rows, columns)
    figure, _ = plots.heatmap(matrix, title, "MI / entropy")
    return claims.keep(run, "disentanglement", numbers, per_clip, figure, _disentanglement_text(factors, numbers))


def _disentanglement_text(factors: Factors, n: dict[str, float]) -> str:
    gaps = {name: n[f"mig.of.{name}"] for name in factors.values}
    best = max(gaps, key=lambda name: np.nan_to_num(gaps[name], nan=-1))  # nan: constant here
    named = (
        f"{n['live.named']:.0f} of {n['live.count']:.0f} live dimensions stand clear for one factor (know at least "
        f"{KNOWN:.0%} of it, and at most half as much of any other); {n['live.own']:.0f} of {len(gaps)} factors have "
        "exactly one dimension."
    )
    estimated = (
        f" Without true factors, descriptors measured in the audio by librosa stand in ({', '.join(gaps)}), which are "
        "themselves estimates and correlated."
    )
    return (
        f"MIG is {n['mig.mean']:.3f}, against {n['mig.null_p95']:.3f} for permuted factors and "
        f"{n['mig.rotated_p95']:.3f} after random rotations of the live dimensions (95th percentiles); "
        f"{factors.text(best)} separates best ({gaps[best]:.3f}). {axes_verdict(n)} As many linear components of the "
        f"windows reach {n['mig.pca']:.3f} (PCA) and {n['mig.ica']:.3f} (FastICA). {named}"
        f"{estimated if factors.source == 'measured' else ''} One seed."
    )


# --- what is measured ---


def untrained(run: Run) -> torch.nn.Module:
    """The same architecture with the weights that the run started from."""
    with torch.random.fork_rng():
        torch.manual_seed(run.config.training.seed)
        return build(run.config.model).eval()


def mean_window(run: Run, split: str, block: int = 64) -> np.ndarray:
    """(mel, frame): the mean of the middle windows of a split, in blocks."""
    rows, total = run.store.rows(split), 0.0
    for i in range(0, len(rows), block):
        total = total + run.middle_windows(rows[i : i + block]).sum(0, dtype=np.float64)
    return (total / len(rows)).astype(np.float32)


def windows(run: Run, split: str, detilt: bool | None = None) -> np.ndarray:
    """(clip, W, mel, frame): what the model sees of a split; with another `detilt`, what it would have seen."""
    clips = run.clips(split)
    if detilt is not None and detilt != run.config.detilt:
        clips = Clips.read(run.store, run.store.fit_scaler(detilt), run.store.rows(split))
    n = clips.distinct(run.config.training.eval_windows)
    return clips.even_windows(torch.arange(len(clips)), n).squeeze(2).numpy()


def known(run: Run, split: str, label: str, tracks: bool = False) -> np.ndarray:
    """(clip,) whether a clip of the split has the label; with `tracks`, (track,)."""
    return run.labels(split, label, tracks) != UNLABELLED


def number_of_clusters(run: Run, classes: int) -> int:
    """How many clusters a run is scored with: VaDE's components, else the classes; never more than training tracks."""
    wanted = run.config.model.components if isinstance(run.model, VaDE) else classes
    return min(wanted, len(run.rows("train", True)))


def own_clusters(run: Run, k: int) -> np.ndarray:
    """(track,) clusters of test: VaDE's own components, else K-Means fitted on train."""
    if isinstance(run.model, VaDE):
        return run.log_responsibilities("test", tracks=True).argmax(1)
    train, test = (run.embed_tracks(split).means for split in ("train", "test"))
    return clu.kmeans_assign(train, test, k, run.config.training.seed)


def baseline_spaces(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Embeddings of tracks without training, (train, test) each, by the short names of `BASELINES`."""
    train, test = windows(run, "train"), windows(run, "test")
    pca = raw = clu.pca_codes(train, test)
    if run.config.detilt:
        raw = clu.pca_codes(windows(run, "train", False), windows(run, "test", False))
    spaces = {
        "pca": pca,
        "mfcc": clu.standardised(clu.mfcc_statistics(train), clu.mfcc_statistics(test)),
        "untrained": (_untrained_codes(run, train), _untrained_codes(run, test)),
        "pca_raw": raw,
    }
    return {name: (run.of_tracks("train", a), run.of_tracks("test", b)) for name, (a, b) in spaces.items()}


@torch.inference_mode()
def _untrained_codes(run: Run, x: np.ndarray, batch_size: int = 256) -> np.ndarray:
    model, flat = untrained(run), torch.from_numpy(x.reshape(-1, 1, *x.shape[2:]))
    means = [model.encode(flat[i : i + batch_size]).mean for i in range(0, len(flat), batch_size)]
    return torch.cat(means).unflatten(0, x.shape[:2]).mean(1).numpy()
