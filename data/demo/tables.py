"""The readable tables of `data/demo/`, read and cross-checked: what a genre is made of."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vaelib.config import digest, one_of

FOLDER = Path(__file__).parent
TABLES = (
    *("genres", "languages", "factors", "desk", "voices", "ensembles", "phrases"),
    *("scales", "chords", "melodies", "instruments", "figures", "rhythms"),
)
PARTS = ("drums", "bass", "comp", "pad", "lead")


@dataclass(frozen=True)
class Pattern:
    """One looped line: a symbol per step; `.` rests, `-` holds the last symbol."""

    beats: int
    steps: str
    key: int = 0  # MIDI drum key; 0 for a pitched figure

    def hits(self) -> list[tuple[float, float, str]]:
        """(start, length, symbol) of every sounding step, in beats."""
        width, found = self.beats / len(self.steps), []
        for i, symbol in enumerate(self.steps):
            if symbol not in ".-":
                held = len(self.steps[i + 1 :]) - len(self.steps[i + 1 :].lstrip("-"))
                found.append((i * width, (1 + held) * width, symbol))
        return found


@dataclass(frozen=True)
class Instrument:
    """A General-MIDI preset, the centre of its range (MIDI key), and the gain (dB) that makes all equally loud."""

    program: int
    centre: float
    gain_db: float


@dataclass(frozen=True)
class Melody:
    """How a melody moves; the columns of `melodies.csv`."""

    density: float
    leap: float
    hold: float
    ornament: float
    glide_ms: float
    vibrato_cents: float
    melisma: float
    sing_beats: float
    rest_beats: float


@dataclass(frozen=True)
class Voice:
    """An espeak variant, its speaking pitch (0–99) and the centre of its singing range (MIDI key)."""

    variant: str
    pitch: int
    centre: float


@dataclass(frozen=True)
class Genre:
    """One row of `genres.csv` with every reference resolved; `index` seeds its clips."""

    index: int
    name: str
    language: str
    family: str
    bpm: float
    swing: float
    kit: int
    beats: int
    drums: tuple[Pattern, ...]
    scale: tuple[float, ...]
    degrees: tuple[int, ...]
    voicing: tuple[int, ...]
    bass: Pattern
    comp: Pattern
    instruments: dict[str, Instrument]
    lead: Melody
    vocal: Melody


@dataclass(frozen=True)
class Tables:
    """All tables of one folder."""

    genres: dict[str, Genre]
    espeak: dict[str, str]
    factors: list[dict[str, str]]
    desk: list[dict[str, str]]
    voices: dict[str, Voice]
    ensembles: dict[str, dict[str, float]]  # dB of the parts that play
    phrases: dict[str, tuple[str, ...]]
    digest: str


@cache
def load_tables(folder: Path = FOLDER) -> Tables:
    """Read and check the tables once per process.

    Raises:
        InputError: A row refers to something that no table has.
    """
    rows = {name: _read(folder / f"{name}.csv") for name in TABLES}
    voices = {r["voice"]: Voice(r["variant"], int(r["pitch"]), float(r["centre"])) for r in rows["voices"]}
    ensembles = {r["ensemble"]: {p: float(r[p]) for p in PARTS if r[p]} for r in rows["ensembles"]}
    phrases: dict[str, tuple[str, ...]] = {}
    for r in rows["phrases"]:
        phrases[r["language"]] = (*phrases.get(r["language"], ()), r["phrase"])
    parts = _parts(rows)
    genres = {r["genre"]: _genre(i, r, parts) for i, r in enumerate(rows["genres"])}
    espeak = {r["language"]: r["espeak"] for r in rows["languages"]}
    for genre in genres.values():
        one_of("language in genres.csv", genre.language, espeak)
        one_of("language without phrases", genre.language, phrases)
    return Tables(genres, espeak, rows["factors"], rows["desk"], voices, ensembles, phrases, digest(rows))


def _read(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def _parts(rows: dict[str, list[dict[str, str]]]) -> dict[str, dict[str, Any]]:
    """The building blocks that genres refer to, by table and name."""
    rhythms: dict[str, tuple[Pattern, ...]] = {}
    for r in rows["rhythms"]:
        line = Pattern(int(r["beats"]), r["pattern"], int(r["key"]))
        rhythms[r["rhythm"]] = (*rhythms.get(r["rhythm"], ()), line)
    return {
        "rhythm": rhythms,
        "figure": {r["figure"]: Pattern(int(r["beats"]), r["pattern"]) for r in rows["figures"]},
        "scale": {r["scale"]: tuple(map(float, r["cents"].split())) for r in rows["scales"]},
        "chords": {
            r["chords"]: (tuple(map(int, r["degrees"].split())), tuple(map(int, r["voicing"].split())))
            for r in rows["chords"]
        },
        "instrument": {
            r["instrument"]: Instrument(int(r["program"]), float(r["centre"]), float(r["gain_db"]))
            for r in rows["instruments"]
        },
        "melody": {r["style"]: Melody(**{k: float(v) for k, v in r.items() if k != "style"}) for r in rows["melodies"]},
    }


def _genre(index: int, row: dict[str, str], parts: dict[str, dict[str, Any]]) -> Genre:
    def get(table: str, column: str) -> Any:
        return parts[table][one_of(f"{column} of {row['genre']}", row[column], parts[table])]

    drums = get("rhythm", "rhythm")
    degrees, voicing = get("chords", "chords")
    return Genre(
        index, row["genre"], row["language"], row["family"], bpm=float(row["tempo"]), swing=float(row["swing"]),
        kit=int(row["kit"]), beats=drums[0].beats, drums=drums, scale=get("scale", "scale"), degrees=degrees,
        voicing=voicing, bass=get("figure", "bass"), comp=get("figure", "comp"),
        instruments={part: get("instrument", f"{part}_instrument") for part in PARTS[1:]},
        lead=get("melody", "lead_style"), vocal=get("melody", "vocal_style"),
    )  # fmt: skip
