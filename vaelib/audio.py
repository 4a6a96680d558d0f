"""Sound files to log-mel spectrograms and back: decoding, the front end, scaling to [0, 1], Griffin-Lim.

Notebook 01 explains and plays every step. Torches and PyAV are imported where they compute: the rest starts faster.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soundfile
from scipy.sparse import csr_array

from .config import FrontEnd, InputError, JsonConfig

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream
    from torch import Tensor

# What is looked for in folders: all that is called sound or video. Whether it can be read, the content decides.
SUFFIXES = (
    "3g2 3ga 3gp aa aac aax ac3 adts aif aifc aiff amr ape asf at3 au avi awb caf dff dsf dts eac3 f4a flac flv gsm "
    "iff m2ts m4a m4b m4p m4r m4v mid midi mka mkv mlp mov mp+ mp1 mp2 mp3 mp4 mpa mpc mpeg mpg mpga mpp oga ofr ogg "
    "ogm ogv oma opus qcp ra rf64 rm sd2 shn snd sph spx tak thd ts tta vob voc vox w64 wav wave weba webm wma wmv wv"
)
AUDIO_SUFFIXES = tuple(f".{suffix}" for suffix in SUFFIXES.split())
# Formats that hold their own sound. Not play lists: one that is named .m4a would make FFmpeg open other files.
FFMPEG = {
    "protocol_whitelist": "file",
    "ignore_length": "1",  # of WAV
    "format_whitelist": "aac,ac3,aiff,amr,ape,asf,ast,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,iff,loas,matroska,mlp,mov,"
    "mp3,mpc,mpc8,mpeg,mpegts,nistsphere,ogg,oma,qcp,rm,shn,tak,truehd,tta,voc,vqf,w64,wav,wv",
}
GUESSED = ("aac", "ac3", "amr", "dts", "eac3", "loas", "mp3", "mpegts")  # their length is a guess from the bit rate
PADDING = 4 * 1152  # samples that an encoder may add
CHUNK = re.compile(rb"[\w ]{4}")  # begins what may follow the samples of a WAV; else these go on

FLOOR = 1e-10  # power below which everything is silence: -100 dB
RANGE_DB = 80.0  # dynamic range that the scaling keeps
SHORT_BY = 0.02  # a clip may lack this share of a window (a 30-s file is often a few samples short); zeros fill it
SILENT = 1e-5  # amplitude of a clip that holds nothing: -100 dBFS
FULL_SCALE, LOUDEST = 0.999, 2.0  # samples beyond are counted as clipped; are no levels (+6 dBFS), but of another scale
CANCELLED = 0.05  # power of the mean of channels that cancel each other, of what it is where they are independent
BLOCK_S, BLOCK_SILENT = 0.05, 1e-3  # a block of 50 ms whose root mean square is below -60 dBFS is silent
SEGMENT_S = 30.0  # longer files are cut into pieces of this length
FRAMES = 256  # transformed at a time: what fits in a cache
MOST_RATIO = 4000  # phases of a resampling filter; rates without a common divisor would need gigabytes, soxr does not


class UnreadableAudio(InputError):
    """A file that cannot be used; the message is the reason written to `rejected.csv`."""


class Header(NamedTuple):
    """What a file holds."""

    seconds: float  # that can be decoded
    rate: int  # Hz
    channels: int
    format: str  # container or codec: FLAC, MP3, AAC, …
    lost: float  # seconds that the file says it holds beyond those: it was cut off


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn what decoders raise, of many kinds, into UnreadableAudio."""
    try:
        yield
    except InputError:
        raise
    except Exception as e:
        text = str(getattr(e, "error_string", None) or getattr(e, "strerror", None) or e or "no audio")
        text = text.replace("Invalid argument", "no known format").splitlines()[-1].strip(" .:")[:120]
        raise UnreadableAudio(f"cannot be decoded as audio ({text}); convert it to FLAC or WAV") from e


