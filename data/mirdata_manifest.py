"""Write the manifest of a research data set that lies on disk: what mirdata's own loader says of its files.

    python data/mirdata_manifest.py gtzan_genre FOLDER [--version mini]
    vaelib preprocess FOLDER

mirdata (Bittner et al. 2019, ISMIR) knows the layout and the annotations of sixty data sets (`pip install mirdata`).
Nothing is downloaded; the index of the data set is taken from FOLDER, else from where mirdata keeps it. Mixes are taken
rather than the stems of a multi-track.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import math
import re
import sys
import warnings
from collections import Counter
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd

from vaelib.config import InputError, one_of, write_atomic

# Column of the manifest → what mirdata's loaders call it, the best first; the first element of a list is taken.
COLUMNS = {
    "language": ("language",),
    "genre": ("genre", "genres", "broad_genre", "style"),
    "family": ("family",),
    "artist": ("artist", "artists", "performance_artist", "bandleader", "singer", "singer_id", "player_id", "drummer",
               "artist_id"),
    "title": ("title", "performance_title", "canonical_title", "name", "work"),
    "track": ("mtrack_id", "song_id", "work_id", "piece"),  # kept on one side of the split
}  # fmt: skip
AUDIO = ("audio_path", "mix_path", "audio_mix_path", "audio_mic_path", "audio_path_stereo", "audio_path_mono")
# Numbers that name a track or place it in its data set, but do not describe how it sounds
NOT_SOUND = re.compile(r"(.*_)?(id|ids|mbid|number|tracknumber|rank|chart|time|start|stop|duration|split|label|date)")
PROBED = 5  # tracks in which numeric attributes are looked for
TONICS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}


def manifest(name: str, home: Path, version: str = "default") -> tuple[pd.DataFrame, Counter[str]]:
    """The tracks of a data set whose audio is on disk.

    Returns:
        One row per track: `path` relative to `home`; those of `COLUMNS` that the loader has; its numeric attributes
        (tempo, year, …) as factors, `key` as semitones above C. And how many tracks are left out, by reason.

    Raises:
        InputError: no such data set, version, folder or index, or no track's audio is on disk.
    """
    if not home.is_dir():
        raise InputError(f"no folder {home}: give the one that holds {name!r} as mirdata lays it out")
    data = _opened(name, home, version)
    index, part_of = data._index, {}
    tracks = [(data.multitrack, number) for number in index.get("multitracks", ())]
    found, left_out = _on_disk(tracks, home)
    if not found:
        for whole, about in index.get("multitracks", {}).items():
            part_of |= dict.fromkeys(about.get("tracks", ()), whole)
        found, left_out = _on_disk([(data.track, number) for number in index.get("tracks", ())], home)
    if not found:
        reasons = ", ".join(f"{n} × {reason}" for reason, n in left_out.most_common(3))
        raise InputError(f"no track of {name!r} can be used ({reasons}): give the folder in which its files are")
    probed = {n: None for track, *_ in found[:PROBED] for n in _attributes(track) if _number(track, n) is not None}
    rows = []
    for track, path, number in found:
        row = {"path": str(path.relative_to(home))} | {c: _first(track, names) for c, names in COLUMNS.items()}
        row["track"] = part_of.get(number) or row["track"]
        rows.append(row | {"key": _tonic(_get(track, "key"))} | {n: _number(track, n) for n in probed})
    table = pd.DataFrame(rows).drop_duplicates("path", ignore_index=True)
    return table.dropna(axis="columns", how="all"), left_out


def _opened(name: str, home: Path, version: str) -> Any:
    import mirdata

    one_of("mirdata data set", name, mirdata.list_datasets())
    module = importlib.import_module(f"mirdata.datasets.{name}")
    one_of(f"version of {name!r}", version, [v for v in module.INDEXES if v not in ("test", "sample")])
    data = module.Dataset(data_home=str(home), version=version)
    index = Path(data.index_path)
    if (home / index.name).is_file():
        data.index_path = str(home / index.name)
    elif not index.is_file():
        raise InputError(
            f"the index of {name!r} is not here, and nothing is downloaded unasked: put {index.name} into {home}, or "
            f"let mirdata fetch it: mirdata.initialize('{name}', version='{version}').download(['index'])"
        )
    return data


def _on_disk(tracks: list[tuple[Any, str]], home: Path) -> tuple[list[tuple[Any, Path, str]], Counter[str]]:
    found, left_out = [], Counter[str]()
    for load, number in tracks:
        try:
            track = load(number)
            path = _audio(track)
        except Exception as e:  # loaders raise whatever their parsing meets
            left_out[f"refused by the loader ({type(e).__name__})"] += 1
            continue
        if path is None:
            left_out["without audio"] += 1
        elif not path.is_relative_to(home) or ".." in path.parts:
            raise InputError(f"the index places {number!r} at {path}, outside of {home}; fetch the index again")
        elif path.is_file():
            found.append((track, path, number))
        else:
            left_out["not on disk"] += 1
    return found, left_out


def _audio(track: Any) -> Path | None:
    """The one file that stands for a track: its mix if there are several."""
    named = [a for a in vars(track) if re.fullmatch(r"(audio|mix)(_\w+)?_paths?", a)]
    for attribute in dict.fromkeys([*AUDIO, *named]):
        value = getattr(track, attribute, None)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str):
            return Path(value)
    return None


def _attributes(track: Any) -> list[str]:
    labels = {a for names in COLUMNS.values() for a in names} | {"key"}
    names = [n for n in dir(track) if not n.startswith(("_", "audio")) and n not in labels]
    return [n for n in names if not NOT_SOUND.fullmatch(n) and not callable(getattr(type(track), n, None))]


def _get(track: Any, name: str) -> Any:
    try:
        return getattr(track, name, None)
    except Exception:  # an annotation that is not on disk, or not as its loader expects it
        return None


def _first(track: Any, names: tuple[str, ...]) -> str | None:
    return next(filter(None, (_text(_get(track, name)) for name in names)), None)


def _text(value: Any) -> str | None:
    if isinstance(value, dict):
        value = list(value.values())
    while isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return str(value).strip() if isinstance(value, (str, int)) else None


def _number(track: Any, name: str) -> float | None:
    value = _get(track, name)
    if value is None and isinstance(path := _get(track, f"{name}_path"), str) and Path(path).is_file():
        value = Path(path).read_text(encoding="utf-8")[:64]  # a file of a single number, such as GTZAN's tempo
    if isinstance(value, bool) or not isinstance(value, (Real, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _tonic(value: Any) -> float | None:
    """Semitones above C of a key such as `A# minor`, `Db` or `F minor`."""
    match = re.match(r"\s*([A-Ga-g])([#♯b♭]?)(?![a-z])", _text(value) or "")
    if not match:
        return None
    step = {"#": 1, "♯": 1, "b": -1, "♭": -1}.get(match[2], 0)
    return float((TONICS[match[1].lower()] + step) % 12)


def main() -> None:
    """Write FOLDER/manifest.csv and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="mirdata's name of the data set, for instance gtzan_genre")
    parser.add_argument("folder", type=Path, help="where the data set lies, as mirdata lays it out")
    parser.add_argument("--version", default="default", help="version of its index")
    given = parser.parse_args()
    logging.disable()  # loaders log what they raise, and warn of the age of their own code
    warnings.simplefilter("ignore")
    home = given.folder.expanduser().absolute()
    try:
        table, left_out = manifest(given.name, home, given.version)
    except (InputError, ImportError) as e:
        sys.exit(f"Error: {e}")
    path = write_atomic(home / "manifest.csv", table.to_csv(index=False))
    reasons = "".join(f"; left out: {n} × {reason}" for reason, n in left_out.most_common(3))
    print(f"{path}: {len(table)} tracks with {', '.join(table.columns.drop('path'))}{reasons}")


if __name__ == "__main__":
    main()
