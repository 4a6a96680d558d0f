"""One clip: a score played through the SoundFont, sung, mixed, and written as FLAC with its manifest row inside."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from scipy import fft

from vaelib.config import InputError
from vaelib_demo.compose import Chance, Score, compose
from vaelib_demo.factors import draw_factors
from vaelib_demo.tables import load_tables
from vaelib_demo.voice import RATE, Bank, load_bank, sing

BLOCK = 64  # samples; tinysoundfont's own block, so that events fall between its blocks
STEMS = {"drums": (), "bass": ("bass",), "chords": ("comp", "pad"), "lead": ("lead",), "voice": ()}  # parts of each
DRUMS = 128  # the General-MIDI drum bank
DESK_GENRE = "english_house"  # whose loop lies on the desk


@dataclass(frozen=True)
class Clip:
    """A clip to render: where, what, and the factors drawn for it."""

    folder: Path
    demo: str
    genre: str
    number: int
    factors: dict[str, float | int | str]
    seconds: float
    seed: int
    composition: float

    @property
    def path(self) -> Path:
        """Relative to the corpus folder."""
        language = load_tables().genres[self.genre].language
        return Path("audio", language, self.genre, f"{self.genre}_{self.number:04d}.flac")

    @property
    def samples(self) -> int:
        """A little more than `seconds`, so that the last centred frame of a spectrogram is whole."""
        return math.ceil(self.seconds * RATE) + 64


class Player:
    """tinysoundfont with the General-MIDI SoundFont of the pretty_midi package; one per process.

    Raises:
        InputError: One of the two packages is missing.
    """

    def __init__(self) -> None:
        spec = importlib.util.find_spec("pretty_midi")
        try:
            import tinysoundfont
        except ImportError as e:
            raise InputError(f"the demo corpus needs tinysoundfont (the extra `synth`): {e}") from e
        if spec is None:
            raise InputError("the demo corpus needs the package pretty_midi for its SoundFont: install it")
        self.synth = tinysoundfont.Synth(samplerate=RATE)
        self.id = self.synth.sfload(str(Path(spec.origin).with_name("TimGM6mb.sf2")), max_voices=96)
        self.font = self.synth.soundfonts[self.id]
        self.font.set_output(tinysoundfont._tinysoundfont.OutputMode.Mono, RATE, 0.0)

    def play(self, score: Score, kit: int, total: int) -> np.ndarray:
        """(total,) float32 of all notes and hits; a channel has one tuning, so that chords may hold quarter tones."""
        self._reset()
        channels: dict[tuple[int, int, float], int] = {}
        events: list[tuple[int, int, int, int, int]] = []  # (block, on, channel, key, velocity)
        for note in score.notes:
            key = round(note.cents / 100)
            bend = round(note.cents - 100 * key)
            channel = channels.setdefault((note.program, bend, note.gain_db), len(channels) + 1)
            first, last = (round(t * RATE / BLOCK) for t in (note.start, note.start + note.length))
            events.append((first, 1, channel, key, _velocity(note.velocity)))
            events.append((max(last, first + 1), 0, channel, key, 0))
        for start, key, velocity in score.hits:
            events.append((round(start * RATE / BLOCK), 1, 0, key, _velocity(velocity)))
        self.synth.program_select(0, self.id, DRUMS, kit, True)
        self.font.channel_set_volume(0, 10 ** (score.drums_db / 20))
        for (program, bend, gain_db), channel in channels.items():
            self.synth.program_select(channel, self.id, 0, program)
            self.synth.pitchbend(channel, 8192 + round(bend / 200 * 8192))  # of a range of two semitones
            self.font.channel_set_volume(channel, 10 ** (gain_db / 20))
        return self._run(sorted(events), total)

    def _run(self, events: list[tuple[int, int, int, int, int]], total: int) -> np.ndarray:
        sound, now = np.zeros(-(-total // BLOCK) * BLOCK, np.float32), 0
        view = memoryview(sound).cast("B")
        for block, on, channel, key, velocity in [*events, (len(sound) // BLOCK, 0, 0, 0, 0)]:
            at = min(block * BLOCK, len(sound))
            if at > now:
                self.font.render(view[4 * now : 4 * at], False)
                now = at
            if on:
                self.synth.noteon(channel, key, velocity)
            else:
                self.synth.noteoff(channel, key)
        return sound[:total]

    def _reset(self) -> None:
        """Nothing of the last clip may sound in the next: channels are forgotten, quick releases run out."""
        self.font.reset()
        self.synth.channel.clear()
        self.font.render(memoryview(bytearray(4 * RATE // 2)), False)


def _velocity(level: float) -> int:
    return int(np.clip(round(100 * level), 1, 127))


# -- one clip

_state: tuple[Player, Bank] | None = None


def start_worker(bank: Path | None) -> None:
    """Load SoundFont and voices once per process."""
    global _state
    _state = Player(), load_bank(bank) if bank else {}


def render_clip(clip: Clip) -> dict[str, str | float | int]:
    """Render one clip and return its manifest row; a finished file is kept and its row read from it."""
    target = clip.folder / clip.path
    if (row := read_row(target, clip.samples)) is not None:
        return row
    sound, row = (mix if clip.demo == "desk" else perform)(clip)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.partial")
    try:
        with soundfile.SoundFile(temporary, "w", RATE, 1, format="FLAC", subtype="PCM_16") as f:
            f.comment = json.dumps(row, ensure_ascii=False)
            f.write(np.round(sound * 32767).astype(np.int16))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return row


def read_row(path: Path, samples: int) -> dict[str, str | float | int] | None:
    """The manifest row inside a finished clip; None if there is no such file or it is not whole."""
    if not path.exists():
        return None
    try:
        with soundfile.SoundFile(path) as f:
            f.seek(samples - 1)  # a truncated file has the right header, but no last sample
            return json.loads(f.comment) if f.frames == samples and len(f.read(1)) else None
    except (soundfile.LibsndfileError, json.JSONDecodeError):
        return None


def perform(clip: Clip) -> tuple[np.ndarray, dict[str, str | float | int]]:
    """The clip's sound (samples,) in (−1, 1) from beat 0 on, and its manifest row."""
    stems, score, texts = _stems(clip)
    voice = stems.pop("voice")
    band, active = sum(stems.values()), _active(voice)
    if active.any():
        voice = voice * _rms(band) / _rms(voice[active]) * 10 ** (clip.factors["vocal_level"] / 20)
    row = _row(clip) | {
        "bpm": round(score.bpm, 4),
        "vocal_active_share": round(float(active.mean()), 4),
        "phrases": " | ".join(texts),
        "seed": f"{clip.seed}-{load_tables().genres[clip.genre].index}-{clip.number}",
    }
    return master(band + voice, clip.factors), row


