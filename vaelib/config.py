"""Settings as frozen dataclasses: front end, model, training and run, with validation and a JSON round trip."""

from __future__ import annotations

import dataclasses
import difflib
import errno
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
DEMO_TABLES = ROOT / "data" / "demo"


class InputError(ValueError):
    """Bad input from a person: the message is one sentence saying what is wrong, where, and what to do."""


# What the operating system says of a full disk, and of a folder that may not be written to
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


class UnwritableError(InputError, OSError):
    """A full disk, or a folder that may not be written to; what was written before is as it was."""


def data_dir() -> Path:
    """Folder of corpora and mel stores (`$VAELIB_DATA`, else `data/` of the repository)."""
    return Path(os.environ.get("VAELIB_DATA", ROOT / "data"))


def outputs_dir() -> Path:
    """Folder of training runs and comparisons (`$VAELIB_OUTPUTS`, else `outputs/` of the repository)."""
    return Path(os.environ.get("VAELIB_OUTPUTS", ROOT / "outputs"))


def papermill_dir() -> Path:
    """Folder of executed notebooks (`$VAELIB_PAPERMILL`, else `papermill_runs/` of the repository)."""
    return Path(os.environ.get("VAELIB_PAPERMILL", ROOT / "papermill_runs"))


def notebooks_dir() -> Path:
    """Folder of the numbered notebooks (`$VAELIB_NOTEBOOKS`, else `notebooks/` of the repository)."""
    return Path(os.environ.get("VAELIB_NOTEBOOKS", ROOT / "notebooks"))


