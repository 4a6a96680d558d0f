"""A trained run, opened again: its model, its clips, and what the model makes of them."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .audio import Scaler
from .checkpoints import read_model
from .config import DEFAULT_BETA, InputError, ModelConfig, RunConfig, TrainConfig, one_of, outputs_dir, read_json
from .corpus import SPLITS
from .devices import launch
from .losses import gaussian_kl
from .models import MODELS, VAE, ConditionalVAE, Posterior, VaDE
from .progress import Progress
from .store import Store, choose_windows, open_store, store_path
from .training import TrainingDivergedError, check, train, window_codes, write_config
from .windows import Clips

LABEL_MODES = ("given", "inferred", "marginal")


@dataclass(frozen=True)
class Embedding:
    """Clips in a model's latent space.

    Attributes:
        means: (clip, L) posterior means averaged over evenly spaced windows.
        logvars: (clip, L) log of the variances averaged over the same windows.
        kl: (L,) mean KL of each dimension to N(0, 1), nats.
        rows: (clip,) row numbers in the store.
        labels: How a conditional model got its class: `given`, `inferred` or `marginal`; "" for the others.
    """

    means: np.ndarray
    logvars: np.ndarray
    kl: np.ndarray
    rows: np.ndarray
    labels: str = ""


@dataclass
class Run:
    """A finished training run.

    `decode` and `embed` may be called from several threads (a slider's callbacks come on their own).
    """

    folder: Path
    config: RunConfig
    scaler: Scaler
    store: Store
    model: VAE
    summary: dict
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        """Model, condition and prior: the row of the comparison table."""
        return self.config.variant

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        return pd.read_csv(self.folder / "history.csv")

    @property
    def conditional(self) -> bool:
        return isinstance(self.model, ConditionalVAE)

    def clips(self, split: str) -> Clips:
        """The clips of a split, scaled, kept in memory after the first call."""
        cache = self.__dict__.setdefault("_clips", {})
        if split not in cache:
            cache[split] = Clips.read(self.store, self.scaler, self.store.rows(split))
        return cache[split]

    def rows(self, split: str, tracks: bool = False) -> np.ndarray:
        """(clip,) row numbers of a split; with `tracks`, (track,) those of each track's first clip."""
        rows = self.store.rows(split)
        return self.store.tracks(rows)[0] if tracks else rows

    def labels(self, split: str, label: str, tracks: bool = False) -> np.ndarray:
        """(clip,) label strings of a split; with `tracks`, (track,)."""
        return self.store.table.loc[self.rows(split, tracks), label].to_numpy().astype(str)

    def of_tracks(self, split: str, values: np.ndarray) -> np.ndarray:
        """(clip, …) of a split → (track, …): the mean over the clips of each track."""
        return track_means(values, self.store.tracks(self.store.rows(split))[1])

    def embed_tracks(self, split: str, labels: str = "inferred") -> Embedding:
        """`embed`, with one code per track: the mean over the segments that a song was cut into."""
        whole = self.embed(split, labels)
        variances = self.of_tracks(split, np.exp(whole.logvars))
        rows = self.rows(split, tracks=True)
        return Embedding(self.of_tracks(split, whole.means), np.log(variances), whole.kl, rows, whole.labels)

    def embed(self, split: str | None, labels: str = "inferred", batch_size: int = 64) -> Embedding:
        """Embed the clips of a split; kept in memory after the first call.

        Args:
            split: `train`, `validation`, `test`, or None for every clip of the store.
            labels: For a conditional model: `given` (the true class: leakage, call it supervised), `inferred`
                (the class head's choice) or `marginal` (its probabilities). Other models ignore it.
        """
        one_of("label mode", labels, LABEL_MODES)
        if split is None:
            return self._embed_all(labels, batch_size)
        mode = labels if self.conditional else ""
        cache = self.__dict__.setdefault("_embeddings", {})
        if (split, mode) not in cache:
            cache[split, mode] = self._embed(split, mode, batch_size)
        return cache[split, mode]

    def _embed_all(self, labels: str, batch_size: int) -> Embedding:
        parts = [self.embed(s, labels, batch_size) for s in SPLITS if len(self.store.rows(s))]
        rows = np.concatenate([p.rows for p in parts])
        order = np.argsort(rows)
        means, logvars = (np.concatenate([getattr(p, a) for p in parts])[order] for a in ("means", "logvars"))
        kl = np.average([p.kl for p in parts], axis=0, weights=[len(p.rows) for p in parts])
        return Embedding(means, logvars, kl, rows[order], parts[0].labels)

    @torch.inference_mode()
    def _embed(self, split: str, mode: str, batch_size: int) -> Embedding:
        clips = self.clips(split)
        k = clips.distinct(self.config.training.eval_windows)
        features = self._features(split, batch_size)
        means, variances, kl = [], [], []
        for i in range(0, len(clips), batch_size):
            h = features[i : i + batch_size].flatten(0, 1)
            with self.lock:
                q = self._posterior(h, mode, clips.rows[i : i + batch_size], k)
            kl.append(gaussian_kl(q).unflatten(0, (-1, k)).mean(1))
            means.append(q.mean.unflatten(0, (-1, k)).mean(1))
            variances.append(q.logvar.exp().unflatten(0, (-1, k)).mean(1))
        mean, variance, kl = (torch.cat(part) for part in (means, variances, kl))
        return Embedding(mean.numpy(), variance.log().numpy(), kl.mean(0).numpy(), clips.rows, mode)

    @torch.inference_mode()
    def encode_middle(self, split: str, y: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """(clip, L) posterior means of the middle windows of a split, encoded with class indices `y` (clip,)."""
        clips, means = self.clips(split), []
        for i in range(0, len(clips), batch_size):
            x = clips.even_windows(torch.arange(i, min(i + batch_size, len(clips))), 1).squeeze(1)
            with self.lock:
                means.append(self.model.encode(x, torch.from_numpy(y[i : i + batch_size])).mean)
        return torch.cat(means).numpy()

    def _features(self, split: str, batch_size: int) -> Tensor:
        """(clip, window, …): what the encoder makes of the evenly spaced windows before any label comes in.

        Kept for a conditional model, whose label modes all start from it.
        """
        cache = self.__dict__.setdefault("_encoded", {})
        if split in cache:
            return cache[split]
        clips, parts = self.clips(split), []
        k = clips.distinct(self.config.training.eval_windows)
        for i in range(0, len(clips), batch_size):
            x = clips.even_windows(torch.arange(i, min(i + batch_size, len(clips))), k)
            with self.lock:
                h = (
                    self.model.embed_features(x.flatten(0, 1))
                    if self.conditional
                    else self.model.encode(x.flatten(0, 1))
                )
            parts.append((h if self.conditional else torch.stack(h[:2], 1)).unflatten(0, (-1, k)))
        found = torch.cat(parts)
        if self.conditional:
            cache[split] = found
        return found

    def _posterior(self, h: Tensor, mode: str, rows: np.ndarray, k: int) -> Posterior:
        """q(z|x) of windows `h`, those of a clip after each other."""
        if not mode:
            return Posterior(h[:, 0], h[:, 1])
        if mode == "given":
            y = torch.from_numpy(self.store.codes(self.config.model.condition, rows)).repeat_interleave(k)
        else:
            y = torch.softmax(self.model.class_head(h).float(), 1) if mode == "marginal" else None
        return self.model.encode_features(h, y)

    @torch.inference_mode()
    def reconstruct(self, split: str, most: int | None = None, batch_size: int = 64) -> tuple[np.ndarray, np.ndarray]:
        """Middle windows of a split and their reconstructions from the posterior mean; labels are inferred.

        Returns:
            Two arrays (clip, mel, frame) in [0, 1].
        """
        clips = self.clips(split)
        n = min(len(clips), most or len(clips))
        originals, copies = [], []
        for i in range(0, n, batch_size):
            x = clips.even_windows(torch.arange(i, min(i + batch_size, n)), 1).squeeze(1)
            with self.lock:
                copies.append(self.model(x, sample=False).recon.squeeze(1))
            originals.append(x.squeeze(1))
        return torch.cat(originals).numpy(), torch.cat(copies).numpy()

    @torch.inference_mode()
    def decode(self, z: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        """(B, L) codes and class indices (B,) → (B, mel, frame) in [0, 1]. Thread-safe."""
        codes = torch.as_tensor(np.asarray(z), dtype=torch.float32)
        if self.conditional and y is None:
            raise InputError(f"{self.name} decodes with a class: pass y, indices into {self.config.model.classes}")
        with self.lock:
            out = self.model.decode_in_blocks(codes, None if y is None else torch.as_tensor(np.asarray(y)))
        return out.squeeze(1).numpy()

    def middle_windows(self, rows: np.ndarray, block: int = 256) -> np.ndarray:
        """(B, mel, frame) in [0, 1]: the middle windows of the clips `rows` (B,), as the model is given them."""
        parts = [Clips.read(self.store, self.scaler, rows[i : i + block]) for i in range(0, len(rows), block)]
        return np.concatenate([c.even_windows(torch.arange(len(c)), 1)[:, 0, 0].numpy() for c in parts])

    @torch.inference_mode()
    def encode_clip(self, row: int) -> tuple[np.ndarray, np.ndarray, int]:
        """The middle window of one clip.

        Returns:
            Its posterior mean (L,), the window (mel, frame) in [0, 1], and its class index (0 if unconditional).
        """
        clips = Clips.read(self.store, self.scaler, np.array([row]))
        x = clips.even_windows(torch.tensor([0]), 1).squeeze(1)
        with self.lock:
            q = self.model.encode(x)
        label = int(q.class_logits.argmax(1)) if q.class_logits is not None else 0
        return q.mean[0].numpy(), x[0, 0].numpy(), label

    def sample(
        self, n: int, y: Iterable[int] | None = None, temperature: float = 1.0, seed: int = 0, shared: bool = False
    ) -> np.ndarray:
        """(n, mel, frame) drawn from the prior, of the classes or components `y` if given. Thread-safe.

        With `shared`, one draw for all of them: they differ in nothing but `y`.
        """
        classes = None if y is None else torch.as_tensor(list(y))
        with self.lock:
            return self.model.sample(n, classes, temperature, seed, shared).squeeze(1).numpy()

    def responsibilities(self, split: str, tracks: bool = False) -> np.ndarray:
        """(clip, K) p(c|clip) of a VaDE run, arguments as `log_responsibilities`."""
        return np.exp(self.log_responsibilities(split, tracks))

    @torch.inference_mode()
    def log_responsibilities(self, split: str, tracks: bool = False) -> np.ndarray:
        """(clip, K) log p(c|clip) of a VaDE run: the windows of a clip share one cluster variable.

        Differences between components stay exact where the probabilities themselves are rounded to 0 and 1.
        With `tracks`, (track, K): all windows of all segments of a track share it.
        """
        if not isinstance(self.model, VaDE):
            raise InputError(f"{self.name} has no mixture: only a vade run has soft assignments")
        with self.lock:
            codes = window_codes(self.model, self.clips(split), self.config.training.eval_windows)
            if not tracks:
                return self.model.responsibilities(codes.flatten(0, 1), codes.shape[1]).numpy()
            first, number = self.store.tracks(self.store.rows(split))
            of_track = [codes[torch.from_numpy(number == t)].flatten(0, 1) for t in range(len(first))]
            return torch.cat([self.model.responsibilities(z, len(z)) for z in of_track]).numpy()

    def decibels(self, x: np.ndarray) -> np.ndarray:
        """(…, mel, frame) in [0, 1] → dB."""
        return self.scaler.inverse(x)


def track_means(values: np.ndarray, number: np.ndarray) -> np.ndarray:
    """(clip, …) → (track, …) means; `number` (clip,) says which track each clip belongs to."""
    count = np.bincount(number)
    if (count == 1).all() and (np.diff(number) == 1).all():
        return np.asarray(values)
    total = np.zeros((len(count), *np.shape(values)[1:]), np.float64)
    np.add.at(total, number, values)
    return (total / count.reshape(-1, *[1] * (total.ndim - 1))).astype(np.asarray(values).dtype)


def plan(
    store: Store, model: str, *, condition: str = "", prior: str = "standard", detilt: bool = False,
    model_settings: dict | None = None, **training: object,
) -> RunConfig:  # fmt: skip
    """Configuration of a run on a store; sizes, classes and the model's own β come from the store and the model.

    Args:
        condition: Label of a conditional model.
        model_settings: Further settings of `ModelConfig`.
        training: Settings of `TrainConfig`.

    Raises:
        InputError: unknown model, label or setting.
    """
    one_of("model", model, MODELS)
    if condition and model != "cvae":
        raise InputError(f"model {model!r} takes no condition; use --model cvae for --condition {condition}")
    if model == "cvae":
        one_of("condition", condition, ("language", "genre"))
    settings = {
        "name": model,
        "input_shape": store.front_end.shape,
        "condition": condition,
        "classes": tuple(store.classes(condition)) if condition else (),
        "prior": prior,
    }
    training.setdefault("beta", DEFAULT_BETA.get(model, 1.0))
    corpus, windows = store.attrs["corpus"], store.attrs.get("windows", "")
    named = choose_windows(bool(store.attrs.get("rendered")), windows)[1]  # two cuts of one corpus are two
    return RunConfig(
        corpus=store_path(corpus, store.front_end.name, named).stem,
        fingerprint=store.attrs["fingerprint"],
        front_end=store.front_end,
        model=ModelConfig.from_dict(settings | (model_settings or {})),
        training=TrainConfig.from_dict(training),
        detilt=detilt,
    )


def fit(config: RunConfig, store: Store, show: bool = True, devices: int = 1) -> Run:
    """Train (or continue, or find finished) and open the run.

    Args:
        show: Print the live line.
        devices: GPUs (where there is none: CPU processes) that share every batch; no part of the run's identity.

    Raises:
        InputError: store and configuration do not belong together, the model cannot be built, or a batch cannot be
            shared by so many devices.
        TrainingDivergedError: the loss became NaN or infinite.
        TrainingStoppedError: one of several processes died.
    """
    if devices != 1 and not (config.folder / "done.json").is_file():
        check(config, store, devices)
        _train_together(config, store, show, devices)
    folder = train(config, store, show=show)
    if "VAELIB_TRAINED" in os.environ:  # `vaelib.batch` asks which runs a notebook trained
        with open(os.environ["VAELIB_TRAINED"], "a") as names:
            names.write(f"{folder.relative_to(outputs_dir())}\n")
    return load_run(folder)


def _train_together(config: RunConfig, store: Store, show: bool, devices: int) -> None:
    """`train` in as many processes as devices, with their line of progress here."""
    progress, last = Progress(f"training {config.variant} on {devices} devices"), ""

    def say(line: str) -> None:
        nonlocal last
        last = line
        if show:
            progress.show(line)

    arguments, log = [str(write_config(config, store)), "--lines"], config.folder / "failed.log"
    launch("vaelib.training", arguments, devices, say, (InputError, TrainingDivergedError), log)
    if show:
        progress.close(last)


def load_run(folder: Path | str) -> Run:
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
        about, summary = read_json(folder / "config.json"), read_json(folder / "done.json")
        config, scaler = RunConfig.from_dict(about["config"]), Scaler.from_dict(about["scaler"])
        path = str(about["store"])
    except (ValueError, KeyError) as e:
        raise InputError(f"{folder}/config.json cannot be read ({e}); train the run again") from e
    store = open_store(path, config.front_end)
    if store.attrs["fingerprint"] != config.fingerprint:
        raise InputError(f"{store.path.name} has changed since {folder.name} was trained; train it again")
    model = read_model(config.model, folder / "best.safetensors")
    return Run(folder, config, scaler, store, model, summary)


def find_runs(root: Path | str | None = None, **wanted: object) -> list[Path]:
    """Folders of finished runs under `root`, newest last.

    Args:
        wanted: `model`, `condition`, `prior`, `seed`, `corpus`, `fingerprint`, `detilt`, `beta`, `target`, `epochs`
            (VaDE: pretraining epochs), `sigma` (0: learned), `start_components`; None matches all.
    """
    found = []
    for done in Path(root or outputs_dir()).rglob("done.json"):
        try:
            config = RunConfig.from_dict(read_json(done.parent / "config.json")["config"])
        except (ValueError, KeyError, OSError):
            continue  # not one of ours, or damaged: the ledger of runs leaves it out
        has = {
            "model": config.model.name,
            "condition": config.model.condition,
            "prior": config.model.prior,
            "seed": config.training.seed,
            "corpus": config.corpus,
            "fingerprint": config.fingerprint,
            "detilt": config.detilt,
            "beta": config.training.beta,
            "target": config.training.target,
            "epochs": config.training.first_phase,
            "sigma": config.training.sigma,
            "start_components": config.training.start_components,
        }
        if all(v is None or has[k] == v for k, v in wanted.items()):
            found.append((done.stat().st_mtime, done.parent))
    return [folder for _, folder in sorted(found)]


def latest_run(root: Path | str | None = None, **wanted: object) -> Run:
    """The newest finished run that matches; one of a desk only where the corpus is named, or no other is there.

    Raises:
        InputError: none matches.
    """
    folders = find_runs(root, **wanted)
    if not folders:
        asked = ", ".join(f"{k} {v}" for k, v in wanted.items() if v is not None)
        raise InputError(
            f"no finished run with {asked} in {root or outputs_dir()}: train it first, "
            f"e.g. `vaelib train --model {wanted.get('model') or 'conv_vae'}`"
        )
    music = [f for f in folders if wanted.get("corpus") or not f.parent.name.startswith("desk-")]
    return load_run((music or folders)[-1])


def newest_of_each(root: Path | str | None = None, among: Sequence[Path] | None = None, **wanted: object) -> list[Run]:
    """The newest run of every variant and seed, in the order of the registry; unreadable ones with a warning.

    Args:
        among: Only these folders, of a plan, say; of several runs of a variant and seed then the one that was trained
            longest. None for all.
        wanted: As for `find_runs`.
    """
    newest, allowed = {}, None if among is None else {Path(f).resolve() for f in among}
    for folder in find_runs(root, **wanted):
        if allowed is not None and folder.resolve() not in allowed:
            continue
        try:
            run = load_run(folder)
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
    return [
        n if names.count(n) == 1 else f"{n}, seed {r.config.training.seed}" for n, r in zip(names, runs, strict=True)
    ]
