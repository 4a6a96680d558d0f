"""The readable tables of `data/demo/`, read and cross-checked: what a genre is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from vaelib.config import digest, one_of

FOLDER = Path(__file__).parent
TABLES = (
    *("genres", "languages", "factors", "desk", "voices", "ensembles", "phrases"),
    *("scales", "chords", "melodies", "instruments", "figures", "rhythms"),
)
PARTS = ("drums", "bass", "comp", "pad", "lead")
Row = Any  # of a table: its columns (data/demo/README.md) are attributes, numbers are numbers


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
class Genre:
    """One row of `genres.csv` with every reference resolved; `index` seeds its clips."""

    index: int
    name: str
    language: str
    family: str
    bpm: float
    swing: float
    kit: int
    drums: tuple[Pattern, ...]
    scale: tuple[float, ...]  # cents above the tonic
    degrees: tuple[int, ...]
    voicing: tuple[int, ...]
    bass: Pattern
    comp: Pattern
    instruments: dict[str, Row]
    lead: Row  # of `melodies.csv`, as `vocal`
    vocal: Row

    @property
    def beats(self) -> int:
        """Of a bar."""
        return self.drums[0].beats


@dataclass(frozen=True)
class Tables:
    """All tables of one folder."""

    genres: dict[str, Genre]
    espeak: dict[str, str]
    factors: list[Row]
    desk: list[Row]
    voices: dict[str, Row]
    ensembles: dict[str, dict[str, float]]  # dB of the parts that play
    phrases: dict[str, tuple[str, ...]]
    digest: str


@cache
def load_tables(folder: Path = FOLDER) -> Tables:
    """Read and check the tables once per process; InputError: a row refers to something that no table has."""
    text = {n: pd.read_csv(folder / f"{n}.csv", dtype=str, keep_default_na=False).to_dict("records") for n in TABLES}
    numbers = {n: pd.read_csv(folder / f"{n}.csv").fillna({"unit": ""}) for n in TABLES}
    rows = {n: list(t.itertuples(index=False)) for n, t in numbers.items()}
    rhythms, phrases = _grouped(rows["rhythms"]), _grouped(rows["phrases"])
    parts = {
        "rhythm": {name: tuple(Pattern(r.beats, r.pattern, r.key) for r in lines) for name, lines in rhythms.items()},
        "figure": {r.figure: Pattern(r.beats, r.pattern) for r in rows["figures"]},
        "scale": {r.scale: tuple(map(float, r.cents.split())) for r in rows["scales"]},
        "chords": {r.chords: r for r in rows["chords"]},
        "instrument": {r.instrument: r for r in rows["instruments"]},
        "melody": {r.style: r for r in rows["melodies"]},
        "language": {r.language: r.espeak for r in rows["languages"]},
    }
    return Tables(
        genres={r.genre: _genre(i, r, parts) for i, r in enumerate(rows["genres"])},
        espeak=parts["language"],
        factors=rows["factors"],
        desk=rows["desk"],
        voices={r.voice: r for r in rows["voices"]},
        ensembles={r["ensemble"]: {p: float(r[p]) for p in PARTS if r[p]} for r in text["ensembles"]},
        phrases={language: tuple(r.phrase for r in some) for language, some in phrases.items()},
        digest=digest(text),
    )


def _grouped(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by their first column."""
    return {name: [r for r in rows if r[0] == name] for name in dict.fromkeys(r[0] for r in rows)}


def _genre(index: int, row: Row, parts: dict[str, dict[str, Any]]) -> Genre:
    def get(table: str, column: str) -> Any:
        name = getattr(row, column)
        return parts[table][one_of(f"{column} of {row.genre}", name, parts[table])]

    get("language", "language")
    degrees, voicing = (tuple(map(int, word.split())) for word in get("chords", "chords")[1:3])
    return Genre(
        index, row.genre, row.language, row.family, row.tempo, row.swing, row.kit,
        drums=get("rhythm", "rhythm"), scale=get("scale", "scale"), degrees=degrees, voicing=voicing,
        bass=get("figure", "bass"), comp=get("figure", "comp"),
        instruments={part: get("instrument", f"{part}_instrument") for part in PARTS[1:]},
        lead=get("melody", "lead_style"), vocal=get("melody", "vocal_style"),
    )  # fmt: skip
