"""The measurements that every model's notebook takes of its run and keeps, so that notebook 07 can compare them.

Notebook 02 writes out clustering, 03 reconstruction, 04 disentanglement.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA, FastICA
from sklearn.preprocessing import StandardScaler

from vaelib import claims, plots
from vaelib.collection import UNLABELLED
from vaelib.config import InputError
from vaelib.descriptors import LIVE_KL, MOST_FACTORS, codes_of, factors_of, label, live_dimensions, meanings, words
from vaelib.metrics import clustering as clu
from vaelib.metrics.disentanglement import axes_verdict, coarse, disentanglement_scores, mig
from vaelib.metrics.spectrogram import reconstruction_scores
from vaelib.models import VaDE, build
from vaelib.runs import Run
from vaelib.windows import Clips

LABELS = ("genre", "language")
CLASSES = 256  # of a label, the most frequent ones, are scored: clusters and probes of thousands would take hours
BASELINES = {"pca": "PCA of the log-mel", "mfcc": "MFCC statistics", "untrained": "untrained encoder"}
BASELINES |= {"pca_raw": "PCA of the raw log-mel"}  # short name in an id → in words


def reconstruction(run: Run) -> claims.Results:
    """Reconstructions of the test clips: error per bin and band, R² against the mean picture, edges, onsets."""
    x, xhat = run.reconstruct("test")
    n, per_clip = reconstruction_scores(x, xhat, run.middle_windows(run.rows("train")).mean(0, dtype=float))
    pick = np.linspace(0, len(x) - 1, 6).astype(int)
    rows, genres = {"original": x[pick], run.name: xhat[pick]}, run.labels("test", "genre")[pick]
    figure, _ = plots.gallery(rows, run.store.front_end, genres, "Test clips and their reconstructions")
    text = (
        f"MSE {n['rec.mse']:.4f} per bin on test (inputs in [0, 1]), R² {n['rec.r2']:.2f} (always answering the mean "
        f"training spectrogram: 0), {n['rec.edges_time']:.0%} of the edge energy along time kept, onset envelopes "
        f"correlate {n['rec.onset_r']:.2f}."
    )
    return claims.keep(run, "reconstruction", n, per_clip, figure, text)


def clustering(run: Run) -> claims.Results:
    """Clusters of the test tracks against genres and languages, beside permuted labels and spaces without training.

    There are as many as classes, or as VaDE's components. Conditional models encode without the label.
    """
    seed, numbers, per_clip, spaces = run.config.training.seed, {}, {}, {}
    train, test = run.embed_tracks("train").means, run.embed_tracks("test").means
    mixture = isinstance(run.model, VaDE)
    for kind in LABELS:
        there, scored = known(run, "train", kind, True), known(run, "test", kind, True)
        y, truth = run.labels("train", kind, True)[there], run.labels("test", kind, True)[scored]
        if min(len(set(y)), len(set(truth))) < 2:
            continue
        k = min(run.config.model.components if mixture else len(set(y)), len(train))
        own = run.log_responsibilities("test", True).argmax(1) if mixture else clu.kmeans_assign(train, test, k, seed)
        spaces = spaces or baseline_spaces(run)
        baselines = {name: clu.kmeans_assign(a, b, k, seed)[scored] for name, (a, b) in spaces.items()}
        found, values = clu.clustering_scores(truth, own[scored], test[scored], baselines)
        probe = clu.linear_probe(train[there], y, test[scored], truth, seed)
        found |= {"k": k, "probe": probe, "chance": 1 / len(set(truth))}
        numbers |= {f"{kind}.{name}": v for name, v in found.items()}
        per_clip |= {f"{kind}.{name}": v for name, v in values.items()}
    if not numbers:
        reason = f"{run.store.path.name} has fewer than two genres and languages: clusters need labels to meet"
        return claims.skip(run, "clustering", reason)
    kind = next(name for name in LABELS if f"{name}.k" in numbers)
    n = {name.removeprefix(f"{kind}."): v for name, v in numbers.items()}
    # raw and input are the same where a clip's loudness and tilt stay in
    others = {name: n[f"ami.{short}"] for short, name in BASELINES.items() if run.config.detilt or short != "pca_raw"}
    shown = {run.name: n["ami"]} | {f"{name} + K-Means": v for name, v in others.items()}
    figure, _ = plots.bars(shown, n["ami.null_p95"], f"AMI with the {kind} on test, K = {n['k']}")
    best = max(others, key=others.get)
    text = (
        f"{'Its own components' if mixture else 'K-Means clusters of its codes'} (K = {n['k']}) agree with the "
        f"{kind} at AMI {n['ami']:.3f} and ARI {n['ari']:.3f} on test (permuted: AMI {n['ami.null_p95']:.3f}): "
        f"{'more' if n['ami'] > others[best] else 'no more'} than the best space without training, {best} (AMI "
        f"{others[best]:.3f}). A linear probe reads the {kind} from the code in {n['probe']:.0%} of the cases (chance "
        f"{n['chance']:.0%}). One seed."
    )
    if len(set(run.labels(None, kind))) > CLASSES:
        text += f" Of the {kind}s only the {CLASSES} most frequent count."
    return claims.keep(run, "clustering", numbers, per_clip, figure, text)


def disentanglement(run: Run) -> claims.Results:
    """MIG, SAP and DCI of a run on its factors, with nulls and linear baselines."""
    try:
        factors = factors_of(run)
    except InputError as e:
        return claims.skip(run, "disentanglement", str(e))
    codes, live, found = codes_of(run, factors.index), live_dimensions(run), meanings(run)
    seed = run.config.training.seed
    train, test = (factors.index.isin(run.rows(split)) for split in ("train", "test"))
    others = linear_codes(coarse(run.middle_windows(factors.index)), train, factors.shape[1], seed)
    others["samples"] = codes_of(run, factors.index, sampled=True)
    n, per_clip = disentanglement_scores(codes, factors, live, train, test, others, seed)
    n["live.count"] = float((run.embed("test").kl > LIVE_KL).sum())
    matrix = pd.DataFrame(mig(codes, factors).matrix[live[:12]], [label(int(d), found) for d in live[:12]])
    matrix.columns = words(factors).values()
    title = f"{run.name}: what a dimension knows of each factor\n({len(matrix)} of {n['live.count']:.0f} live ones)"
    figure, _ = plots.heatmap(matrix, title, "MI / entropy", vmin=0.0, vmax=1.0)
    gaps = pd.Series({name: n[f"mig.of.{name}"] for name in factors})
    best = gaps.fillna(-1).idxmax()  # nan: constant here
    text = (
        f"MIG is {n['mig.mean']:.3f}, against {n['mig.null_p95']:.3f} for permuted factors and "
        f"{n['mig.rotated_p95']:.3f} after random rotations of the live dimensions (95th percentiles); "
        f"{words(factors)[best]} separates best ({gaps[best]:.3f}). {axes_verdict(n)} As many linear components of the "
        f"windows reach {n['mig.pca']:.3f} (PCA) and {n['mig.ica']:.3f} (FastICA). {n['live.named']:.0f} of "
        f"{n['live.count']:.0f} live dimensions stand clear for one factor; {n['live.own']:.0f} of {len(gaps)} factors "
        "have exactly one dimension."
    )
    if factors.attrs["measured"]:
        text += (
            f" Descriptors measured by librosa stand in for true factors ({', '.join(factors)}): estimates themselves."
        )
    elif len(gaps) == MOST_FACTORS:
        text += f" At most {MOST_FACTORS} factors are scored, here {', '.join(gaps.index)}."
    return claims.keep(run, "disentanglement", n, per_clip, figure, text + " One seed.")


def untrained(run: Run) -> torch.nn.Module:
    """The same architecture with the weights that the run started from."""
    with torch.random.fork_rng():
        torch.manual_seed(run.config.training.seed)
        return build(run.config.model).eval()


def windows(run: Run, split: str, detilt: bool | None = None) -> np.ndarray:
    """(clip, W, mel, frame): what the model sees of a split; with another `detilt`, what it would have seen."""
    scaler = run.scaler if detilt is None else run.store.fit_scaler(detilt)
    clips = Clips.read(run.store, scaler, run.rows(split))
    n = clips.distinct(run.config.training.eval_windows)
    return clips.even_windows(torch.arange(len(clips)), n).squeeze(2).numpy()


def known(run: Run, split: str, label: str, tracks: bool = False) -> np.ndarray:
    """(clip,) whether a clip of the split has one of the `CLASSES` most frequent labels; with `tracks`, (track,)."""
    counts = pd.Series(run.labels(None, label)).value_counts().drop(UNLABELLED, errors="ignore")
    return np.isin(run.labels(split, label, tracks), counts.sort_index().nlargest(CLASSES).index)


def baseline_spaces(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Embeddings of tracks without training, (train, test) each, by the short names of `BASELINES`."""
    train, test = (windows(run, split) for split in ("train", "test"))
    mfcc, blank = clu.mfcc_statistics(train), replace(run, model=untrained(run))
    scale = StandardScaler().fit(mfcc).transform
    spaces = {
        "pca": clu.pca_codes(train, test),
        "mfcc": (scale(mfcc), scale(clu.mfcc_statistics(test))),
        "untrained": [blank.embed(split).means for split in ("train", "test")],
        "pca_raw": clu.pca_codes(windows(run, "train", False), windows(run, "test", False)),
    }
    return {name: (run.of_tracks("train", a), run.of_tracks("test", b)) for name, (a, b) in spaces.items()}


def linear_codes(x: np.ndarray, train: np.ndarray, n: int, seed: int) -> dict[str, np.ndarray]:
    """(N, ≤ n) principal and independent components (Hyvärinen & Oja 2000) of windows (N, bins), fitted on `train`."""
    pca = PCA(min(n, *x[train].shape), random_state=seed).fit(x[train]).transform(x)
    white = pca / (pca[train].std(0) + 1e-12)
    ica = FastICA(whiten="unit-variance", max_iter=2000, random_state=seed).fit(white[train])
    return {"pca": pca, "ica": ica.transform(white)}