def mix(clip: Clip) -> tuple[np.ndarray, dict[str, str | float | int]]:
    """A mix of the desk (samples,) in (−1, 1), its stems at the levels of the clip's factors, and its manifest row.

    Nothing comes after the faders: a level that is mastered away could not be learned.
    """
    stems = desk_stems(clip.seconds, clip.seed)
    return sum(10 ** (clip.factors[name] / 20) * stem for name, stem in stems.items()), _row(clip)


@lru_cache(maxsize=1)
def desk_stems(seconds: float, seed: int) -> dict[str, np.ndarray]:
    """The desk's stems (samples,) at 0 dB: of equal RMS, and such that all of them at their highest do not clip.

    Raises:
        InputError: a stem is silent, as the voice is without espeak-ng.
    """
    tables = load_tables()
    factors = draw_factors(tables.genres[DESK_GENRE], tables, 1, 0.0, seed)[0]
    stems, _, _ = _stems(Clip(Path(), "desk", DESK_GENRE, 0, factors, seconds, seed, 0.0), apart=True)
    if silent := [name for name, stem in stems.items() if not _rms(stem)]:
        raise InputError(
            f"the desk has no {', '.join(silent)}: its voice needs the package espeakng-loader, install it"
        )
    stems = {row.factor: stems[row.factor] / _rms(stems[row.factor]) for row in tables.desk}
    highest = {row.factor: 10 ** (row.high / 20) for row in tables.desk}
    loudest = sum(highest[name] * np.abs(stem) for name, stem in stems.items()).max()
    return {name: 0.98 / loudest * stem for name, stem in stems.items()}


