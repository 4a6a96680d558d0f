"""Runs: planned, fitted, found and opened again; what a run's model makes of its clips."""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .audio import Scaler
from .checkpoints import read_model
from .config import (
    DEFAULT_BETA,
    InputError,
    ModelConfig,
    RunConfig,
    TrainConfig,
    one_of,
    outputs_dir,
    read_settings,
)
from .losses import gaussian_kl
from .models import MODELS, VAE, ConditionalVAE, Posterior, VaDE
from .store import Store, open_store
from .training import train
from .windows import Clips, encode_windows

SPLITS = ("train", "validation", "test")
LABEL_MODES = ("given", "inferred", "marginal")


@dataclass(frozen=True)
class Embedding:
    """Clips in a model's latent space.

    Attributes:
        means: (clip, L) posterior means averaged over evenly spaced windows.
        logvars: (clip, L) log of the variances averaged over the same windows.
        kl: (L,) mean KL of each dimension to N(0, 1), nats.
        rows: (clip,) row numbers in the store.
    """

    means: np.ndarray
    logvars: np.ndarray
    kl: np.ndarray
    rows: np.ndarray


@dataclass(repr=False, eq=False)
class Run:
    """A finished training run; `decode`, `embed` and `sample` may be called from several threads (sliders do)."""

    folder: Path
    config: RunConfig
    scaler: Scaler
    store: Store
    model: VAE  # with the best epoch's weights, in evaluation mode, on the CPU
    summary: dict  # what `done.json` says
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.clips, self.embed = cache(self.clips), cache(self.embed)  # kept in memory after the first call

    def __repr__(self) -> str:
        t, s = self.config.training, self.summary
        return (
            f"Run {self.name}, seed {t.seed}, of {self.store.path.name}; epoch {s['best_epoch']} of {s['epochs']}\n"
            f"  model   {self.config.model.latent} latent dimensions, {s['parameters']:,} parameters, β = {t.beta:g}\n"
            f"  trained {s['train_seconds']:.0f} s on {s['device']}, {s['clips_per_s']:,.0f} clips/s\n"
            f"  folder  {self.folder}"
        )

    @property
    def name(self) -> str:
        """Its row of the comparison table (`RunConfig.variant`)."""
        return self.config.variant

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        return pd.read_csv(self.folder / "history.csv")

    @property
    def conditional(self) -> bool:
        """Whether the model is given a class."""
        return isinstance(self.model, ConditionalVAE)

    def rows(self, split: str | None, tracks: bool = False) -> np.ndarray:
        """(clip,) row numbers of a split, or of all clips; with `tracks`, those of each track's first clip."""
        rows = self.store.rows(split)
        return self.store.tracks(rows)[0] if tracks else rows

    def labels(self, split: str | None, label: str, tracks: bool = False) -> np.ndarray:
        """(clip,) label strings of a split; with `tracks`, (track,)."""
        return self.store.table.loc[self.rows(split, tracks), label].to_numpy().astype(str)

    def of_tracks(self, split: str | None, values: np.ndarray) -> np.ndarray:
        """(clip, …) of a split → (track, …): the mean over the clips of each track."""
        return track_means(values, self.store.tracks(self.store.rows(split))[1])

    def clips(self, split: str | None) -> Clips:
        """Scaled spectrograms of a split."""
        return Clips.read(self.store, self.scaler, self.store.rows(split))

    # --- encoding ---

    def posteriors(self, clips: Clips, windows: int, labels: str = "inferred") -> Posterior:
        """Every encoding of a run goes through here: posteriors of evenly spaced windows (clip, window, L).

        Args:
            windows: Of each clip; 1: the middle one.
            labels: Of a conditional model: `given` (the true class: leakage, call it supervised), `inferred` (the
                class head's choice) or `marginal` (its probabilities). Other models ignore it.
        """
        y = None
        if one_of("label mode", labels, LABEL_MODES) == "given" and self.conditional:
            y = torch.from_numpy(self.store.codes(self.config.model.condition, clips.rows))
        with self.lock:
            return encode_windows(self.model, clips, windows, y, labels == "marginal" and self.conditional)

    def embed(self, split: str | None, labels: str = "inferred") -> Embedding:
        """The clips of a split, or all; `labels`: see `posteriors`."""
        q = self.posteriors(self.clips(split), self.config.training.eval_windows, labels)
        kl = gaussian_kl(q).mean((0, 1)).numpy()
        return Embedding(q.mean.mean(1).numpy(), q.logvar.exp().mean(1).log().numpy(), kl, self.rows(split))

    def embed_tracks(self, split: str | None, labels: str = "inferred") -> Embedding:
        """`embed`, with one code per track: the mean over the segments that a song was cut into."""
        whole = self.embed(split, labels)
        variances = self.of_tracks(split, np.exp(whole.logvars))
        rows = self.rows(split, tracks=True)
        return Embedding(self.of_tracks(split, whole.means), np.log(variances), whole.kl, rows)

    def encode_clip(self, row: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Of a clip's middle window: posterior mean (L,), the window (mel, frame), class index (0 if unconditional)."""
        q = self.posteriors(Clips.read(self.store, self.scaler, np.array([row])), 1)
        label = 0 if q.class_logits is None else int(q.class_logits[0, 0].argmax())
        return q.mean[0, 0].numpy(), self.middle_windows(np.array([row]))[0], label

    def middle_windows(self, rows: np.ndarray, block: int = 256) -> np.ndarray:
        """(B, mel, frame) in [0, 1]: the middle windows of the clips `rows` (B,), as the model is given them."""
        parts = [Clips.read(self.store, self.scaler, rows[i : i + block]) for i in range(0, len(rows), block)]
        return np.concatenate([c.even_windows(torch.arange(len(c)), 1)[:, 0, 0].numpy() for c in parts])

    @torch.inference_mode()
    def log_responsibilities(self, split: str | None, tracks: bool = False) -> np.ndarray:
        """(clip, K) log p(c|clip) of a VaDE run: the windows of a clip share one cluster variable.

        With `tracks`, (track, K): all windows of all segments of a track share it.
        """
        if not isinstance(self.model, VaDE):
            raise InputError(f"{self.name} has no mixture: only a vade run has soft assignments")
        codes = self.posteriors(self.clips(split), self.config.training.eval_windows).mean
        if not tracks:
            return self.model.responsibilities(codes.flatten(0, 1), codes.shape[1]).numpy()
        first, number = self.store.tracks(self.store.rows(split))
        of_track = [codes[torch.from_numpy(number == t)].flatten(0, 1) for t in range(len(first))]
        return torch.cat([self.model.responsibilities(z, len(z)) for z in of_track]).numpy()

    # --- decoding ---

    @torch.inference_mode()
    def decode(self, z: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        """(B, L) codes and class indices (B,) → (B, mel, frame) in [0, 1]."""
        if self.conditional and y is None:
            raise InputError(f"{self.name} decodes with a class: pass y, indices into {self.config.model.classes}")
        codes, y = torch.as_tensor(np.asarray(z), dtype=torch.float32), None if y is None else torch.as_tensor(y)
        with self.lock:
            return self.model.decode_in_blocks(codes, y).squeeze(1).numpy()

    def reconstruct(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Middle windows of a split and their reconstructions from the posterior mean, both (clip, mel, frame)."""
        clips = self.clips(split)
        q = self.posteriors(clips, 1)
        y = None if q.class_logits is None else q.class_logits[:, 0].argmax(1).numpy()
        return self.middle_windows(clips.rows), self.decode(q.mean[:, 0].numpy(), y)

    def sample(
        self, n: int, y: Iterable[int] | None = None, temperature: float = 1.0, seed: int = 0, shared: bool = False
    ) -> np.ndarray:
        """(n, mel, frame) drawn from the prior, of the classes or components `y` if given; see `VAE.sample`."""
        classes = None if y is None else torch.as_tensor(list(y))
        with self.lock:
            return self.model.sample(n, classes, temperature, seed, shared).squeeze(1).numpy()

    def decibels(self, x: np.ndarray) -> np.ndarray:
        """(…, mel, frame) in [0, 1] → dB."""
        return self.scaler.inverse(x)


def track_means(values: np.ndarray, number: np.ndarray) -> np.ndarray:
    """(clip, …) → (track, …) means; `number` (clip,) says which track each clip belongs to."""
    count = np.bincount(number)
    total = np.zeros((len(count), *values.shape[1:]), np.float64)
    np.add.at(total, number, values)
    return (total / count.reshape(-1, *[1] * (total.ndim - 1))).astype(values.dtype)


def plan(
    store: Store, model: str, *, condition: str = "", prior: str = "standard", detilt: bool = False,
    model_settings: dict | None = None, settings: str = "", **training: object,
) -> RunConfig:  # fmt: skip
    """Configuration of a run on a store; sizes, classes and the model's own β come from the store and the model.

    Args:
        condition: Label of a conditional model.
        model_settings, training: Settings of `ModelConfig` and `TrainConfig`; InputError for one that is unknown.
        settings: Further ones of both, instead of these (`config.read_settings`).
    """
    one_of("model", model, MODELS)
    if condition and model != "cvae":
        raise InputError(f"model {model!r} takes no condition; use --model cvae for --condition {condition}")
    if model == "cvae":
        one_of("condition", condition, ("language", "genre"))
    classes = tuple(store.classes(condition)) if condition else ()
    of_model, of_training = read_settings(settings)
    sizes = {"name": model, "input_shape": store.front_end.shape, "condition": condition, "classes": classes}
    sizes |= {"prior": prior} | (model_settings or {}) | of_model
    training = {"beta": DEFAULT_BETA.get(model, 1.0)} | training | of_training
    return RunConfig(
        corpus=store.path.stem,
        fingerprint=store.attrs["fingerprint"],
        front_end=store.front_end,
        model=ModelConfig.from_dict(sizes),
        training=TrainConfig.from_dict(training),
        detilt=detilt,
    )


def fit(config: RunConfig, store: Store, show: bool = True, devices: int = 1) -> Run:
    """Train (or continue, or find finished) and open the run; arguments and errors as `training.train`."""
    folder = train(config, store, show, devices)
    if "VAELIB_TRAINED" in os.environ:  # a batch asks which runs its notebook trained (vaelib.batch)
        with open(os.environ["VAELIB_TRAINED"], "a") as names:
            names.write(f"{folder.relative_to(outputs_dir())}\n")
    return open_run(folder)


def open_run(folder: Path | str) -> Run:
    """Open a finished run on the CPU.

    Raises:
        InputError: no such run, unfinished, damaged, or its store is gone or another one.
    """
    folder = Path(folder)
    if not (folder / "done.json").is_file():
        unfinished = (folder / "config.json").is_file()
        hint = "is unfinished; run its notebook or `vaelib train` again, it continues" if unfinished else "is no run"
        raise InputError(f"{folder} {hint}")
    try:
        about, summary = (dict(json.loads((folder / n).read_text())) for n in ("config.json", "done.json"))
        config, scaler = RunConfig.from_dict(about["config"]), Scaler.from_dict(about["scaler"])
        path = str(about["store"])
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as e:
        raise InputError(f"{folder}/config.json cannot be read ({e}); train the run again") from e
    store = open_store(path)
    if (store.attrs["fingerprint"], store.front_end) != (config.fingerprint, config.front_end):
        raise InputError(f"{store.path.name} has changed since {folder.name} was trained; train it again")
    return Run(folder, config, scaler, store, read_model(config.model, folder / "best.safetensors"), summary)


def find_runs(root: Path | str | None = None, **wanted: object) -> list[Path]:
    """Folders of finished runs under `root`, newest last.

    Args:
        wanted: `model`, `epochs` (VaDE: pretraining epochs), or any setting of a run by its name; None matches all.
    """
    found = []
    for done in Path(root or outputs_dir()).rglob("done.json"):
        try:
            config = RunConfig.from_dict(json.loads((done.parent / "config.json").read_text())["config"])
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            continue  # not one of ours, or damaged: left out
        has = vars(config.training) | vars(config.model) | vars(config)
        has |= {"model": config.model.name, "epochs": config.training.first_phase}
        if all(v is None or has[k] == v for k, v in wanted.items()):
            found.append((done.stat().st_mtime, done.parent))
    return [folder for _, folder in sorted(found)]


def latest_run(root: Path | str | None = None, **wanted: object) -> Run:
    """The newest finished run that matches; of a desk (notebook 04) only where it is named, or no other is there."""
    folders = find_runs(root, **wanted)
    if not folders:
        asked = ", ".join(f"{k} {v}" for k, v in wanted.items() if v is not None)
        raise InputError(
            f"no finished run with {asked} in {root or outputs_dir()}: train it first, "
            f"e.g. `vaelib train --model {wanted.get('model') or 'conv_vae'}`"
        )
    music = [f for f in folders if wanted.get("corpus") or not f.parent.name.startswith("desk-")]
    return open_run((music or folders)[-1])


def newest_of_each(root: Path | str | None = None, among: Sequence[Path] | None = None, **wanted: object) -> list[Run]:
    """The newest run of every variant and seed, in the order of the registry; unreadable ones with a warning.

    Args:
        among: Only these folders (of a plan); of a variant and seed then the one that was trained longest.
        wanted: As for `find_runs`.
    """
    newest, allowed = {}, None if among is None else {Path(f).resolve() for f in among}
    for folder in find_runs(root, **wanted):
        if allowed is not None and folder.resolve() not in allowed:
            continue
        try:
            run = open_run(folder)
        except InputError as e:  # one damaged run must not hide the others
            warnings.warn(f"left out: {e}", stacklevel=2)
            continue
        key = run.name, run.config.training.seed
        longest = newest[key].config.training.total_epochs if among is not None and key in newest else 0
        if run.config.training.total_epochs >= longest:
            newest[key] = run
    order = list(MODELS)
    return sorted(newest.values(), key=lambda r: (order.index(r.config.model.name), r.name, r.config.training.seed))


def describe(store: Store) -> str:
    """One line that a notebook begins with: corpus, clips of each split, window, device."""
    fe, clips = store.front_end, " / ".join(f"{len(store.rows(split)):,}" for split in SPLITS)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, threads: {torch.get_num_threads()}"
    return (
        f"{store.attrs['corpus']}: {clips} clips ({' / '.join(SPLITS)}), windows of {fe.n_mels} bands × {fe.frames} "
        f"frames ({fe.window_seconds:.1f} s), {device}"
    )


def labels_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its variant, with the seed where several runs share the variant."""
    names = [r.name for r in runs]
    return [r.name if names.count(r.name) == 1 else f"{r.name}, seed {r.config.training.seed}" for r in runs]
