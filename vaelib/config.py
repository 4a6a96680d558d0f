"""Folders, the one input error, whole-file writing, and the settings of a run as frozen dataclasses."""

from __future__ import annotations

import ast
import ctypes
import dataclasses
import difflib
import errno
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ("audio", "store", "windows", "models", "losses", "optimization", "training")  # modules that decide it
# Errors of a full disk, or of a folder that may not be written to
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


class InputError(ValueError):
    """Bad input from a person: one sentence that says what is wrong, where, and what to do."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it: a notebook shows the sentence alone
        return [f"InputError: {self}"]


def _folder(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable, ROOT / name))


data_dir = partial(_folder, "VAELIB_DATA", "data")  # corpora and mel stores
outputs_dir = partial(_folder, "VAELIB_OUTPUTS", "outputs")  # training runs and comparisons
papermill_dir = partial(_folder, "VAELIB_PAPERMILL", "papermill_runs")  # executed notebooks
notebooks_dir = partial(_folder, "VAELIB_NOTEBOOKS", "notebooks")  # the numbered notebooks


def one_of(what: str, value: str, valid: Iterable[str]) -> str:
    """Return `value` if it is one of `valid`; else raise InputError naming the nearest valid one."""
    valid = list(dict.fromkeys(valid))
    if value in valid:
        return value
    nearest = difflib.get_close_matches(str(value)[:200], valid, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise InputError(f"unknown {what} {repr(value)[:200]}: {hint}valid: {', '.join(filter(None, valid))[:500]}")


def digest(value: Any) -> str:
    """Eight hexadecimal digits of any JSON value; the same on every machine."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()[:8]


