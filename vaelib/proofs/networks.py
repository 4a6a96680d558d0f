"""Proofs about what the networks do to spectrograms: smooth paths and reconstruction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .. import plots
from ..config import InputError
from ..metrics import spectrogram as rec
from ..metrics.spectrogram import paths_smoothness
from ..runs import Run, labels_of
from .filters import untrained
from .proof import Proof


def smoothness(run: Run, pairs: int = 64, steps: int = 33, seed: int = 0) -> Proof:
    """Straight paths between the codes of test clips, decoded: is every step about as long as the others?

    Controls: the same paths through an untrained decoder, and a decoder that answers every code with the same
    picture, which must fail.
    """
    codes, rows = run.embed("test").means, run.store.rows("test")
    if len(rows) < 2:
        raise InputError(f"{run.name} has {len(rows)} test clips; interpolation needs two")
    ends = np.random.default_rng(seed).integers(0, len(rows), (pairs, 2))
    ends[:, 1] = np.where(ends[:, 0] == ends[:, 1], (ends[:, 1] + 1) % len(rows), ends[:, 1])
    share = np.linspace(0, 1, steps)[:, None]
    lines = [(1 - share) * codes[a] + share * codes[b] for a, b in ends]
    label = np.zeros(steps, int) if run.conditional else None
    fresh = untrained(run)
    scores: dict[str, list[dict[str, np.ndarray]]] = {"found": [], "null": [], "free": [], "dead": []}
    for pair, line in zip(ends, lines, strict=True):  # at full size a path has 22 MB
        path, raw = run.decode(line, label)[None], _decode_with(fresh, line, label)[None]
        a, b = run.middle_windows(rows[pair])
        gap = np.array([np.linalg.norm(a - b)])
        scores["found"].append(paths_smoothness(path, gap))
        scores["null"].append(paths_smoothness(raw, gap))
        scores["free"].append(paths_smoothness(raw))
        scores["dead"].append(paths_smoothness(np.broadcast_to(path[:, :1], path.shape), gap))
    found, null, free, dead = ({k: np.concatenate([s[k] for s in rows]) for k in rows[0]} for rows in scores.values())
    alive = ~found["collapsed"]
    gradual = {  # 0 or 1 for every pair
        "share of gradual paths": _gradual(found),
        "untrained decoder: share of gradual paths": _gradual(null),
        "constant decoder: share of gradual paths": _gradual(dead),
    }
    numbers = {name: float(paths.mean()) for name, paths in gradual.items()} | {
        "largest step / mean step": float(np.mean(found["step_ratio"][alive])) if alive.any() else np.inf,
        "path length / end-point distance": float(np.mean(found["length_ratio"][alive])) if alive.any() else np.inf,
        "paths that hardly move": float(np.mean(found["collapsed"])),
        "untrained decoder: paths that hardly move": float(np.mean(null["collapsed"])),
        "untrained decoder: largest step / mean step": float(np.mean(free["step_ratio"])),
        "untrained decoder: path length / end-point distance": float(np.mean(free["length_ratio"])),
        "constant decoder: paths that hardly move": float(np.mean(dead["collapsed"])),
        "straight line in data space: largest step / mean step": 1.0,  # by construction: what a cross-fade scores
    }
    first = run.decode(lines[0], label)
    lengths = np.linalg.norm(np.diff(first.reshape(steps, -1), axis=0), axis=1)
    jump = np.zeros(steps - 1)
    jump[(steps - 1) // 2] = 1.0
    names = [Path(run.store.name(r)).stem for r in rows[ends[0]]]
    figure, _ = plots.paths(
        first,
        run.store.front_end,
        {run.name: lengths / max(lengths.sum(), 1e-12), "a cut in the middle (worst case)": jump},
        title=f"{run.name}: from {names[0]} to {names[1]}",
    )
    empty = numbers["untrained decoder: share of gradual paths"] >= numbers["share of gradual paths"] - 0.05
    verdict = "An untrained decoder does as well: this smoothness comes with the architecture, not with learning. "
    sentence = (
        f"Of {pairs} paths between test clips {numbers['share of gradual paths']:.0%} are gradual (no step longer than "
        f"twice the mean step, the path at most twice as long as the straight line, the ends really apart), against "
        f"{numbers['untrained decoder: share of gradual paths']:.0%} through an untrained decoder and "
        f"{numbers['constant decoder: share of gradual paths']:.0%} through one that answers everything alike. The "
        f"largest of {steps - 1} steps is {numbers['largest step / mean step']:.2f} times the mean step and the path "
        f"{numbers['path length / end-point distance']:.2f} times as long as the straight line (a cross-fade of the "
        f"two spectrograms: 1 and 1). {verdict if empty else ''}Smooth is not the same as musical: nothing here says "
        "that the middle sounds like a song."
    )
    per_clip = gradual | (
        {"largest step / mean step": found["step_ratio"], "path length / end-point distance": found["length_ratio"]}
        if alive.all() else {}
    )  # fmt: skip
    return Proof("smoothness", run.name, numbers, sentence, figure, per_clip)


def _gradual(scores: dict[str, np.ndarray]) -> np.ndarray:
    """(P,) whether a path is even and straight within a factor of two; a collapsed one is not."""
    return (scores["step_ratio"] < 2) & (scores["length_ratio"] < 2) & ~scores["collapsed"]


@torch.inference_mode()
def _decode_with(model: torch.nn.Module, z: np.ndarray, y: np.ndarray | None) -> np.ndarray:
    label = None if y is None else torch.as_tensor(y)
    return model.decode(torch.as_tensor(z, dtype=torch.float32), label).squeeze(1).numpy()


def mean_window(run: Run, split: str, block: int = 64) -> np.ndarray:
    """(mel, frame): the mean of the middle windows of a split, in blocks."""
    rows, total = run.store.rows(split), 0.0
    for i in range(0, len(rows), block):
        total = total + run.middle_windows(rows[i : i + block]).sum(0, dtype=np.float64)
    return (total / len(rows)).astype(np.float32)


def reconstruction(*runs: Run, shown: int = 6) -> Proof:
    """Test reconstructions of one or several runs: error per bin and band, edges, onsets; R² against the mean picture.

    Raises:
        InputError: the runs do not read the same clips in the same way.
    """
    if len({(r.config.fingerprint, r.config.detilt) for r in runs}) > 1:
        raise InputError(f"{', '.join(r.name for r in runs)} read different stores or inputs: not to be compared")
    scores, pictures, per_clip = {}, {}, {}
    for name, run in zip(labels_of(runs), runs, strict=True):
        x, copy = run.reconstruct("test")
        mean = mean_window(run, "train")
        onsets = rec.onset_correlations(x, copy)
        low, middle, high = (float(part.mean()) for part in np.array_split(rec.mse_by_band(x, copy), 3))
        values = {
            "MSE per bin": rec.mse_per_clip(x, copy),
            "R² against the mean spectrogram": rec.r2_against_mean(x, copy, mean),
            "edge energy kept, time": rec.edges_kept(x, copy, "time"),
            "edge energy kept, frequency": rec.edges_kept(x, copy, "frequency"),
            "onset-envelope correlation": onsets,
        }
        per_clip[name] = {k: v for k, v in values.items() if not np.isnan(v).any()}
        scores[name] = {k: float(v.mean()) for k, v in values.items()} | {
            "MSE of the mean spectrogram": float(((x - mean) ** 2).mean()),
            "MSE per bin, low third of the bands": low,
            "MSE per bin, middle third of the bands": middle,
            "MSE per bin, high third of the bands": high,
            "onset-envelope correlation": float(np.nanmean(onsets)),
        }
        pick = np.linspace(0, len(x) - 1, shown).astype(int)
        pictures.setdefault("original", x[pick])
        pictures[name] = copy[pick]
    figure, _ = plots.gallery(pictures, runs[0].store.front_end, runs[0].labels("test", "genre")[pick])
    best = min(scores, key=lambda n: scores[n]["MSE per bin"])
    compared = f"{best} reconstructs best of {len(runs)}: " if len(runs) > 1 else ""
    s = scores[best]
    sentence = (
        f"{compared}MSE {s['MSE per bin']:.4f} per bin on test (inputs in [0, 1]), R² "
        f"{s['R² against the mean spectrogram']:.2f} (always answering the mean training spectrogram: 0), "
        f"{s['edge energy kept, time']:.0%} of the edge energy along time kept, onset envelopes correlate "
        f"{s['onset-envelope correlation']:.2f}."
    )
    several = len(runs) > 1
    sentence += " One seed: the ranking can change with another." if several else ""
    numbers = {f"{run}: {k}" if several else k: v for run, row in scores.items() for k, v in row.items()}
    values = {f"{run}: {k}" if several else k: v for run, row in per_clip.items() for k, v in row.items()}
    return Proof("reconstruction", " and ".join(scores), numbers, sentence, figure, values)