@_reasons()
def header(path: Path) -> Header:
    """Length, rate, channels and format of a sound file, by its content, whatever its suffix.

    UnreadableAudio: it is not there, nothing that libsndfile or FFmpeg decode, or its samples are no levels.
    """
    with closing(_open(*_identify(path))) as sound:
        frames = sound.frames
        if sound.subtype in ("FLOAT", "DOUBLE"):
            frames, peak = 0, 0.0
            while len(block := sound.read(1 << 18, dtype="float32", always_2d=True)):
                frames += len(block)
                peak = max(peak, np.abs(block[np.isfinite(block)]).max(initial=0.0))
            _check_peak(peak)
        codec = sound.subtype if sound.format == "OGG" else sound.format  # Ogg holds Vorbis, Opus, …
        lost = getattr(sound, "claimed", 0.0) - (seconds := frames / sound.samplerate)
        return Header(seconds, sound.samplerate, sound.channels, codec, lost if lost > 0.02 * seconds + 0.1 else 0.0)


_thread = threading.local()  # its `open`: the file that this thread read last, after what identifies it


@_reasons()
def samples(path: Path, start: float = 0.0, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """(samples, channels) float32 of `seconds` of a file (None: all that is left) from `start` on, full scale 1; Hz."""
    key = _identify(path)
    known, sound = _thread.__dict__.pop("open", (None, None))  # put back if all goes well
    if known != key or sound.tell() > round(start * sound.samplerate):
        sound = _open(*key)
    first = min(round(start * sound.samplerate), sound.frames)
    # FFmpeg, and a decoder of MP3, cannot jump well: from front to back, and left open for the next part
    if forwards := sound.format == "MP3" or isinstance(sound, _Track):
        sound.seekable = lambda: False  # else soundfile jumps to where it is after every read
        while (gap := first - sound.tell()) > 0 and len(sound.read(min(gap, 1 << 20), dtype="float32")):
            pass
    else:
        sound.seek(first)
    count = max(sound.frames - sound.tell(), 0) if seconds is None else round(seconds * sound.samplerate)
    data = sound.read(count, dtype="float32", always_2d=True)
    if forwards:
        _thread.open = (key, sound)
    return data, sound.samplerate


def _identify(path: Path) -> tuple[Path, int, int]:
    if not os.access(path, os.R_OK):
        raise UnreadableAudio("is not there, or may not be read; correct the manifest or the permissions")
    if (about := path.stat()).st_size == 0:
        raise UnreadableAudio("is empty (0 bytes); copy it again")
    return path, about.st_mtime_ns, about.st_size


def _open(path: Path, *version: int) -> soundfile.SoundFile | _Track:
    # without a name, or some suffixes would be formats
    return soundfile.SoundFile(os.open(path, os.O_RDONLY)) if _is_whole(path, *version) else _Track(path)


@lru_cache(maxsize=1 << 16)
def _is_whole(path: Path, *version: int) -> bool:
    """Whether libsndfile reads a file to its end: the header's length may be unknown, a guess, or that of a part."""
    try:
        file = os.open(path, os.O_RDONLY)
        with soundfile.SoundFile(file) as sound:
            if sound.format in ("MP3", "OGG"):  # may be cut anywhere, or hold one stream after the other
                stream = _stream(path, sound.format.lower())
                with stream.container as container:
                    ticks = sum(packet.duration or 0 for packet in container.demux(stream))
                more = sound.frames - ticks * stream.time_base * sound.samplerate  # than FFmpeg finds
                if more < -PADDING or sound.format == "MP3":  # a jump would make its decoder complain
                    return abs(more) <= PADDING
            sound.seek(sound.frames - 1)
            last, after = sound.read(1), os.read(file, 5).lstrip(b"\0")
            if sound.format == "FLAC":  # a second stream may follow, in which a jump may end
                os.lseek(file, 0, os.SEEK_SET)
                streams = sum(block.count(b"fLaC") for block in iter(lambda: os.read(file, 1 << 20), b""))
                return len(last) == 1 and not after and streams == 1
            return len(last) == 1 and ("WAV" not in sound.format or not after or bool(CHUNK.match(after)))
    except Exception:  # of many kinds
        return False


def _stream(path: Path, container: str | None = None) -> AudioStream:
    import av

    with path.open("rb") as file:
        kind, size, form = file.read(4), file.read(4), file.read(4)
        length = int.from_bytes(size, "little" if kind == b"RIFF" else "big")
        file.seek(8 + length + length % 2)
        if kind in (b"RIFF", b"FORM") and file.read(4) == kind and file.read(8)[4:] == form:
            raise UnreadableAudio("holds several recordings, of which programs play the first; cut it into files")
    file = av.open(f"file:{path}", format=container, options=FFMPEG, metadata_errors="ignore")
    stream = next(iter(file.streams.audio), None)
    codec = stream and stream.codec_context
    if codec and not ("mp4" in file.format.name and codec.codec_tag in ("drms", "drmi", "enca", "aavd")):
        return stream
    file.close()
    if stream:
        raise UnreadableAudio("is copy-protected, or coded as no decoder knows; convert it where it can be played")
    raise UnreadableAudio("has no audio track; leave it out")


class _Track:
    """The first sound track of a file, decoded by FFmpeg from front to back; it reads like a `SoundFile`."""

    frames, subtype = 1 << 62, "FLOAT"  # how many there are is not known before the end

    def __init__(self, path: Path) -> None:
        import av

        self._stream, self._at, self._fifo = _stream(path), 0, av.AudioFifo()
        file = self._stream.container
        self.claimed = 0.0 if file.format.name in GUESSED else (file.duration or 0) / av.time_base  # seconds
        self._frames = self._decode()
        if (first := next(self._frames, None)) is None:
            raise ValueError("no sound in it")
        self._fifo.write(first)
        self.samplerate, self.channels = first.sample_rate, len(first.layout.channels)
        self.format = self._stream.codec_context.codec.canonical_name.upper()
        self.tell, self.close = lambda: self._at, self._stream.container.close

    def _decode(self) -> Iterator[AudioFrame]:
        import av

        to_float, good, bad = av.AudioResampler("flt"), 0, 0
        with self._stream.container as container:
            packets = container.demux(self._stream)
            while packet := next(packets, None):
                try:
                    frames = packet.decode()
                except (av.InvalidDataError, av.ArgumentError):
                    bad += 1
                    continue
                for part in (part for frame in frames for part in to_float.resample(frame)):
                    part.pts = None  # sound is where it stands, whatever the file says
                    yield part
                good += len(frames)
        if bad > good:
            raise ValueError("most of it is damaged")

    def read(self, count: int, **how: object) -> np.ndarray:
        """The next `count` samples (samples, channels) float32, or as many as there are."""
        while self._fifo.samples < count and (frame := next(self._frames, None)):
            self._fifo.write(frame)
        count = min(count, self._fifo.samples)
        self._at += count
        return self._fifo.read(count).to_ndarray().reshape(-1, self.channels) if count else np.zeros((0, self.channels))


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
    rest = seconds - pieces[-1][0] - length
    if step > length or rest < 1e-3:
        return pieces
    return [*pieces[:-1], (pieces[-1][0], None)] if rest <= 0.1 * length else [*pieces, (seconds - length, None)]


def frames_of(seconds: float, fe: FrontEnd) -> int:
    """Frames that a clip of so many seconds will have."""
    return max(math.ceil(seconds * fe.sample_rate - 1e-6), fe.min_samples) // fe.hop + 1


def read(path: Path, fe: FrontEnd, start: float = 0.0, seconds: float | None = None) -> tuple[Tensor, Levels]:
    """Decode a file, or a part of it, to mono (samples,) float32 at the front end's rate, and measure it.

    Zeros fill what lacks a hair of one window. UnreadableAudio says why a sound cannot be used.
    """
    import librosa
    import torch
    from torchaudio.functional import resample

    data, rate = samples(path, start, seconds)
    peak = float((loud := np.abs(data)).max(initial=0.0))
    if not math.isfinite(peak):
        raise UnreadableAudio("holds NaN or infinite samples; export it again")
    _check_peak(peak)
    wave, channels = data[:, 0], data.shape[1]
    if channels > 1 and len(data):
        wave = data.mean(1)
        unlike = data.var(0).sum() / channels**2  # power if they were independent
        if unlike > SILENT**2 and wave.var() < CANCELLED * unlike:
            raise UnreadableAudio("has channels that cancel each other; export one of them as a mono file")
    if max(rate, fe.sample_rate) // math.gcd(rate, fe.sample_rate) > MOST_RATIO:
        wave = librosa.resample(wave, orig_sr=rate, target_sr=fe.sample_rate, fix=False)  # soxr's
    elif rate != fe.sample_rate:
        wave = resample(torch.from_numpy(wave), rate, fe.sample_rate).numpy()
    _check_length(len(wave) / fe.sample_rate, fe)
    if np.ptp(wave) < 2 * SILENT:
        raise UnreadableAudio("is silent (peak below -100 dBFS); remove it or replace it")
    block = int(BLOCK_S * fe.sample_rate)
    power = np.square(wave[: len(wave) // block * block]).reshape(-1, block).mean(1)
    clipped, silent = np.count_nonzero(loud >= FULL_SCALE) / loud.size, float(np.mean(power < BLOCK_SILENT**2))
    levels = Levels(peak, clipped, silent, 10 * math.log10(max(power.mean(), FLOOR)))
    short = fe.min_samples - len(wave)
    return torch.from_numpy(np.pad(wave, (0, short)) if short > 0 else wave), levels


def load(path: Path, fe: FrontEnd, start: float = 0.0, seconds: float | None = None) -> Tensor:
    """The waveform of `read`."""
    return read(path, fe, start, seconds)[0]


def _check_length(seconds: float, fe: FrontEnd) -> None:
    window = fe.min_samples / fe.sample_rate
    if seconds < (1 - SHORT_BY) * window - 1e-6:
        raise UnreadableAudio(f"is too short: {seconds:.2f} s, one {fe.name!r} window is {window:.2f} s; leave it out")


def _check_peak(peak: float) -> None:
    if peak > LOUDEST:
        raise UnreadableAudio(f"holds samples up to {peak:,.0f}, where 1 is full scale; divide them, or export 16 bits")


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
        squares = torch.view_as_real(torch.fft.rfft(some * window)).square_().permute(2, 1, 0)  # (2, bin, frame)
        power = torch.empty(squares.shape[1:])  # in this order of memory, which the product needs
        parts.append(bank @ torch.add(*squares, out=power).numpy())
    return torch.from_numpy(np.concatenate(parts, axis=1)).clamp_min_(FLOOR).log10_().mul_(10.0)


def level_and_tilt(db: np.ndarray) -> tuple[float, float]:
    """Level and tilt (lowest to highest band) in dB of a (mel, frame) clip: of the line through its mean spectrum."""
    x, spectrum = np.linspace(-0.5, 0.5, db.shape[0]), db.mean(1)
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
        values = np.asarray(db, np.float32) - cls(0, 1, detilt)._line(db, level, tilt)
        low, high = np.percentile(values, [0.5, 99.9])
        return cls(float(max(low, high - RANGE_DB)), float(high), detilt)

    def transform(self, db: np.ndarray, level: np.ndarray, tilt: np.ndarray) -> np.ndarray:
        """(clip, mel, frame) dB → the same shape in [0, 1], float32."""
        db = np.asarray(db, np.float32) - self._line(db, level, tilt)
        return np.clip((db - self.low_db) / (self.high_db - self.low_db), 0, 1)

    def inverse(self, x: np.ndarray, level: float = 0.0, tilt: float = 0.0) -> np.ndarray:
        """(…, mel, frame) in [0, 1] → dB; `level` and `tilt` of a clip put back what `detilt` removed."""
        return np.asarray(x, np.float32) * (self.high_db - self.low_db) + self.low_db + self._line(x, level, tilt)

    def _line(self, db: np.ndarray, level: np.ndarray | float, tilt: np.ndarray | float) -> np.ndarray | float:
        if not self.detilt:
            return 0.0
        level, tilt = (np.asarray(v, np.float32)[..., None, None] for v in (level, tilt))
        return level + tilt * np.linspace(-0.5, 0.5, db.shape[-2], dtype=np.float32)[:, None]


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
        wave = griffinlim(magnitude, window, fe.n_fft, fe.hop, fe.n_fft, 1.0, 32, 0.99, None, rand_init=True).numpy()
    return (0.9 * wave / max(np.abs(wave).max(), FLOOR)).astype(np.float32)
