"""Proofs about what the networks do to spectrograms: smooth paths, filters, reconstruction."""

from __future__ import annotations

import numpy as np
import torch

from .. import plots
from ..config import InputError
from ..evaluation import reconstruction as rec
from ..evaluation.smoothness import paths_smoothness
from ..models import build
from ..runs import Run, labels_of
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
    untrained = _untrained(run)
    decoded = np.stack([run.decode(line, label) for line in lines])
    raw = np.stack([_decode_with(untrained, line, label) for line in lines])
    originals = run.reconstruct("test")[0]
    gaps = np.array([np.linalg.norm(originals[a] - originals[b]) for a, b in ends])
    found, null = paths_smoothness(decoded, gaps), paths_smoothness(raw, gaps)
    dead = paths_smoothness(np.broadcast_to(decoded[:, :1], decoded.shape), gaps)
    alive = ~found["collapsed"]
    numbers = {
        "largest step / mean step": float(np.mean(found["step_ratio"][alive])) if alive.any() else np.inf,
        "path length / end-point distance": float(np.mean(found["length_ratio"][alive])) if alive.any() else np.inf,
        "paths that hardly move": float(np.mean(found["collapsed"])),
        "untrained decoder: paths that hardly move": float(np.mean(null["collapsed"])),
        "constant decoder: paths that hardly move": float(np.mean(dead["collapsed"])),
    }
    lengths = np.linalg.norm(np.diff(decoded[0].reshape(steps, -1), axis=0), axis=1)
    jump = np.zeros(steps - 1)
    jump[(steps - 1) // 2] = 1.0
    names = run.store.table.loc[rows[ends[0]], "path"].str.rsplit("/", n=1).str[-1].tolist()
    figure, _ = plots.paths(
        decoded[0],
        run.store.front_end,
        {run.name: lengths / max(lengths.sum(), 1e-12), "a cut in the middle (worst case)": jump},
        title=f"{run.name}: from {names[0]} to {names[1]}",
    )
    sentence = (
        f"Over {pairs} pairs of test clips the largest of {steps - 1} steps is "
        f"{numbers['largest step / mean step']:.2f} times the mean step and the path is "
        f"{numbers['path length / end-point distance']:.2f} times as long as the straight line (1 is perfectly "
        f"even and straight; a cut would have {steps - 1}); {numbers['paths that hardly move']:.0%} of the paths "
        f"hardly move, against {numbers['untrained decoder: paths that hardly move']:.0%} through an untrained "
        "decoder. Smooth is not the same as musical: nothing here says that the middle sounds like a song."
    )
    return Proof("smoothness", run.name, numbers, sentence, figure)


def _untrained(run: Run) -> torch.nn.Module:
    """The same architecture with fresh weights."""
    with torch.random.fork_rng():
        torch.manual_seed(run.config.training.seed)
        return build(run.config.model).eval()


@torch.inference_mode()
def _decode_with(model: torch.nn.Module, z: np.ndarray, y: np.ndarray | None) -> np.ndarray:
    label = None if y is None else torch.as_tensor(y)
    return model.decode(torch.as_tensor(z, dtype=torch.float32), label).squeeze(1).numpy()


def filters(run: Run) -> Proof:
    """First-layer kernels beside their initialisation: do they look along one axis, frequency or time?

    Selectivity of a kernel is |E_f - E_t| / (E_f + E_t), with E_f and E_t the energy of its differences along
    frequency and along time: 0 for a kernel without orientation, 1 for a pure stripe.
    """
    if run.config.model.name == "basic_vae" or run.config.model.backbone == "fc":
        raise InputError(f"{run.name} is fully connected and has no filters: use a convolutional model")
    trained, fresh = (m.encoder[0].weight.detach().numpy()[:, 0] for m in (run.model, _untrained(run)))
    (selective, leaning), (null, _) = _orientation(trained), _orientation(fresh)
    change = np.linalg.norm((trained - fresh).reshape(len(trained), -1), axis=1)
    change /= np.linalg.norm(fresh.reshape(len(fresh), -1), axis=1)
    order = np.argsort(leaning)
    numbers = {
        "mean selectivity": float(selective.mean()),
        "mean selectivity at initialisation": float(null.mean()),
        "kernels leaning to frequency edges": float((leaning > 0.5).sum()),
        "kernels leaning to time edges (onsets)": float((leaning < -0.5).sum()),
        "mean relative change by training": float(change.mean()),
    }
    figure, _ = plots.filters({"trained": trained[order], "initial": fresh[order]})
    sentence = (
        f"The {len(trained)} first-layer kernels have a mean orientation selectivity of "
        f"{numbers['mean selectivity']:.2f} against {numbers['mean selectivity at initialisation']:.2f} before "
        f"training: {numbers['kernels leaning to time edges (onsets)']:.0f} lean to edges in time (onsets) and "
        f"{numbers['kernels leaning to frequency edges']:.0f} to edges in frequency (bands, partials). A 4×4 kernel "
        "sees four frames, so rhythm, if it is detected, is detected in deeper layers."
    )
    return Proof("filters", run.name, numbers, sentence, figure)


def _orientation(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    along_f = (np.diff(kernels, axis=1) ** 2).sum((1, 2))
    along_t = (np.diff(kernels, axis=2) ** 2).sum((1, 2))
    leaning = (along_f - along_t) / np.maximum(along_f + along_t, 1e-12)
    return np.abs(leaning), leaning


def reconstruction(*runs: Run, shown: int = 5) -> Proof:
    """Test reconstructions of one or several runs: error per bin, edges, onsets; R² against the mean picture."""
    scores, pictures = {}, {}
    for name, run in zip(labels_of(runs), runs, strict=True):
        x, copy = run.reconstruct("test")
        mean = run.reconstruct("train")[0].mean(0)
        edges = rec.edge_energy_ratio(x, copy)
        scores[name] = {
            "MSE per bin": rec.mse_per_bin(x, copy),
            "R² against the mean spectrogram": rec.r2_against_mean(x, copy, mean),
            "edge energy kept, time": edges.time,
            "edge energy kept, frequency": edges.frequency,
            "onset-envelope correlation": rec.onset_correlation(x, copy).mean,
        }
        pick = np.linspace(0, len(x) - 1, shown).astype(int)
        pictures.setdefault("original", x[pick])
        pictures[name] = copy[pick]
    figure, _ = plots.gallery(pictures, runs[0].store.front_end, runs[0].labels("test", "genre")[pick])
    best = min(scores, key=lambda n: scores[n]["MSE per bin"])
    compared = f"{best} reconstructs best of {len(runs)}" if len(runs) > 1 else best
    s = scores[best]
    sentence = (
        f"{compared}: MSE {s['MSE per bin']:.4f} per bin on test (inputs in [0, 1]), R² "
        f"{s['R² against the mean spectrogram']:.2f} (always answering the mean training spectrogram: 0), "
        f"{s['edge energy kept, time']:.0%} of the edge energy along time kept, onset envelopes correlate "
        f"{s['onset-envelope correlation']:.2f}. One seed: the ranking can change with another."
    )
    numbers = {f"{run}: {k}" if len(runs) > 1 else k: v for run, row in scores.items() for k, v in row.items()}
    return Proof("reconstruction", " and ".join(scores), numbers, sentence, figure)
