"""The singers: a bank of phrases spoken by espeak-ng in a fresh process, and singing by overlap-add.

espeak-ng repeats itself only from a fresh process with a fixed seed and a fixed order of phrases: so the bank is
built by `python -m vaelib_demo.voice FILE`, once per corpus, and the workers read it.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaelib_demo.compose import Note
from vaelib_demo.tables import Row, load_tables

RATE = 22_050
VOWELS = set("aeiouyæøœɐɑɒɔəɘɛɜɞɤɨɪɯɵɶʉʊʌʏᵻɚɝ")
Bank = dict[tuple[str, str], list["Phrase"]]


@dataclass(frozen=True)
class Phrase:
    """A spoken phrase."""

    text: str  # in native script
    sound: np.ndarray  # (n,) int16 at 22,050 Hz, monotone
    marks: np.ndarray  # (m,) samples one pitch period apart
    vowels: np.ndarray  # (s, 2) first and last sample of each syllable's vowel


def build_bank(path: Path) -> bool:
    """Speak every phrase with every voice into `path` (.npz); False, with one warning, without espeak-ng."""
    command = [sys.executable, "-m", "vaelib_demo.voice", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return True
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    warnings.warn(f"espeak-ng does not work here, the demo corpus is instrumental: {reason}", stacklevel=3)
    return False


def load_bank(path: Path) -> Bank:
    """The bank by (language, voice)."""
    bank: Bank = {}
    with np.load(path) as stored:
        for language, voice, i, text in _order():
            arrays = (stored[f"{language}.{voice}.{i}.{part}"] for part in ("sound", "marks", "vowels"))
            bank.setdefault((language, voice), []).append(Phrase(text, *arrays))
    return bank


def _order() -> list[tuple[str, str, int, str]]:
    tables = load_tables()
    return [
        (language, voice, i, text)
        for language, texts in tables.phrases.items()
        for voice in tables.voices
        for i, text in enumerate(texts)
    ]


# -- singing


def sing(
    notes: list[Note], style: Row, phrases: list[Phrase], total: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """Sing one window of melody by pitch-synchronous overlap-add.

    Vowels land on the notes and are stretched; consonants keep their length, up to half of the note.

    Args:
        notes: Gapless melody.
        style: Glide, vibrato and notes per syllable.
        phrases: Of one language and voice.
        total: Samples of the clip.
        rng: Chooses the phrases.

    Returns:
        (total,) float64 sound, and the texts sung.
    """
    chosen, syllables = [], 0
    while syllables < max(len(notes) / style.melisma, 1):
        chosen.append(phrases[int(rng.integers(len(phrases)))])
        syllables += len(chosen[-1].vowels)
    sound, marks, vowels = _joined(chosen)
    bounds = np.array([n.start for n in notes] + [notes[-1].start + notes[-1].length]) * RATE
    out_marks = _pitch_marks(notes, bounds, style, total)
    places = np.arange(syllables + 1) * len(notes) / syllables
    places = np.floor(places) if len(notes) >= syllables else places
    onsets = np.interp(places, np.arange(len(notes) + 1), bounds)
    read = _source_time(out_marks, onsets, vowels, len(sound))
    period = int(np.median(np.diff(marks)))
    nearest = np.clip(np.searchsorted(marks, read), 1, len(marks) - 2)
    grain = np.arange(-period, period)  # two periods
    window = 0.5 + 0.5 * np.cos(np.pi * grain / period)
    pad = 2 * period
    padded = np.pad(sound.astype(np.float32) / 32768, pad)
    values = padded[marks[nearest][:, None] + grain + pad] * window
    at = np.round(out_marks).astype(int)[:, None] + grain + pad
    mixed = np.bincount(at.ravel(), weights=values.ravel(), minlength=total + 2 * pad)
    return mixed[pad : pad + total], [p.text for p in chosen]


def _joined(chosen: list[Phrase]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    starts = np.cumsum([0] + [len(p.sound) for p in chosen])
    return (
        np.concatenate([p.sound for p in chosen]),
        np.concatenate([p.marks + s for p, s in zip(chosen, starts, strict=False)]),
        np.concatenate([p.vowels + s for p, s in zip(chosen, starts, strict=False)]),
    )


def _pitch_marks(notes: list[Note], bounds: np.ndarray, style: Row, total: int) -> np.ndarray:
    """Samples at which a sung pitch period begins: glides into each note, vibrato once it is held."""
    step = 64
    t = np.arange(bounds[0], min(bounds[-1], total - 1), step)
    index = np.clip(np.searchsorted(bounds, t, side="right") - 1, 0, len(notes) - 1)
    cents = np.array([n.cents for n in notes])
    since = (t - bounds[index]) / RATE
    before = cents[np.maximum(index - 1, 0)]
    glide = np.exp(-since / (style.glide_ms / 1000 / 2 + 1e-6))
    held = np.clip((since - 0.15) / 0.2, 0, 1)
    curve = cents[index] + (before - cents[index]) * glide
    curve = curve + held * style.vibrato_cents * np.sin(2 * np.pi * 5.5 * t / RATE)
    periods = np.cumsum(440 * 2 ** ((curve - 6900) / 1200)) * step / RATE
    return np.interp(np.arange(np.ceil(periods[0]), periods[-1]), periods, t)


def _source_time(out: np.ndarray, onsets: np.ndarray, vowels: np.ndarray, size: int) -> np.ndarray:
    """Sample of the spoken phrases that sounds at each sample `out` of the song."""
    following = np.append(vowels[1:, 0], size)
    tail = np.minimum(following - vowels[:, 1], np.diff(onsets) / 2)  # consonants after the vowel
    song = np.column_stack([onsets[:-1], onsets[1:] - tail]).ravel()
    speech = np.column_stack([vowels[:, 0], vowels[:, 1]]).ravel()
    return np.interp(out, np.append(song, onsets[-1]), np.append(speech, size - 1))


# -- speaking (runs in the fresh process)


class _Event(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_int)
            for name in ("type", "identifier", "text_position", "length", "audio_position", "sample")
        ),
        ("user_data", ctypes.c_void_p),
        ("phoneme", ctypes.c_char * 8),
    )


def _speaker():
    """A function (voice, pitch, text) → (samples, phoneme events), from espeak-ng's C library."""
    import espeakng_loader

    lib = ctypes.CDLL(espeakng_loader.get_library_path())
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
    sound: list[np.ndarray] = []
    events: list[tuple[int, str]] = []

    @callback
    def receive(samples, count, event):
        if samples and count > 0:
            sound.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while event[i].type != 0:
            if event[i].type == 7:  # espeakEVENT_PHONEME
                events.append((event[i].sample, event[i].phoneme.decode(errors="replace")))
            i += 1
        return 0

    # 2: synchronous; 1 | 2: phoneme events, in IPA
    if lib.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 1 | 2) != RATE:
        raise RuntimeError("espeak-ng did not start")
    lib.espeak_ng_SetRandSeed(ctypes.c_long(1))
    lib.espeak_SetSynthCallback(receive)

    def speak(voice: str, pitch: int, text: str) -> tuple[np.ndarray, list[tuple[int, str]]]:
        sound.clear()
        events.clear()
        if lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((1, 130), (3, pitch), (4, 0)):  # words per minute, pitch, no intonation
            lib.espeak_SetParameter(parameter, value, 0)
        raw = text.encode() + b"\0"
        lib.espeak_Synth(raw, ctypes.c_size_t(len(raw)), 0, 1, 0, 1, None, None)  # 1: characters, UTF-8
        lib.espeak_Synchronize()
        return np.concatenate(sound), list(events)

    speak.callback = receive  # keep it alive as long as the speaker
    return speak


