"""Audio files: what a header says, samples of any part of a file, and a sentence for each file that cannot be used.

libsndfile reads most formats; AAC and WMA go through the ffmpeg program where it is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .config import InputError

FFMPEG_SUFFIXES = (".m4a", ".aac", ".mp4", ".wma")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", *FFMPEG_SUFFIXES)
# Containers that may be opened: a play list that is named .m4a could make ffmpeg read other files, or the network.
FFMPEG = ["-v", "error", "-format_whitelist", "mov,aac,asf", "-protocol_whitelist", "file,pipe"]
PATIENCE = 120  # seconds that ffmpeg may take for one header or one part of a file
SKIP = 1 << 20  # samples that are decoded and dropped at a time
CONVERT = "convert it to FLAC or WAV"


class UnreadableAudio(InputError):
    """A file that cannot be used; the message is the reason written to `rejected.csv`."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        seconds: Length; of a damaged file perhaps more than can be decoded.
        rate: Sample rate, Hz.
        channels: How many.
        format: Container or codec, e.g. `FLAC`, `MP3`, `AAC`.
    """

    seconds: float
    rate: int
    channels: int
    format: str


def header(path: Path) -> Header:
    """Read the header of an audio file.

    Raises:
        UnreadableAudio: no such file, not audio, or a format that needs ffmpeg where there is none.
    """
    import soundfile

    if path.suffix.lower() in FFMPEG_SUFFIXES:
        return _ffprobe(path)
    try:
        info = soundfile.info(str(path))
    except Exception as e:
        raise UnreadableAudio(_reason(path, str(e))) from e
    codec = info.subtype if info.format == "OGG" else info.format  # Ogg holds Vorbis, Opus, …
    name = "MP3" if codec == "MPEG" or "LAYER_III" in info.subtype else codec
    return Header(info.frames / info.samplerate, info.samplerate, info.channels, name)


def samples(path: Path, start: float = 0.0, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Decode a file or a part of it.

    Args:
        start: Where the part begins, seconds.
        seconds: How long it is; None: to the end.

    Returns:
        (samples, channels) float32, full scale is 1; and the rate in Hz.

    Raises:
        UnreadableAudio: it cannot be decoded.
    """
    import soundfile

    if path.suffix.lower() in FFMPEG_SUFFIXES:
        return _ffmpeg(path, start, seconds)
    try:
        if not start and seconds is None:
            return soundfile.read(str(path), dtype="float32", always_2d=True)
        if path.suffix.lower() == ".mp3":
            return _played_on(path, start, seconds)
        with soundfile.SoundFile(str(path)) as f:
            f.seek(min(round(start * f.samplerate), f.frames))
            count = -1 if seconds is None else round(seconds * f.samplerate)
            return f.read(count, dtype="float32", always_2d=True), f.samplerate
    except Exception as e:
        raise UnreadableAudio(_reason(path, str(e))) from e


_played = threading.local()


def _played_on(path: Path, start: float, seconds: float | None) -> tuple[np.ndarray, int]:
    """A part of an MP3, decoded from front to back: its decoder answers a jump with complaints on the terminal.

    The file stays open, so that whoever reads one part after the other decodes it once.
    """
    import soundfile

    class Stream(soundfile.SoundFile):
        def seekable(self) -> bool:
            return False  # else soundfile jumps to where it is after every read

    about = path.stat()
    key = (path, about.st_mtime_ns, about.st_size)
    known, f, at = getattr(_played, "last", (None, None, 0))
    first = round(start * f.samplerate) if known == key else 0
    if known != key or at > first:
        if f is not None:
            f.close()
        f, at = Stream(str(path)), 0
        first = round(start * f.samplerate)
    _played.last = (None, f, 0)  # where a fault leaves it is not known
    while gap := min(first, f.frames) - at:
        at += (got := len(f.read(min(gap, SKIP), dtype="float32")))
        if not got:
            break
    count = max(f.frames - at, 0) if seconds is None else round(seconds * f.samplerate)
    data = f.read(count, dtype="float32", always_2d=True)
    _played.last = (key, f, at + len(data))
    return data, f.samplerate


def _ffprobe(path: Path) -> Header:
    entries = "stream=sample_rate,channels,codec_name,duration:format=duration"
    asked = ["-select_streams", "a:0", "-show_entries", entries, "-of", "json"]
    told = json.loads(_run("ffprobe", [*asked, f"file:{path}"], path) or b"{}")
    try:
        stream = told["streams"][0]
        seconds = stream.get("duration") or told["format"]["duration"]
        return Header(float(seconds), int(stream["sample_rate"]), int(stream["channels"]), stream["codec_name"].upper())
    except (KeyError, IndexError, ValueError) as e:
        raise UnreadableAudio(f"has no audio track that ffmpeg can read; {CONVERT}") from e


def _ffmpeg(path: Path, start: float, seconds: float | None) -> tuple[np.ndarray, int]:
    about = _ffprobe(path)
    part = ["-ss", f"{start:.6f}"] * bool(start) + (["-t", f"{seconds:.6f}"] if seconds is not None else [])
    out = ["-map", "0:a:0", "-ar", str(about.rate), "-ac", str(about.channels), "-f", "f32le", "pipe:1"]
    raw = _run("ffmpeg", ["-nostdin", *part, "-i", f"file:{path}", *out], path)
    whole = len(raw) - len(raw) % (4 * about.channels)
    return np.frombuffer(bytearray(raw[:whole]), "<f4").reshape(-1, about.channels), about.rate


def _run(program: str, arguments: list[str], path: Path) -> bytes:
    if not os.access(path, os.R_OK) or path.stat().st_size == 0:
        raise UnreadableAudio(_reason(path, ""))
    if shutil.which(program) is None:
        raise UnreadableAudio(f"is {path.suffix[1:].upper()}, which needs ffmpeg: install ffmpeg, or {CONVERT}")
    try:
        done = subprocess.run([program, *FFMPEG, *arguments], capture_output=True, timeout=PATIENCE, check=True)
    except subprocess.TimeoutExpired as e:
        raise UnreadableAudio(f"took {program} more than {PATIENCE} s; {CONVERT}") from e
    except subprocess.CalledProcessError as e:
        raise UnreadableAudio(_reason(path, e.stderr.decode(errors="replace").replace(f"file:{path}", ""))) from e
    return done.stdout


def _reason(path: Path, error: str) -> str:
    if not path.exists():
        return "is not there; correct the manifest"
    if not os.access(path, os.R_OK):
        return "may not be read; change its permissions"
    if path.stat().st_size == 0:
        return "is empty (0 bytes); copy it again"
    said = "".join(c if c.isprintable() else " " for c in (error.strip() or "no audio").splitlines()[-1])
    if "not a regular file" in said:  # libsndfile's word for what it does not know
        said = "it is no audio"
    return f"cannot be decoded as audio ({said.replace(str(path), '…').strip(' :')[:120]}); {CONVERT}"
