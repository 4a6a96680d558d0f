"""Sound files to log-mel spectrograms and back: decoding, the front end, scaling to [0, 1], Griffin-Lim.

Notebook 01 explains and plays every step. Both torches are imported where they compute: other uses start faster.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soundfile
from scipy.sparse import csr_array

from .config import FrontEnd, InputError, JsonConfig

if TYPE_CHECKING:
    from torch import Tensor

# What is looked for in folders; what libsndfile does not know of these goes to ffmpeg.
AUDIO_SUFFIXES = (
    ".wav", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf",
    ".m4a", ".m4b", ".aac", ".mp4", ".wma", ".wv", ".ape", ".mka", ".mkv", ".webm",
)  # fmt: skip
# Formats that hold their own sound. Not play lists: one that is named .m4a would make ffmpeg read other files.
FFMPEG = ["-v", "error", "-protocol_whitelist", "file,pipe",
          "-format_whitelist", "mov,aac,asf,matroska,wv,ape,mp3,ogg,flac,wav,aiff,au,caf"]  # fmt: skip
FFMPEG_SECONDS = 120  # that ffmpeg may take for one header or one part of a file

FLOOR = 1e-10  # power below which everything is silence: -100 dB
RANGE_DB = 80.0  # dynamic range that the scaling keeps
SHORT_BY = 0.02  # a clip may lack this share of a window (a 30-s file is often a few samples short); zeros fill it
SILENT = 1e-5  # peak of a clip that holds nothing: -100 dBFS
FULL_SCALE = 0.999  # samples beyond are counted as clipped
BLOCK_S, BLOCK_SILENT = 0.05, 1e-3  # a block of 50 ms whose root mean square is below -60 dBFS is silent
SEGMENT_S = 30.0  # longer files are cut into pieces of this length
FRAMES = 256  # transformed at a time: what fits in a cache
MOST_RATIO = 4000  # phases of a resampling filter; rates without a common divisor would need gigabytes, soxr does not


class UnreadableAudio(InputError):
    """A file that cannot be used; the message is the reason written to `rejected.csv`."""


class Header(NamedTuple):
    """What a file says of itself."""

    seconds: float  # of a damaged file perhaps more than can be decoded
    rate: int  # Hz
    channels: int
    format: str  # container or codec: FLAC, MP3, AAC, …


def header(path: Path) -> Header:
    """Read a file's header with libsndfile, or with ffmpeg; UnreadableAudio: it is not there, or no audio for them."""
    _check_file(path)
    try:
        info = soundfile.info(str(path))
    except Exception as e:
        return _ffprobe(path, e)
    codec = info.subtype if info.format == "OGG" else info.format  # Ogg holds Vorbis, Opus, …
    name = "MP3" if codec == "MPEG" or "LAYER_III" in info.subtype else codec
    return Header(info.frames / info.samplerate, info.samplerate, info.channels, name)