def _vowels(events: list[tuple[int, str]], size: int) -> np.ndarray:
    ends = [sample for sample, _ in events[1:]] + [size]
    found = [
        (start, min(end, size - 1))
        for (start, phoneme), end in zip(events, ends, strict=True)
        if VOWELS & set(phoneme.strip("ˈˌ")[:1])
    ]
    return np.array(found or [(0, size - 1)], dtype=np.int64)


def _marks(sound: np.ndarray) -> np.ndarray:
    """Peaks one period apart, found from the last one on; the voice is monotone, so one period serves."""
    x = sound.astype(np.float64)
    size = 1 << (2 * len(x) - 1).bit_length()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(x, size)) ** 2)
    low, high = RATE // 400, RATE // 70
    period = low + int(np.argmax(correlation[low:high]))
    marks, reach = [period], max(period // 6, 1)
    while marks[-1] + 2 * period < len(x):
        expected = marks[-1] + period
        near = x[expected - reach : expected + reach + 1]
        loud = near.max() > 300  # in silence and noise the marks go on at the period
        marks.append(expected - reach + int(np.argmax(near)) if loud else expected)
    return np.array(marks, dtype=np.int64)


def _main(path: str) -> None:
    tables, speak, arrays = load_tables(), _speaker(), {}
    for language, name, i, text in _order():
        voice = tables.voices[name]
        sound, events = speak(f"{tables.espeak[language]}+{voice.variant}", voice.pitch, text)
        loud = np.flatnonzero(np.abs(sound) > 200)
        sound = sound[: loud[-1] + 1]  # without the silence after the phrase
        parts = {"sound": sound, "marks": _marks(sound), "vowels": _vowels(events, len(sound))}
        arrays |= {f"{language}.{name}.{i}.{part}": array for part, array in parts.items()}
    np.savez(path, **arrays)


if __name__ == "__main__":
    _main(sys.argv[1])
