"""Runs: planned, fitted, found and opened again; what a run's model makes of its clips."""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from .audio import Scaler
from .collection import SPLITS
from .config import DEFAULT_BETA, InputError, RunConfig, one_of, outputs_dir, read_settings
from .losses import gaussian_kl
from .models import MODELS, VAE, Posterior, VaDE, build
from .store import Store, open_store
from .training import read_checkpoint, train
from .windows import Clips, encode_windows

DECODED, READ = 64, 256  # codes that are decoded, clips that are read at a time
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, KeyError)  # of files that no training left like this


class Embedding(NamedTuple):
    """Clips in a model's latent space."""

    means: np.ndarray  # (clip, L) posterior means averaged over evenly spaced windows
    logvars: np.ndarray  # (clip, L) log of the variances averaged over the same windows
    kl: np.ndarray  # (L,) mean KL of each dimension to N(0, 1), nats
    rows: np.ndarray  # (clip,) row numbers in the store


@dataclass(repr=False, eq=False)
class Run:
    """A finished training run; `decode`, `embed` and `sample` may be called from several threads (sliders do)."""

    folder: Path
    config: RunConfig
    scaler: Scaler
    store: Store
    model: VAE  # with the best epoch's weights, in evaluation mode, on the CPU
    summary: dict  # what `done.json` says

    def __post_init__(self) -> None:
        self.clips, self.embed = cache(self.clips), cache(self.embed)  # kept in memory after the first call

    @cached_property
    def _fast(self) -> VAE:
        """What encodes and decodes: the model, or a copy of it on the GPU if there is one."""
        return copy.deepcopy(self.model).to("cuda") if torch.cuda.is_available() else self.model

    @property
    def name(self) -> str:
        """Its row of the comparison table (`RunConfig.variant`)."""
        return self.config.variant

    @cached_property
    def history(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "history.csv")  # one row per epoch

    @property
    def conditional(self) -> bool:
        return bool(self.config.model.condition)

    def rows(self, split: str | None, tracks: bool = False) -> np.ndarray:
        """(clip,) row numbers of a split, or of all clips; with `tracks`, those of each track's first clip."""
        return self.store.tracks(self.store.rows(split))[0] if tracks else self.store.rows(split)

    def labels(self, split: str | None, label: str, tracks: bool = False) -> np.ndarray:
        """(clip,) label strings of a split; with `tracks`, (track,)."""
        return self.store.table.loc[self.rows(split, tracks), label].to_numpy().astype(str)

    def of_tracks(self, split: str | None, values: np.ndarray) -> np.ndarray:
        """(clip, …) of a split → (track, …): the mean over the clips of each track."""
        number = self.store.tracks(self.store.rows(split))[1]  # (clip,) which track it belongs to
        means = [values[number == track].mean(0, dtype=np.float64) for track in range(number.max() + 1)]
        return np.array(means, values.dtype)

    def clips(self, split: str | None) -> Clips:
        """Scaled spectrograms of a split."""
        return Clips.read(self.store, self.scaler, self.store.rows(split))

    def posteriors(self, clips: Clips, windows: int, labels: str = "inferred") -> Posterior:
        """Posteriors (clip, window, L) of evenly spaced windows (1: the middle one); every encoding goes through here.

        `labels` of a conditional model: `given` (the true class: leakage, call it supervised), `inferred` (the class
        head's choice) or `marginal` (its probabilities).
        """
        one_of("label mode", labels, ("given", "inferred", "marginal"))
        given = self.conditional and labels == "given"
        y = torch.from_numpy(self.store.codes(self.config.model.condition, clips.rows)) if given else None
        clips = replace(clips, device=self._fast.log_sigma.device)
        q = encode_windows(self._fast, clips, windows, y, marginal=self.conditional and labels == "marginal")
        return Posterior(*(part if part is None else part.cpu() for part in q))

    def embed(self, split: str | None, labels: str = "inferred") -> Embedding:
        """The clips of a split, or all; `labels`: see `posteriors`."""
        q = self.posteriors(self.clips(split), self.config.training.eval_windows, labels)
        kl = gaussian_kl(q).mean((0, 1)).numpy()
        return Embedding(q.mean.mean(1).numpy(), q.logvar.exp().mean(1).log().numpy(), kl, self.rows(split))

    def embed_tracks(self, split: str | None, labels: str = "inferred") -> Embedding:
        """`embed`, with one code per track: the mean over the segments that a song was cut into."""
        means, logvars, kl, _ = self.embed(split, labels)
        variances = self.of_tracks(split, np.exp(logvars))
        return Embedding(self.of_tracks(split, means), np.log(variances), kl, self.rows(split, tracks=True))

    def encode_clip(self, row: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Of a clip's middle window: posterior mean (L,), the window (mel, frame), class index (0 if unconditional)."""
        q = self.posteriors(Clips.read(self.store, self.scaler, np.array([row])), 1)
        label = 0 if q.class_logits is None else int(q.class_logits.argmax())
        return q.mean[0, 0].numpy(), self.middle_windows(np.array([row]))[0], label

    def middle_windows(self, rows: np.ndarray) -> np.ndarray:
        """(B, mel, frame) in [0, 1]: the middle windows of the clips `rows` (B,), as the model is given them."""
        parts = [Clips.read(self.store, self.scaler, rows[i : i + READ]) for i in range(0, len(rows), READ)]
        return np.concatenate([c.even_windows(torch.arange(len(c)), 1)[:, 0, 0].numpy() for c in parts])

    @torch.inference_mode()
    def log_responsibilities(self, split: str | None, tracks: bool = False) -> np.ndarray:
        """(clip, K) log p(c|clip) of a VaDE run: all windows of a clip, with `tracks` of a track, share a cluster."""
        if not isinstance(self.model, VaDE):
            raise InputError(f"{self.name} has no mixture: only a vade run has soft assignments")
        codes = self.posteriors(self.clips(split), self.config.training.eval_windows).mean
        number = self.store.tracks(self.store.rows(split))[1] if tracks else np.arange(len(codes))
        shared = [codes[torch.from_numpy(number == i)].flatten(0, 1) for i in range(number.max() + 1)]
        return torch.cat([self.model.responsibilities(z, len(z)) for z in shared]).numpy()

    @torch.inference_mode()
    def decode(self, z: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        """(B, L) codes and class indices (B,) → (B, mel, frame) in [0, 1], in blocks: activations take gigabytes."""
        if self.conditional and y is None:
            raise InputError(f"{self.name} decodes with a class: pass y, indices into {self.config.model.classes}")
        device = self._fast.log_sigma.device
        blocks = torch.as_tensor(z, dtype=torch.float32, device=device).split(DECODED)
        classes = repeat(None) if y is None else torch.as_tensor(y, device=device).split(DECODED)
        return torch.cat([self._fast.decode(*each)[:, 0].cpu() for each in zip(blocks, classes, strict=False)]).numpy()

    def reconstruct(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Middle windows of a split and their reconstructions from the posterior mean, both (clip, mel, frame)."""
        clips = self.clips(split)
        q = self.posteriors(clips, 1)
        y = None if q.class_logits is None else q.class_logits[:, 0].argmax(1)
        return self.middle_windows(clips.rows), self.decode(q.mean[:, 0], y)

    @torch.inference_mode()
    def sample(self, n: int, y: Iterable[int] | None = None, *how: float, **named: float) -> np.ndarray:
        """(n, mel, frame) from the prior, of the classes or components `y` if given; `how`, `named`: see `VAE.draw`."""
        return self.decode(*self.model.draw(n, None if y is None else torch.tensor(list(y)), *how, **named))


def plan(store: Store, model: str, *, detilt: bool = False, settings: str = "", **given: object) -> RunConfig:
    """Configuration of a run on a store; sizes, classes and the model's own β come from the store and the model.

    `given` and `settings` (`config.read_settings`, it comes last) are settings of `ModelConfig` and `TrainConfig`;
    InputError for one that is unknown, or does not suit the model.
    """
    one_of("model", model, MODELS)
    condition = given.get("condition", "")
    if condition and model != "cvae":
        raise InputError(f"model {model!r} takes no condition; use --model cvae for --condition {condition}")
    if model == "cvae":
        given["classes"] = store.classes(one_of("condition", condition, ("language", "genre")))
    own = {"name": model, "input_shape": store.front_end.shape, "beta": DEFAULT_BETA.get(model, 1.0)}
    about = {"corpus": store.path.stem, "fingerprint": store.attrs["fingerprint"], "front_end": store.front_end}
    of_model, of_training = read_settings(settings, **own | given)
    return RunConfig.from_dict(about | {"model": of_model, "training": of_training, "detilt": detilt})


def fit(config: RunConfig, store: Store, show: bool = True, devices: int = 1) -> Run:
    """Train (or continue, or find finished) and open the run; arguments and errors as `training.train`."""
    folder = train(config, store, show, devices)
    if "VAELIB_TRAINED" in os.environ:  # a batch asks which runs its notebook trained (vaelib.batch)
        with open(os.environ["VAELIB_TRAINED"], "a") as names:
            names.write(f"{folder.relative_to(outputs_dir())}\n")
    return open_run(folder)


def open_run(folder: Path | str) -> Run:
    """Open a finished run on the CPU; InputError: unfinished, damaged, or its store is gone or another one."""
    folder = Path(folder)
    try:
        about, summary = (dict(json.loads((folder / n).read_text())) for n in ("config.json", "done.json"))
        config, scaler = RunConfig.from_dict(about["config"]), Scaler.from_dict(about["scaler"])
        path = str(about["store"])
    except UNREADABLE as e:
        raise InputError(f"{folder} holds no finished run ({e}): train again, if it is damaged delete it first") from e
    store = open_store(path)
    if (store.attrs["fingerprint"], store.front_end) != (config.fingerprint, config.front_end):
        raise InputError(f"{store.path.name} has changed since {folder.name} was trained; train it again")
    with torch.device("meta"):  # no weights are drawn that are then replaced
        model = build(config.model).eval()
    read_checkpoint(folder / "best.safetensors", model, assign=True)
    return Run(folder, config, scaler, store, model, summary)


def find_runs(root: Path | str | None = None, **wanted: object) -> list[Path]:
    """Folders of finished runs under `root`, newest last; what cannot be read is left out.

    `wanted`: `model`, `epochs` (VaDE: pretraining epochs), or any setting of a run by its name; None matches all.
    """
    found = []
    for done in Path(root or outputs_dir()).rglob("done.json"):
        try:
            config = RunConfig.from_dict(json.loads(done.with_name("config.json").read_text())["config"])
        except UNREADABLE:
            continue
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
        raise InputError(f"no finished run with {asked} in {root or outputs_dir()}: train it first (`vaelib train`)")
    music = [f for f in folders if wanted.get("corpus") or not f.parent.name.startswith("desk-")]
    return open_run((music or folders)[-1])


def newest_of_each(root: Path | str | None = None, among: Sequence[Path] | None = None, **wanted: object) -> list[Run]:
    """The newest run of every variant and seed, in the order of the registry; unreadable ones with a warning.

    `among`: only these folders (of a plan); of a variant and seed then the one that was trained longest.
    """
    found = []
    for folder in find_runs(root, **wanted):
        try:
            if among is None or folder in among:
                found.append(open_run(folder))
        except InputError as e:  # one damaged run must not hide the others
            warnings.warn(f"left out: {e}", stacklevel=2)
    if among is not None:
        found.sort(key=lambda r: r.config.training.total_epochs)
    newest = {(list(MODELS).index(r.config.model.name), r.name, r.config.training.seed): r for r in found}
    return [newest[key] for key in sorted(newest)]


def describe(store: Store) -> str:
    """One line that a notebook begins with: corpus, clips of each split, window, device."""
    fe, clips = store.front_end, ", ".join(f"{len(store.rows(split)):,} {split}" for split in SPLITS)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    window = f"{fe.n_mels} bands × {fe.frames} frames ({fe.window_seconds:.1f} s)"
    return f"{store.attrs['corpus']}: clips: {clips}; windows of {window}; {device}"