def samples(path: Path, start: float = 0.0, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Decode a file, or `seconds` of it (None: all that is left) from `start` on; UnreadableAudio: it cannot be.

    Returns:
        (samples, channels) float32, full scale is 1; and the rate in Hz.
    """
    _check_file(path)
    try:
        sound = soundfile.SoundFile(str(path))
    except Exception as e:
        return _ffmpeg(path, e, start, seconds)
    try:
        with sound:
            if sound.format in ("MP3", "MPEG") and (start or seconds is not None):
                return _forwards(path, start, seconds)
            sound.seek(min(round(start * sound.samplerate), sound.frames))
            count = -1 if seconds is None else round(seconds * sound.samplerate)
            return sound.read(count, dtype="float32", always_2d=True), sound.samplerate
    except Exception as e:
        raise _undecodable(path, e) from e


_thread = threading.local()  # its `mp3`: the one that this thread read last, still open


def _forwards(path: Path, start: float, seconds: float | None) -> tuple[np.ndarray, int]:
    """A part of an MP3, decoded from front to back and left open for the next part: its decoder cannot jump well."""
    about = path.stat()
    key = (path, about.st_mtime_ns, about.st_size)
    known, file = _thread.__dict__.pop("mp3", (None, None))  # put back if all goes well
    if known != key or file.tell() > round(start * file.samplerate):
        file = soundfile.SoundFile(str(path))
        file.seekable = lambda: False  # else soundfile jumps to where it is after every read
    first = min(round(start * file.samplerate), file.frames)
    while (gap := first - file.tell()) > 0 and len(file.read(min(gap, 1 << 20), dtype="float32")):
        pass
    count = max(file.frames - file.tell(), 0) if seconds is None else round(seconds * file.samplerate)
    data = file.read(count, dtype="float32", always_2d=True)
    _thread.mp3 = (key, file)
    return data, file.samplerate


def _ffprobe(path: Path, error: Exception) -> Header:
    entries = "stream=sample_rate,channels,codec_name,duration:format=duration"
    asked = ["-select_streams", "a:0", "-show_entries", entries, "-of", "json", f"file:{path}"]
    found = json.loads(_run("ffprobe", asked, path, error) or b"{}")
    try:
        stream = found["streams"][0]
        seconds = stream.get("duration") or found["format"]["duration"]
        return Header(float(seconds), int(stream["sample_rate"]), int(stream["channels"]), stream["codec_name"].upper())
    except (KeyError, IndexError, ValueError) as e:
        raise UnreadableAudio("has no audio track that ffmpeg can read; convert it to FLAC or WAV") from e


def _ffmpeg(path: Path, error: Exception, start: float, seconds: float | None) -> tuple[np.ndarray, int]:
    about = _ffprobe(path, error)
    part = ["-ss", f"{start:.6f}"] + (["-t", f"{seconds:.6f}"] if seconds is not None else [])
    out = ["-map", "0:a:0", "-ar", str(about.rate), "-ac", str(about.channels), "-f", "f32le", "pipe:1"]
    raw = _run("ffmpeg", ["-nostdin", *part, "-i", f"file:{path}", *out], path, error)
    return np.frombuffer(raw, "<f4").reshape(-1, about.channels), about.rate


def _run(program: str, arguments: list[str], path: Path, error: Exception) -> bytes:
    """What ffmpeg answers about a file that libsndfile refused with `error`."""
    if shutil.which(program) is None:
        raise _undecodable(path, error, "install ffmpeg, which reads more formats, or ")
    try:
        done = subprocess.run([program, *FFMPEG, *arguments], capture_output=True, timeout=FFMPEG_SECONDS, check=True)
    except subprocess.SubprocessError as e:
        raise _undecodable(path, (e.stderr or b"").decode(errors="replace") or e) from e
    return done.stdout


def _check_file(path: Path) -> None:
    if not os.access(path, os.R_OK):
        raise UnreadableAudio("is not there, or may not be read; correct the manifest or the permissions")
    if path.stat().st_size == 0:
        raise UnreadableAudio("is empty (0 bytes); copy it again")


def _undecodable(path: Path, error: object, remedy: str = "") -> UnreadableAudio:
    line = (str(error).replace(str(path), "…").strip() or "no audio").splitlines()[-1]
    line = "".join(c if c.isprintable() else " " for c in line).strip(" :")[:120]
    return UnreadableAudio(f"cannot be decoded as audio ({line}); {remedy}convert it to FLAC or WAV")


class Levels(NamedTuple):
    """Measures of a waveform for the report of a collection."""

    peak: float  # largest absolute sample of any channel
    clipped: float  # share of samples at full scale or beyond
    silent: float  # share of blocks of 50 ms below -60 dBFS
    rms_db: float  # root mean square, dB re full scale


def segments(seconds: float, fe: FrontEnd, length: float, step: float) -> list[tuple[float, float | None]]:
    """(start, seconds) of each piece of a file: one of `length` every `step` seconds; `length` 0: never cut.

    What remains belongs to the last piece (a tenth of a piece at most; its seconds are None: to the end of the file),
    or ends a last piece that overlaps the one before. UnreadableAudio: the file is shorter than one window.
    """
    _check_length(seconds, fe)
    if not length or seconds <= 1.1 * length:
        return [(0.0, None)]
    pieces = [(i * step, length) for i in range(int((seconds - length) / step + 1e-6) + 1)]
    last = pieces[-1][0]
    rest = seconds - last - length
    if step > length or rest < 1e-3:
        return pieces
    return [*pieces[:-1], (last, None)] if rest <= 0.1 * length else [*pieces, (seconds - length, None)]


def frames_of(seconds: float, fe: FrontEnd) -> int:
    """Frames that a clip of so many seconds will have."""
    return max(math.ceil(seconds * fe.sample_rate - 1e-6), fe.min_samples) // fe.hop + 1


def read(path: Path, fe: FrontEnd, start: float = 0.0, seconds: float | None = None) -> tuple[Tensor, Levels]:
    """Decode a file, or a part of it, to mono at the front end's rate, and measure it.

    (samples,) float32, full scale is 1, padded with zeros where it lacks a hair of one window; UnreadableAudio: it
    cannot be decoded, holds NaN or infinite samples, is silent or too short.
    """
    import torch

    data, rate = samples(path, start, seconds)
    peak = float(np.abs(data).max(initial=0.0))
    if not math.isfinite(peak):
        raise UnreadableAudio("holds NaN or infinite samples; export it again")
    wave = data.mean(1)
    wave = wave if rate == fe.sample_rate else _resample(wave, rate, fe.sample_rate)
    _check_length(len(wave) / fe.sample_rate, fe)
    if np.abs(wave).max() < SILENT:  # or channels that cancel each other
        raise UnreadableAudio("is silent (peak below -100 dBFS); remove it or replace it")
    block = int(BLOCK_S * fe.sample_rate)
    power = np.square(wave[: len(wave) // block * block]).reshape(-1, block).mean(1)
    clipped, silent = float(np.mean(np.abs(data) >= FULL_SCALE)), float(np.mean(power < BLOCK_SILENT**2))
    levels = Levels(peak, clipped, silent, 10 * math.log10(max(power.mean(), FLOOR)))
    return torch.from_numpy(np.pad(wave, (0, max(fe.min_samples - len(wave), 0)))), levels


def load(path: Path, fe: FrontEnd, start: float = 0.0, seconds: float | None = None) -> Tensor:
    """The waveform of `read`."""
    return read(path, fe, start, seconds)[0]


def _resample(wave: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    import torch
    from torchaudio.functional import resample

    if max(rate, wanted) // math.gcd(rate, wanted) > MOST_RATIO:
        import librosa

        return librosa.resample(wave, orig_sr=rate, target_sr=wanted, fix=False)  # soxr's
    return resample(torch.from_numpy(wave), rate, wanted).numpy()


def _check_length(seconds: float, fe: FrontEnd) -> None:
    window = fe.min_samples / fe.sample_rate
    if seconds < (1 - SHORT_BY) * window - 1e-6:
        raise UnreadableAudio(f"is too short: {seconds:.2f} s, one {fe.name!r} window is {window:.2f} s; leave it out")


@lru_cache(maxsize=8)
def mel_bank(fe: FrontEnd) -> csr_array:
    """(mel, bin) weights of the mel bands (Slaney scale and normalisation): nine tenths of it are zeros."""
    from torchaudio.functional import melscale_fbanks

    bank = melscale_fbanks(fe.n_fft // 2 + 1, 0.0, fe.f_max, fe.n_mels, fe.sample_rate, "slaney", "slaney")
    return csr_array(bank.numpy().T)


def mel_frequencies(fe: FrontEnd) -> np.ndarray:
    """(mel,) centre frequency of every band in Hz (Slaney scale)."""
    import librosa

    return librosa.mel_frequencies(fe.n_mels + 2, fmin=0.0, fmax=fe.f_max)[1:-1]


def log_mel(wave: Tensor, fe: FrontEnd) -> Tensor:
    """(mel, frame) log-mel powers of (samples,), dB re full scale, at least -100: librosa's values (notebook 01)."""
    import torch

    window, bank, parts = torch.hann_window(fe.n_fft), mel_bank(fe), []
    frames = torch.nn.functional.pad(wave, (fe.n_fft // 2,) * 2).unfold(0, fe.n_fft, fe.hop)  # (frame, sample)
    for some in frames.split(FRAMES):
        power = torch.view_as_real(torch.fft.rfft(some * window)).square_()  # (frame, bin, 2)
        parts.append(bank @ (power[..., 0] + power[..., 1]).numpy().T)
    return torch.from_numpy(np.concatenate(parts, axis=1)).clamp_min_(FLOOR).log10_().mul_(10.0)


def level_and_tilt(db: np.ndarray) -> tuple[float, float]:
    """Level and tilt (lowest to highest band) in dB of a (mel, frame) clip: of the line through its mean spectrum."""
    x = np.linspace(-0.5, 0.5, db.shape[0])
    spectrum = db.mean(1)
    return float(spectrum.mean()), float(spectrum @ x / (x @ x))


@dataclass(frozen=True)
class Scaler(JsonConfig):
    """Affine map from dB to [0, 1], fitted on training clips and stored with the model."""

    low_db: float  # becomes 0; what lies below is clipped
    high_db: float  # becomes 1
    # Remove each clip's loudness and spectral tilt (a line over the mel bands) first: helps clustering, erases factors
    detilt: bool = False

    @classmethod
    def fit(cls, db: np.ndarray, level: np.ndarray, tilt: np.ndarray, detilt: bool = False) -> Scaler:
        """Fit on (clip, mel, frame) dB of training clips: the 99.9th percentile and at most 80 dB below it."""
        values = np.asarray(db, np.float32)
        values = values - _line(values.shape[-2], level, tilt) if detilt else values
        low, high = np.percentile(values, [0.5, 99.9])
        return cls(float(max(low, high - RANGE_DB)), float(high), detilt)

    def transform(self, db: np.ndarray, level: np.ndarray, tilt: np.ndarray) -> np.ndarray:
        """(clip, mel, frame) dB → the same shape in [0, 1], float32."""
        db = np.asarray(db, np.float32)
        db = db - _line(db.shape[-2], level, tilt) if self.detilt else db
        return np.clip((db - self.low_db) / (self.high_db - self.low_db), 0, 1)

    def inverse(self, x: np.ndarray, level: float = 0.0, tilt: float = 0.0) -> np.ndarray:
        """(…, mel, frame) in [0, 1] → dB; `level` and `tilt` of a clip put back what `detilt` removed."""
        db = np.asarray(x, np.float32) * (self.high_db - self.low_db) + self.low_db
        return db + _line(db.shape[-2], level, tilt) if self.detilt else db


def _line(n_mels: int, level: np.ndarray | float, tilt: np.ndarray | float) -> np.ndarray:
    x = np.linspace(-0.5, 0.5, n_mels, dtype=np.float32)[:, None]
    return np.asarray(level, np.float32)[..., None, None] + np.asarray(tilt, np.float32)[..., None, None] * x


def to_sound(db: np.ndarray, fe: FrontEnd, iterations: int = 100) -> np.ndarray:
    """(samples,) float32, peak 0.9: a listenable guess of the waveform behind a (mel, frame) spectrogram in dB.

    Multiplicative updates for the Kullback-Leibler divergence (Lee & Seung 2001) back to a linear spectrogram (in a
    hundredth of the time of librosa's non-negative least squares, and nearer), then torchaudio's Griffin-Lim phases.
    """
    import torch
    from torchaudio.functional import griffinlim

    mel, bank = np.power(10.0, np.clip(np.asarray(db, np.float32), -100, 60) / 10).astype(np.float32), mel_bank(fe)
    back, audible = csr_array(bank.T), np.maximum(bank.sum(axis=0), FLOOR)[:, None]
    linear = np.full((bank.shape[1], mel.shape[1]), mel.mean(), np.float32)  # (bin, frame) powers
    for _ in range(iterations):
        linear *= back @ (mel / np.maximum(bank @ linear, FLOOR)) / audible
    magnitude, window = torch.from_numpy(np.sqrt(linear)), torch.hann_window(fe.n_fft)
    with torch.random.fork_rng(devices=[]):  # the first phases are drawn at random
        torch.manual_seed(0)
        how = {"power": 1.0, "n_iter": 32, "momentum": 0.99, "length": None, "rand_init": True}
        wave = griffinlim(magnitude, window, fe.n_fft, fe.hop, fe.n_fft, **how).numpy()
    return (0.9 * wave / max(np.abs(wave).max(), FLOOR)).astype(np.float32)