def _row(clip: Clip) -> dict[str, str | float | int]:
    genre = load_tables().genres[clip.genre]
    labels = {"language": genre.language, "genre": genre.name, "family": genre.family}
    return {"path": clip.path.as_posix(), **labels, **clip.factors}


def _stems(clip: Clip, apart: bool = False) -> tuple[dict[str, np.ndarray], Score, list[str]]:
    """Sounds (samples,) of the band and of the voice, or of each of `STEMS`; the score, and the words that are sung."""
    if _state is None:
        raise RuntimeError("start_worker has not run in this process")
    player, bank = _state
    tables = load_tables()
    genre, factors, total = tables.genres[clip.genre], clip.factors, clip.samples
    chance = Chance(clip.seed, genre.index, clip.number, clip.composition)
    score = compose(genre, factors, tables, total / RATE, chance)

    def play(name: str) -> np.ndarray:
        notes = [n for n in score.notes if n.part in STEMS[name]]
        part = Score(score.bpm, score.drums_db, notes, score.hits if name == "drums" else [])
        return player.play(part, genre.kit, total).astype(np.float64)

    band = [name for name in STEMS if name != "voice"]
    stems = (
        {name: play(name) for name in band} if apart else {"band": player.play(score, genre.kit, total).astype(float)}
    )
    stems["voice"], texts = np.zeros(total), []
    for i, notes in enumerate(score.sung if bank else ()):
        singer = bank[genre.language, factors["voice"]]
        sung, said = sing(notes, genre.vocal, singer, total, chance.stream("words", i))
        stems["voice"], texts = stems["voice"] + sung, texts + said
    return stems, score, texts


def master(mix: np.ndarray, factors: dict) -> np.ndarray:
    """Room, tilt and high-pass as one product of spectra, then the level that `energy` asks for, softly limited.

    Args:
        mix: (n,) at any level.
        factors: `room`, `brightness` and `energy` are used.

    Returns:
        (n,) within (−1, 1); RMS from −27 dBFS (energy 0) to about −15 dBFS (energy 1).
    """
    room = _room(factors["room"])
    size = fft.next_fast_len(len(mix) + len(room), real=True)
    f = fft.rfftfreq(size, 1 / RATE)
    tilt = (np.clip(f, 60, 9000) / 1000) ** (factors["brightness"] * 3 / (20 * np.log10(2)))
    high_pass = f**4 / (f**4 + 35.0**4)
    wet = fft.irfft(fft.rfft(mix, size) * (1 + fft.rfft(room, size)) * tilt * high_pass, size)[: len(mix)]
    wet *= 10 ** ((-27 + 12 * factors["energy"]) / 20) / max(_rms(wet), 1e-9)
    drive = 1 + factors["energy"]
    limited = np.tanh(drive * wet) / drive
    return 0.98 * (limited - limited.mean())


def _room(amount: float) -> np.ndarray:
    """Impulse response of the reflections: noise that decays by 60 dB in 0.25 to 2.2 s, always the same noise."""
    decay = 0.25 + 1.95 * amount
    n = round(decay * RATE)
    noise = np.random.default_rng(0).standard_normal(round(2.2 * RATE))[:n]
    noise *= 10 ** (-3 * np.arange(n) / n)
    noise[: RATE // 100] = 0  # the direct sound comes first
    return noise * (0.05 + 0.95 * amount) / np.sqrt((noise**2).sum())


def _active(voice: np.ndarray) -> np.ndarray:
    """(n,) where the voice is heard: 20-ms frames within 35 dB of its loudest."""
    frame = RATE // 50
    power = np.add.reduceat(voice**2, np.arange(0, len(voice), frame))
    return np.repeat(power > power.max() * 10**-3.5, frame)[: len(voice)]


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))