def one_of(what: str, value: str, valid: Iterable[str]) -> str:
    """Return `value` if it is one of `valid`; else raise InputError naming the nearest valid one."""
    valid = list(valid)
    if value in valid:
        return value
    near = difflib.get_close_matches(str(value)[:200], valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = ", ".join(valid[:12]) + (f", … ({len(valid)} in all)" if len(valid) > 12 else "")
    raise InputError(f"unknown {what} {repr(value)[:200]}: {hint}valid: {shown}")


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Write a whole file or nothing: a reader never sees half of it, and a crash leaves the old one.

    Raises:
        UnwritableError: the disk is full, or the folder may not be written to; the old file is as it was.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place when all went well, and is removed when not.

    Raises:
        UnwritableError: the disk is full, or the folder may not be written to; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with open(temporary, "rb+") as f:
                os.fsync(f.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as e:
        raise unwritable(path, e) from e


def unwritable(path: Path | str, error: OSError) -> UnwritableError:
    """The error that says so in one sentence."""
    todo = "make room or choose another folder, and give the same command again: it continues"
    return UnwritableError(f"cannot write {path}: {error.strerror or error}; {todo}")


def read_json(path: Path, most: int = 16 << 20) -> dict[str, Any]:
    """The JSON object in a file that anyone may have written.

    Args:
        most: Bytes that are read at most; none of ours comes near.

    Raises:
        InputError: no such file, too long, or no JSON object.
    """
    try:
        with open(path, "rb") as f:
            text = f.read(most + 1)
        if len(text) > most:
            raise ValueError(f"longer than {most} bytes")
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(f"{path} cannot be read ({getattr(e, 'strerror', None) or e})") from e
    return found


class JsonConfig:
    """JSON round trip of a frozen dataclass; unknown keys are refused with the nearest valid name."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        names = [f.name for f in dataclasses.fields(cls)]
        _require(isinstance(values, dict), f"the settings of {cls.__name__} are no JSON object; write the run again")
        for key in values:
            one_of(f"setting of {cls.__name__}", key, names)
        for f in (f for f in dataclasses.fields(cls) if f.name in values):
            value = values[f.name]
            _require(
                _is_a(f.type, value),
                f"{cls.__name__} could not be read: {f.name} must be {f.type}, not {repr(value)[:80]}",
            )
        try:
            return cls(**values)
        except TypeError as e:
            raise InputError(f"{cls.__name__} could not be read: {e}; write the run again") from e


def _is_a(kind: str, value: Any) -> bool:
    """Whether a value that came from JSON is what a field's annotation says; numbers are finite."""
    if kind.startswith("tuple["):
        items = kind[6:-1].split(", ")
        if not isinstance(value, list | tuple) or (items[-1] != "..." and len(items) != len(value)):
            return False
        return all(_is_a(items[0], v) for v in value)
    if kind == "int":
        return isinstance(value, Integral) and not isinstance(value, bool) and abs(value) < 2**63
    if kind == "float":
        return math.isfinite(value) if isinstance(value, float) else _is_a("int", value)
    return isinstance(value, {"str": str, "bool": bool}.get(kind, dict | JsonConfig))


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise InputError(message)


@dataclass(frozen=True)
class FrontEnd(JsonConfig):
    """How sound becomes a log-mel spectrogram.

    Attributes:
        name: Its name, part of the store's name.
        n_mels: Mel bands (Slaney scale and normalisation).
        n_fft: Window of the short-time Fourier transform, samples.
        hop: Step between frames, samples.
        frames: Frames of one window, the model's input width.
        sample_rate: Hz.
        f_max: Highest frequency of the mel bank, Hz.
    """

    name: str
    n_mels: int
    n_fft: int
    hop: int
    frames: int
    sample_rate: int = 22_050
    f_max: float = 11_025.0

    def __post_init__(self) -> None:
        for key in ("n_mels", "n_fft", "hop", "frames", "sample_rate"):
            _require(getattr(self, key) > 0, f"front end {self.name!r}: {key} must be positive")
        _require(self.f_max <= self.sample_rate / 2, f"front end {self.name!r}: f_max is above half the rate")

    @property
    def shape(self) -> tuple[int, int]:
        """(mel bands, frames) of one window."""
        return self.n_mels, self.frames

    @property
    def min_samples(self) -> int:
        """Fewest samples (at `sample_rate`) that fill one window of centred frames."""
        return (self.frames - 1) * self.hop

    @property
    def window_seconds(self) -> float:
        """Seconds that one window covers."""
        return self.frames * self.hop / self.sample_rate


# compact: n_fft is twice the hop, because a Hann window as long as its hop would not hear a note at a frame's edge.
COMPACT = FrontEnd("compact", n_mels=64, n_fft=4096, hop=2048, frames=64)
FULL = FrontEnd("full", n_mels=128, n_fft=2048, hop=512, frames=1293)
FRONT_ENDS = {fe.name: fe for fe in (COMPACT, FULL)}


def front_end(name: str) -> FrontEnd:
    """The front end called `name` (`compact` or `full`)."""
    return FRONT_ENDS[one_of("profile", name, FRONT_ENDS)]


PRIORS = ("standard", "fixed", "learned")
DEFAULT_BETA = {"beta_vae": 4.0, "cvae": 4.0}  # weight of the KL term; 1 for the other models


@dataclass(frozen=True)
class ModelConfig(JsonConfig):
    """Which model, and its sizes.

    Attributes:
        name: Key of `vaelib.models.MODELS`.
        input_shape: (mel bands, frames) of one window.
        latent: Latent dimensions.
        condition: Label column that a conditional model is given (`language`, `genre`), or "".
        classes: Names of the classes of `condition`, in the order of their indices.
        prior: Prior of a conditional model: `standard` N(0, I), `fixed` N(μ_y, I) with orthogonal class means
            `prior_distance` apart, or `learned` means.
        prior_distance: Distance between two fixed class means, in prior standard deviations.
        backbone: Encoder and decoder of VaDE: `conv` or `fc`.
        components: Gaussians in VaDE's mixture.
        dropout: Dropout rate of the fully connected network.
    """

    name: str
    input_shape: tuple[int, int]
    latent: int = 128
    condition: str = ""
    classes: tuple[str, ...] = ()
    prior: str = "standard"
    prior_distance: float = 30.0
    backbone: str = "conv"
    components: int = 50
    dropout: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        object.__setattr__(self, "classes", tuple(self.classes))
        _require(self.latent > 0 and self.components > 0, "latent and components must be positive")
        _require(0 <= self.dropout < 1, f"dropout must be in [0, 1), not {self.dropout}")
        _require(self.prior_distance >= 0, "prior_distance must not be negative")
        one_of("prior", self.prior, PRIORS)
        one_of("backbone", self.backbone, ("conv", "fc"))


@dataclass(frozen=True)
class TrainConfig(JsonConfig):
    """How a model is trained.

    Attributes:
        epochs: Passes over the training clips (one random window of each clip per pass).
        pretrain_epochs: Passes before these as a plain VAE (VaDE only).
        batch_size: Clips per step.
        lr: Peak learning rate of the network (AdamW).
        mixture_lr: Peak learning rate of VaDE's mixture parameters.
        beta: Weight of the KL term after warm-up.
        mixture_weight: Weight of VaDE's mixture terms in the joint phase.
        class_weight: Weight of the class head's cross-entropy (conditional model): a few nats beside thousands of the
            likelihood, so that at weight 1 the head hardly learns.
        kl_warmup: Share of the epochs over which the KL weight rises linearly from 0; the same for every model.
        grad_clip: Largest norm of the gradient.
        weight_decay: AdamW's.
        sigma: Standard deviation of the likelihood, fixed; 0: one σ for all bins, learned. β and σ are one knob: only
            β · σ² decides how much of the code the KL term prunes (Rybkin et al. 2021, arXiv:2006.13202).
        sigma_end: What a fixed `sigma` falls (or rises) to during training, geometrically; 0: it stays.
        start_components: Latent dimensions that start as independent components of the training windows (FastICA on
            as many principal components, no labels); 0: random start.
        held: Share of the epochs for which encoder and mean head are held at that start while the decoder learns.
        target: Window that the decoder must answer with: the `same` that was encoded, or an `other` one of the same
            clip. Then the bound is that of log p(other | one), not of log p(x): the code keeps what a clip's windows
            share.
        eval_windows: Evenly spaced windows per clip whose posterior means are averaged in evaluation.
        precision: `auto` (bf16 autocast), or any precision of Lightning Fabric.
        seed: Seed of weights, order, crops and noise.
    """

    epochs: int = 16
    pretrain_epochs: int = 0
    batch_size: int = 32
    lr: float = 1e-3
    mixture_lr: float = 1e-2
    beta: float = 1.0
    mixture_weight: float = 1.0
    class_weight: float = 100.0
    kl_warmup: float = 0.25
    grad_clip: float = 1e3
    weight_decay: float = 1e-4
    sigma: float = 0.0
    sigma_end: float = 0.0
    start_components: int = 0
    held: float = 0.4
    target: str = "same"
    eval_windows: int = 5
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "eval_windows", "lr", "mixture_lr", "grad_clip"):
            _require(getattr(self, key) > 0, f"{key} must be positive, not {getattr(self, key)}")
        for key in ("pretrain_epochs", "beta", "mixture_weight", "class_weight", "weight_decay", "seed",
                    "sigma", "sigma_end", "start_components"):  # fmt: skip
            _require(getattr(self, key) >= 0, f"{key} must not be negative, not {getattr(self, key)}")
        _require(self.seed < 2**63, f"seed must be below 2 to the 63rd, not {self.seed}")
        _require(0 <= self.kl_warmup < 1, f"kl_warmup must be in [0, 1), not {self.kl_warmup}")
        _require(0 <= self.held < 1, f"held must be in [0, 1), not {self.held}")
        _require(self.sigma > 0 or not self.sigma_end, "sigma_end needs a fixed sigma to start from")
        one_of("target", self.target, ("same", "other"))
        _require(self.batch_size > 1, "batch_size must be at least 2: batch normalisation needs two clips")

    @property
    def first_phase(self) -> int:
        """Epochs as a plain VAE: the pretraining of VaDE, all epochs of the others; what `--epochs` asks for."""
        return self.pretrain_epochs or self.epochs

    @property
    def total_epochs(self) -> int:
        """Pretraining and training epochs together."""
        return self.pretrain_epochs + self.epochs


@dataclass(frozen=True)
class RunConfig(JsonConfig):
    """One training run: the store it read, the model and the training. Its hash names the run's folder."""

    corpus: str
    fingerprint: str
    front_end: FrontEnd
    model: ModelConfig
    training: TrainConfig = field(default_factory=TrainConfig)
    detilt: bool = False
    code: str = field(default_factory=lambda: code_version())

    def __post_init__(self) -> None:
        for key, cls in (("front_end", FrontEnd), ("model", ModelConfig), ("training", TrainConfig)):
            if isinstance(getattr(self, key), dict):
                object.__setattr__(self, key, cls.from_dict(getattr(self, key)))
        n, latent = self.training.start_components, self.model.latent
        _require(n <= latent, f"start_components is {n}, but there are {latent} latent dimensions: ask for fewer")

    @property
    def variant(self) -> str:
        """Model name with what sets it apart, without seed and epochs: the row of the comparison table.

        Condition and prior; a β that is not the model's own (`b8`); a σ that is not learned (`sigma0.2`); `components`
        where the codes start on independent components; `other` for cross-window targets; `detilt`.
        """
        m, t = self.model, self.training
        parts = [m.name, *([m.condition, m.prior] if m.condition else [])]
        parts += [f"b{t.beta:g}"] if t.beta != DEFAULT_BETA.get(m.name, 1.0) else []
        parts += [f"sigma{t.sigma:g}" + (f"to{t.sigma_end:g}" if t.sigma_end else "")] if t.sigma else []
        parts += ["components"] if t.start_components else []
        parts += [t.target] if t.target != "same" else []
        return "-".join(parts + (["detilt"] if self.detilt else []))

    @property
    def run_id(self) -> str:
        """Readable and unique: variant, seed, and a hash of every setting."""
        return f"{self.variant}-s{self.training.seed}-{digest(self.to_dict())}"

    @property
    def folder(self) -> Path:
        """Where the run's files lie."""
        return outputs_dir() / self.corpus / self.run_id


@lru_cache(maxsize=1)
def code_version() -> str:
    """Digest of the rooms that decide what a training run computes: changed code never reuses an old run."""
    rooms = ("soundfiles", "audio", "store", "windows", "nets", "models", "losses", "steps", "training")
    return digest([(Path(__file__).parent / f"{room}.py").read_text() for room in rooms])


def digest(value: Any, length: int = 8) -> str:
    """Short hexadecimal digest of any JSON value; the same on every machine."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()[:length]