@cache
def code_version(modules: tuple[str, ...] = TRAINING) -> str:
    """Digest of the code of some modules, without comments, docstrings and layout."""
    trees = [ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")) for name in modules]
    for node in (n for tree in trees for n in ast.walk(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return digest([ast.unparse(tree) for tree in trees])


def keep_freed_memory() -> None:
    """Let this process keep freed memory for its next block (GNU's C library)."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: larger blocks go back at once (glibc takes no more)
        ctypes.CDLL(None).mallopt(-1, 128 << 20)  # M_TRIM_THRESHOLD: so does what is free beyond this


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """A full disk, or a folder that may not be written to, becomes an InputError; `path` if no other file is named."""
    try:
        yield
    except OSError as e:
        if e.errno not in NO_ROOM:
            raise
        todo = "make room or choose another folder, and give the same command again: it continues"
        raise InputError(f"cannot write {e.filename or path}: {e.strerror}; {todo}") from e


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Write a whole file or nothing, and return its path; InputError where it cannot be written (`writing`)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as f:
                f.write(content.encode() if isinstance(content, str) else content)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


TYPES = {"int": Integral, "float": Real, "str": str, "bool": bool}
LIMITS = dict.fromkeys(("latent", "components", "epochs", "eval_windows"), (1, math.inf, "be positive"))
LIMITS |= dict.fromkeys(("lr", "mixture_lr", "grad_clip"), (1e-12, math.inf, "be positive"))
LIMITS |= dict.fromkeys(("dropout", "kl_warmup", "held"), (0, 0.999, "be in [0, 1)"))
LIMITS |= dict.fromkeys(("low_db", "high_db"), (-math.inf, math.inf, "be finite"))
LIMITS |= {"batch_size": (2, math.inf, "be at least 2: batch normalisation needs two clips")}
DEFAULT_BETA = {"beta_vae": 4.0, "cvae": 4.0}  # weight of the KL term; 1 for the other models
PRIORS = ("standard", "fixed", "learned")
WORDS = {"prior": PRIORS, "backbone": ("conv", "fc")}
FORMER = [("target", "same"), ("sigma_end", 0.0)]  # of earlier runs; the values mean what is done now


class JsonConfig:
    """A frozen dataclass of settings that are checked, to JSON and back."""

    to_dict = dataclasses.asdict  # a method: plain JSON values

    def __post_init__(self) -> None:
        for name, kind in ((f.name, f.type) for f in dataclasses.fields(self)):
            value, base = getattr(self, name), TYPES.get(kind.removeprefix("tuple[").partition(",")[0], object)
            for v in value if kind.startswith("tuple[") else [value]:
                ok = isinstance(v, base) and isinstance(v, bool) == (kind == "bool")
                _require(ok, f"{name} must be {kind}, not {repr(value)[:80]}")
            if name in WORDS:
                one_of(name, value, WORDS[name])
            if isinstance(value, Real):
                low, high, words = LIMITS.get(name, (0, math.inf, "not be negative"))
                _require(math.isfinite(value) and low <= value <= high, f"{name} must {words}, not {value}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The settings in a JSON object; InputError says which one is wrong."""
        names = [f.name for f in dataclasses.fields(cls)]
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if (k, v) not in FORMER}
        return cls(**{one_of(f"setting of {cls.__name__}", name, names): value for name, value in values.items()})


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise InputError(message)


@dataclass(frozen=True)
class FrontEnd(JsonConfig):
    """How sound becomes a log-mel spectrogram; explained in notebook 01."""

    name: str  # part of the store's name
    n_mels: int  # mel bands (Slaney scale and normalisation)
    n_fft: int  # window of the short-time Fourier transform, samples
    hop: int  # step between frames, samples
    frames: int  # of one window, the model's input width
    sample_rate: int = 22_050  # Hz
    f_max: float = 11_025.0  # highest frequency of the mel bank, Hz

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


@dataclass(frozen=True)
class ModelConfig(JsonConfig):
    """Which model, and its sizes."""

    name: str  # key of `vaelib.models.MODELS`
    input_shape: tuple[int, int]  # (mel bands, frames) of one window
    latent: int = 128  # latent dimensions
    condition: str = ""  # label column that a conditional model is given (`language`, `genre`), or none
    classes: tuple[str, ...] = ()  # names of the classes of `condition`, in the order of their indices
    prior: str = "standard"  # of a conditional model: N(0, I), `fixed` N(μ_y, I) with orthogonal means, `learned` means
    prior_distance: float = 30.0  # between two fixed class means, in prior standard deviations
    backbone: str = "conv"  # encoder and decoder of VaDE: `conv` or `fc`
    components: int = 50  # Gaussians in VaDE's mixture
    dropout: float = 0.1  # rate of the fully connected network


@dataclass(frozen=True)
class TrainConfig(JsonConfig):
    """How a model is trained; explained in notebooks 02 and 04."""

    epochs: int = 16  # passes over the training clips, one random window of each clip per pass
    pretrain_epochs: int = 0  # passes before these as a plain VAE (VaDE only)
    batch_size: int = 32  # clips per step
    lr: float = 1e-3  # peak learning rate of the network (AdamW)
    mixture_lr: float = 1e-2  # peak learning rate of VaDE's mixture
    beta: float = 1.0  # weight of the KL term after warm-up; β · σ² decides how much it prunes (arXiv:2006.13202)
    mixture_weight: float = 1.0  # weight of VaDE's mixture terms in the joint phase
    class_weight: float = 100.0  # of the class head's cross-entropy: a few nats beside thousands of the likelihood
    kl_warmup: float = 0.25  # share of the epochs over which the KL weight rises linearly from 0
    grad_clip: float = 1e3  # largest norm of the gradient
    weight_decay: float = 1e-4  # AdamW's
    sigma: float = 0.0  # standard deviation of the likelihood, fixed; 0: one σ for all bins, learned
    start_components: int = 0  # latent dimensions that start on components (`optimization.start_on_components`)
    held: float = 0.4  # share of the epochs for which the encoder is held at that start
    eval_windows: int = 5  # evenly spaced windows per clip whose posterior means are averaged in evaluation
    precision: str = "auto"  # `auto`, `32-true`, or a mixed one of Lightning Fabric
    seed: int = 0  # of weights, order, crops and noise

    @property
    def first_phase(self) -> int:
        """Epochs as a plain VAE, which `--epochs` asks for: the pretraining of VaDE, all epochs of the others."""
        return self.pretrain_epochs or self.epochs

    @property
    def total_epochs(self) -> int:
        return self.pretrain_epochs + self.epochs


@dataclass(frozen=True)
class RunConfig(JsonConfig):
    """One training run: the store it read, the model and the training; its digest names the run's folder."""

    corpus: str
    fingerprint: str
    front_end: FrontEnd
    model: ModelConfig
    training: TrainConfig = field(default_factory=TrainConfig)
    detilt: bool = False
    code: str = field(default_factory=lambda: code_version())

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, cls in (("front_end", FrontEnd), ("model", ModelConfig), ("training", TrainConfig)):
            if isinstance(getattr(self, key), dict):
                object.__setattr__(self, key, cls.from_dict(getattr(self, key)))
        n, latent = self.training.start_components, self.model.latent
        _require(n <= latent, f"start_components is {n}, but there are {latent} latent dimensions: ask for fewer")

    @property
    def variant(self) -> str:
        """Model name with what sets it apart, without seed and epochs: the row of the comparison table."""
        m, t = self.model, self.training
        parts = [m.name, *([m.condition, m.prior] if m.condition else [])]
        parts += [f"b{t.beta:g}"] if t.beta != DEFAULT_BETA.get(m.name, 1.0) else []
        parts += [f"sigma{t.sigma:g}"] if t.sigma else []
        parts += ["components"] if t.start_components else []
        return "-".join(parts + (["detilt"] if self.detilt else []))

    @property
    def run_id(self) -> str:
        """Readable and unique: variant, seed, and a digest of every setting."""
        return f"{self.variant}-s{self.training.seed}-{digest(self.to_dict())}"

    @property
    def folder(self) -> Path:
        return outputs_dir() / self.corpus / self.run_id


def read_settings(text: str, **given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings by name, and `components=20 sigma=0.2` after them → those of `ModelConfig` and of `TrainConfig`."""
    for part in text.split():
        name, _, word = part.partition("=")
        _require(bool(word), f"settings {text!r}: write name=value, several with spaces, e.g. sigma=0.2")
        given[name] = word
        with suppress(ValueError):  # a plain word is text
            given[name] = json.loads(word)
    found: dict[type, dict[str, Any]] = {ModelConfig: {}, TrainConfig: {}}
    known = {f.name: cls for cls in found for f in dataclasses.fields(cls)}
    for name, value in given.items():
        found[known[one_of("setting of a model or its training", name, known)]][name] = value
    return found[ModelConfig], found[TrainConfig]
