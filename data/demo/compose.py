"""From a genre's row and a clip's factors to a score: notes, drum hits and the melody to be sung.

Chance has one stream for every phrase of every part (`Chance`), so that a phrase composed anew, or a part that is
missing from an ensemble, changes nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from vaelib_demo.tables import Genre, Pattern, Row, Tables

STREAMS = ("harmony", "colours", "drums", "fills", "bass", "comp", "pad", "voice", "lead", "words")
LEVEL = {"X": 1.0, "x": 0.75, "o": 0.45, "?": 0.6}  # of drum symbols; everything else is played at 0.8


@dataclass(frozen=True)
class Note:
    """A pitched note: seconds, seconds, cents above MIDI key 0, GM program, velocity in (0, 1], level in dB."""

    start: float
    length: float
    cents: float
    program: int = 0
    velocity: float = 0.8
    gain_db: float = 0.0
    part: str = ""


@dataclass(frozen=True)
class Chance:
    """Where a clip's chance comes from: the genre's own loop, but for the phrases that are composed anew."""

    seed: int  # of the corpus
    genre: int  # its index
    clip: int  # its number
    composition: float  # share of phrases that are composed anew, from 0 (every clip plays the genre's loop) to 1

    def stream(self, part: str, phrase: int = 0) -> np.random.Generator:
        """The generator of one phrase of a part."""
        place = (STREAMS.index(part) + 1, phrase + 1)  # no trailing zeros: a seed sequence would not see them
        anew = np.random.default_rng([self.seed, self.genre, self.clip + 1, *place, 1]).random() < self.composition
        return np.random.default_rng([self.seed, self.genre, (self.clip + 1) * anew, *place])


@dataclass
class Score:
    """Everything of a clip but its sound. `sung` holds one list of notes per sung phrase window."""

    bpm: float
    drums_db: float = 0.0
    notes: list[Note] = field(default_factory=list)
    hits: list[tuple[float, int, float]] = field(default_factory=list)  # (seconds, MIDI drum key, velocity)
    sung: list[list[Note]] = field(default_factory=list)


def compose(genre: Genre, factors: dict, tables: Tables, seconds: float, chance: Chance) -> Score:
    """Write one clip of so many seconds from beat 0 on: factors fix tempo, key, parts and register, chance the rest."""
    parts = tables.ensembles[factors["ensemble"]]
    writer = _Writer(genre, factors, parts, seconds, chance)
    writer.drums()
    if "bass" in parts:
        writer.bass()
    writer.comp()
    if "pad" in parts:
        writer.pad()
    writer.sing(tables.voices[factors["voice"]].centre)
    if "lead" in parts:
        writer.lead()
    return writer.score


class _Writer:
    """The state that the parts share: bars, chords, time and dynamics."""

    def __init__(self, genre: Genre, factors: dict, parts: dict[str, float], seconds: float, chance: Chance) -> None:
        self.genre, self.parts, self.chance, self.key = genre, parts, chance, factors["key"]
        self.rng = chance.stream("harmony")  # of the phrase that is being written
        self.score = Score(genre.bpm * factors["tempo"], parts["drums"])
        self.end = seconds * self.score.bpm / 60  # beats
        self.bars = math.ceil(self.end / genre.beats)
        self.windows: list[tuple[float, float]] = []  # beats in which somebody sings
        self.force = 0.6 + 0.4 * factors["energy"]
        self.rotation = int(self.rng.integers(len(genre.degrees)))
        self.inversions = self.rng.uniform(-4, 4, len(genre.degrees))  # semitones around an instrument's centre

    # -- time, pitch, dynamics

    def time(self, beat: float) -> float:
        """Seconds of a beat; swing delays the second half of each beat."""
        whole, part = divmod(beat, 1)
        half = 0.5 + self.genre.swing / 2
        part = part * 2 * half if part < 0.5 else half + (part - 0.5) * 2 * (1 - half)
        return (whole + part) * 60 / self.score.bpm

    def cents(self, degree: int, centre: float) -> float:
        """Pitch of a 0-based scale degree, counted from the tonic nearest to `centre`."""
        octave, step = divmod(degree, len(self.genre.scale))
        tonic = self.key + 12 * round((centre - self.key) / 12)
        return 100 * tonic + 1200 * octave + self.genre.scale[step]

    def chord(self, bar: int) -> tuple[int, list[int]]:
        """Place in the progression and 0-based scale degrees of a bar's chord."""
        place = (bar + self.rotation) % len(self.genre.degrees)
        return place, [self.genre.degrees[place] + step - 2 for step in self.genre.voicing]

    def voiced(self, bar: int, centre: float) -> list[float]:
        """A bar's chord around `centre`, low to high, in cents; each place of the progression has its inversion."""
        place, degrees = self.chord(bar)
        low = 100 * (centre + self.inversions[place]) - 600
        tones = sorted({low + (self.cents(d, centre) - low) % 1200 for d in degrees})
        return tones if len(tones) > 2 else [*tones, tones[0] + 1200]

    def play(self, part: str, beat: float, length: float, cents: float, level: float, late: float = 0) -> None:
        """Add one note of a part with a human error of a few milliseconds and a few percent."""
        if beat >= self.end:
            return
        jitter = late + abs(self.rng.normal(0, 0.004)) * (beat > 0)
        start, stop = self.time(beat) + jitter, self.time(beat + length)
        velocity = self.force * level * self.rng.uniform(0.88, 1)
        who = self.genre.instruments[part]
        gain_db = who.gain_db + self.parts[part]
        self.score.notes.append(Note(start, max(stop - start, 0.05), cents, who.program, velocity, gain_db, part))

    def loop(self, part: str, pattern: Pattern, line: int = 0) -> Iterator[tuple[float, float, str]]:
        """Repeat a pattern of a part to the end of the clip; every turn is a phrase."""
        for turn in range(math.ceil(self.end / pattern.beats)):
            self.rng = self.chance.stream(part, 1000 * line + turn)
            for beat, length, symbol in pattern.hits():
                yield turn * pattern.beats + beat, length, symbol

    # -- parts

    def drums(self) -> None:
        """The genre's lines with optional hits, now and then a missing colour line, and fills."""
        for i, line in enumerate(self.genre.drums):
            if i >= 2 and self.chance.stream("colours", i).random() < 0.1:
                continue
            for beat, _, symbol in self.loop("drums", line, i):
                if symbol != "?" or self.rng.random() < 0.5:
                    self.hit(beat, line.key, LEVEL[symbol])
        keys = [line.key for line in self.genre.drums]
        for bar in range(self.bars):
            self.rng = self.chance.stream("fills", bar)
            if self.rng.random() < 0.25:
                last = (bar + 1) * self.genre.beats - 1
                for quarter in range(4):
                    self.hit(last + quarter / 4, int(self.rng.choice(keys)), 0.6 + 0.1 * quarter)

    def hit(self, beat: float, key: int, level: float) -> None:
        if beat < self.end:
            late = abs(self.rng.normal(0, 0.003)) * (beat > 0)
            self.score.hits.append((self.time(beat) + late, key, level * self.force * self.rng.uniform(0.88, 1)))

    def bass(self) -> None:
        """The figure's digits are scale steps above the chord's root; 8 is the octave."""
        centre = self.genre.instruments["bass"].centre
        for beat, length, symbol in self.loop("bass", self.genre.bass):
            root = self.chord(int(beat // self.genre.beats))[1][0]
            fold = len(self.genre.scale) if root > len(self.genre.scale) / 2 else 0  # high roots go below the tonic
            step = len(self.genre.scale) if symbol == "8" else int(symbol) - 1
            self.play("bass", beat, length * 0.95, self.cents(root - fold + step, centre), 0.9)

    def comp(self) -> None:
        """Chords (`x`), strums (`s`), upper notes (`u`), the lowest (`d`) or single chord tones (digits)."""
        centre = self.genre.instruments["comp"].centre
        for beat, length, symbol in self.loop("comp", self.genre.comp):
            tones = self.voiced(int(beat // self.genre.beats), centre)
            if symbol.isdigit():
                ladder = [*tones, *(t + 1200 for t in tones)]  # chord tones over two octaves
                tones = [ladder[int(symbol) - 1]]
            tones = {"u": tones[1:], "d": tones[:1]}.get(symbol, tones)
            for i, tone in enumerate(tones):
                self.play("comp", beat, length, tone, 0.75, late=0.012 * i * (symbol == "s"))

    def pad(self) -> None:
        """One held chord per bar."""
        centre = self.genre.instruments["pad"].centre
        for bar in range(self.bars):
            self.rng = self.chance.stream("pad", bar)
            for tone in self.voiced(bar, centre):
                self.play("pad", bar * self.genre.beats, self.genre.beats, tone, 0.75)

    def sing(self, centre: float) -> None:
        """Windows of melody for the voice, after none to two beats of introduction."""
        self.windows = list(self.cycle(self.genre.vocal, start=int(self.chance.stream("voice").integers(3))))
        for i, (start, stop) in enumerate(self.windows):
            self.rng = self.chance.stream("voice", i + 1)
            line = self.melody(self.genre.vocal, centre, start, stop)
            times = [(self.time(b), self.time(b + d), cents) for b, d, cents in line]
            self.score.sung.append([Note(t, end - t, cents) for t, end, cents in times])

    def lead(self) -> None:
        """The lead instrument, at half strength while somebody sings."""
        centre = self.genre.instruments["lead"].centre
        for i, (start, stop) in enumerate(self.cycle(self.genre.lead, start=0)):
            self.rng = self.chance.stream("lead", i)
            for beat, length, cents in self.melody(self.genre.lead, centre, start, stop):
                under = any(a <= beat < b for a, b in self.windows)
                self.play("lead", beat, length * 0.95, cents, 0.5 if under else 0.9)

    # -- melody

    def cycle(self, style: Row, start: float) -> Iterator[tuple[float, float]]:
        """(start, stop) in beats of a style's phrases."""
        while start < self.end - 1:
            yield start, min(start + style.sing_beats, self.end)
            start += style.sing_beats + style.rest_beats

    def melody(self, style: Row, centre: float, start: float, stop: float) -> list[tuple[float, float, float]]:
        """A phrase of (beat, length, cents): a repeated motif, a walk over the scale, chord tones on long notes."""
        rhythm, line, degree, beat, i = self.motif(style), [], int(self.rng.integers(-1, 4)), start, 0
        while beat < stop - 1e-6:
            length = min(rhythm[i % len(rhythm)], stop - beat)
            degree += round(self.rng.normal(0, style.leap))
            degree = 8 - degree if degree > 6 else -6 - degree if degree < -3 else degree
            if length >= 1 or beat + length >= stop - 1e-6:
                degree = self.nearest_chord_tone(degree, int(beat // self.genre.beats))
            cents = self.cents(degree, centre)
            grace = 0.125
            if self.rng.random() < style.ornament and length > 2 * grace:
                neighbour = degree + (1 if self.rng.random() < 0.7 else -1)
                line.append((beat, grace, self.cents(neighbour, centre)))
                line.append((beat + grace, length - grace, cents))
            else:
                line.append((beat, length, cents))
            beat, i = beat + length, i + 1
        return line

    def motif(self, style: Row) -> list[float]:
        """Note lengths in beats that fill four beats with about `density` notes per beat."""
        grid = np.array([0.25, 0.5, 1.0, 1.5, 2.0])
        likely = np.exp(-2.5 * np.log(grid * style.density) ** 2)
        lengths: list[float] = []
        while sum(lengths) < 4:
            length = float(self.rng.choice(grid, p=likely / likely.sum()))
            length *= 2 if self.rng.random() < style.hold else 1
            lengths.append(min(length, 4 - sum(lengths)))
        return lengths

    def nearest_chord_tone(self, degree: int, bar: int) -> int:
        size = len(self.genre.scale)
        tones = {d % size for d in self.chord(bar)[1]}
        return min(range(degree - size, degree + size), key=lambda d: (d % size not in tones, abs(d - degree)))
