"""Waveform ↔ log-mel spectrogram: decoding, the front end, scaling to [0, 1] and the way back to sound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import Tensor

from .config import FrontEnd, InputError, JsonConfig

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
FLOOR = 1e-10  # power below which everything is silence: -100 dB
RANGE_DB = 80.0  # dynamic range that the scaling keeps
SHORT_BY = 0.02  # a clip may lack this share of a window (a 30-s file is often a few samples short); zeros fill it


class UnreadableAudio(InputError):
    """A file that cannot be used; the message is the reason written to `rejected.csv`."""


def probe(path: Path, fe: FrontEnd) -> int:
    """Number of frames that `path` will have under `fe`, read from its header alone.

    Raises:
        UnreadableAudio: no such file, not audio, or shorter than one window.
    """
    import soundfile

    try:
        info = soundfile.info(str(path))
    except Exception as e:
        raise UnreadableAudio(_reason(path, e)) from e
    samples = int(np.ceil(info.frames * fe.sample_rate / info.samplerate))
    _check_length(samples, fe)
    return max(samples, fe.min_samples) // fe.hop + 1


def load(path: Path, fe: FrontEnd) -> Tensor:
    """Decode one file to mono at the front end's rate.

    Returns:
        (samples,) float32 in [-1, 1], padded with zeros where it lacks a hair of one window.

    Raises:
        UnreadableAudio: the file cannot be decoded, holds NaN or infinite samples, is silent or too short.
    """
    import soundfile

    try:
        data, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except Exception as e:
        raise UnreadableAudio(_reason(path, e)) from e
    # One channel needs no mean, and two extremes tell of NaN and infinity: a third of the time beside the decoding.
    wave = torch.from_numpy(data).mean(1) if data.shape[1] > 1 else torch.from_numpy(data[:, 0])
    if not _peak(wave).isfinite():
        raise UnreadableAudio("holds NaN or infinite samples; export it again")
    if rate != fe.sample_rate:
        wave = torchaudio.functional.resample(wave, rate, fe.sample_rate)
    _check_length(len(wave), fe)
    if _peak(wave) < 1e-5:
        raise UnreadableAudio("is silent (peak below -100 dBFS); remove it or replace it")
    short = fe.min_samples - len(wave)
    return torch.nn.functional.pad(wave, (0, short)) if short > 0 else wave


def _peak(wave: Tensor) -> Tensor:
    return torch.stack(wave.aminmax()).abs().max() if len(wave) else torch.zeros(())


def _check_length(samples: int, fe: FrontEnd) -> None:
    if samples < (1 - SHORT_BY) * fe.min_samples:
        raise UnreadableAudio(
            f"is too short: {samples / fe.sample_rate:.2f} s, while one window of the {fe.name!r} front end is "
            f"{fe.min_samples / fe.sample_rate:.2f} s; leave it out or use a front end with shorter windows"
        )


def _reason(path: Path, error: Exception) -> str:
    if not path.exists():
        return "is not there; correct the manifest"
    if path.stat().st_size == 0:
        return "is empty (0 bytes); copy it again"
    return f"cannot be decoded as audio ({str(error).strip().splitlines()[-1][:120]}); convert it to FLAC or WAV"


@lru_cache(maxsize=8)
def _mel_transform(fe: FrontEnd) -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=fe.sample_rate, n_fft=fe.n_fft, hop_length=fe.hop, n_mels=fe.n_mels, f_min=0.0,
        f_max=fe.f_max, power=2.0, norm="slaney", mel_scale="slaney", center=True, pad_mode="constant",
    )  # fmt: skip


def log_mel(wave: Tensor, fe: FrontEnd) -> Tensor:
    """Log-mel power spectrogram, the values of `librosa.power_to_db(melspectrogram(...), top_db=None)`.

    Args:
        wave: (samples,) at `fe.sample_rate`.

    Returns:
        (mel, frame) in dB re full scale, floored at -100 dB.
    """
    transform = _mel_transform(fe)
    window = transform.spectrogram.window
    s = torch.stft(wave, fe.n_fft, fe.hop, window=window, center=True, pad_mode="constant", return_complex=True)
    # torchaudio takes the root and squares it again: the same to one part in 10⁷, in half of the time.
    power = s.real.square().addcmul_(s.imag, s.imag)
    return transform.mel_scale(power).clamp_min_(FLOOR).log10_().mul_(10.0)


def level_and_tilt(db: np.ndarray) -> tuple[float, float]:
    """Loudness and spectral tilt of one clip: mean and slope of the line fitted to its mean spectrum.

    Args:
        db: (mel, frame) in dB.

    Returns:
        (level in dB, tilt in dB from the lowest to the highest band).
    """
    x = np.linspace(-0.5, 0.5, db.shape[0])
    spectrum = db.mean(1)
    return float(spectrum.mean()), float(spectrum @ x / (x @ x))


@dataclass(frozen=True)
class Scaler(JsonConfig):
    """Affine map from dB to [0, 1], fitted on training clips and stored with the model.

    Attributes:
        low_db, high_db: dB that become 0 and 1; values beyond are clipped.
        detilt: Remove each clip's own loudness and spectral tilt first (a straight line over the mel bands).
            It helps clustering and erases the energy and brightness factors.
    """

    low_db: float
    high_db: float
    detilt: bool = False

    @classmethod
    def fit(cls, db: np.ndarray, level: np.ndarray, tilt: np.ndarray, detilt: bool = False) -> Scaler:
        """Fit on (clip, mel, frame) dB of training clips: the 99.9th percentile and at most 80 dB below it."""
        values = _straighten(np.asarray(db, np.float32), level, tilt) if detilt else np.asarray(db, np.float32)
        low, high = np.percentile(values, [0.5, 99.9])
        return cls(float(max(low, high - RANGE_DB)), float(high), detilt)

    def transform(self, db: np.ndarray, level: np.ndarray, tilt: np.ndarray) -> np.ndarray:
        """(clip, mel, frame) dB → the same shape in [0, 1], float32."""
        db = np.asarray(db, np.float32)
        if self.detilt:
            db = _straighten(db, level, tilt)
        return np.clip((db - self.low_db) / (self.high_db - self.low_db), 0, 1)

    def inverse(self, x: np.ndarray, level: float = 0.0, tilt: float = 0.0) -> np.ndarray:
        """(…, mel, frame) in [0, 1] → dB; `level` and `tilt` of a clip put back what `detilt` removed."""
        db = np.asarray(x, np.float32) * (self.high_db - self.low_db) + self.low_db
        return db + _line(db.shape[-2], level, tilt) if self.detilt else db


def _line(n_mels: int, level: np.ndarray | float, tilt: np.ndarray | float) -> np.ndarray:
    x = np.linspace(-0.5, 0.5, n_mels, dtype=np.float32)[:, None]
    return np.asarray(level, np.float32)[..., None, None] + np.asarray(tilt, np.float32)[..., None, None] * x


def _straighten(db: np.ndarray, level: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    return db - _line(db.shape[-2], level, tilt)


def to_sound(db: np.ndarray, fe: FrontEnd, iterations: int = 32) -> np.ndarray:
    """A listenable guess of the waveform behind a log-mel spectrogram.

    Multiplicative updates for the Kullback-Leibler divergence (Lee & Seung 2001) back to a linear spectrogram, then
    Griffin-Lim phases (torchaudio). librosa's non-negative least squares takes seconds per window, these updates
    0.05 s, and their mel spectrogram is nearer to the original. The mel bank has thrown away phase and detail, so
    this is for the ear, not for measurement.

    Args:
        db: (mel, frame) in dB.

    Returns:
        (samples,) float32 at `fe.sample_rate`, peak-normalised to 0.9; the same for the same input.
    """
    mel = torch.from_numpy(np.power(10.0, np.clip(np.asarray(db, np.float32), -100, 60) / 10).astype(np.float32))
    bank = _mel_transform(fe).mel_scale.fb.T  # (mel, bin)
    linear = mel.mean().expand(bank.shape[1], mel.shape[1])
    for _ in range(100):
        linear = linear * (bank.T @ (mel / (bank @ linear).clamp_min(FLOOR))) / bank.sum(0)[:, None].clamp_min(FLOOR)
    with torch.random.fork_rng(devices=[]):  # the first phases are drawn at random
        torch.manual_seed(0)
        wave = torchaudio.functional.griffinlim(
            linear.sqrt(), torch.hann_window(fe.n_fft), fe.n_fft, fe.hop, fe.n_fft, power=1.0, n_iter=iterations,
            momentum=0.99, length=None, rand_init=True,
        ).numpy()  # fmt: skip
    peak = np.abs(wave).max()
    return (0.9 * wave / peak if peak > 0 else wave).astype(np.float32)


def mel_frequencies(fe: FrontEnd) -> np.ndarray:
    """(mel,) centre frequency of every band in Hz (Slaney scale)."""
    import librosa

    return librosa.mel_frequencies(fe.n_mels + 2, fmin=0.0, fmax=fe.f_max)[1:-1]
