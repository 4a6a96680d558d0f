"""Known collections by name: what mirdata's own loaders say about the files of one that lies on disk.

mirdata (Bittner et al. 2019, ISMIR) knows the layout and the annotations of some sixty research data sets.
"""

from __future__ import annotations

import importlib
import logging
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from .config import InputError, one_of

# Column of the table → what mirdata's loaders call it, the best first; the first element of a list is taken.
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


def mirdata_table(name: str, data_home: Path | str, version: str = "default") -> pd.DataFrame:
    """The tracks of a mirdata data set whose audio is on disk, as a manifest's table.

    Nothing is downloaded. The index (which file belongs to which track) is taken from `data_home`, else from where
    mirdata keeps it. Mixes are taken rather than the stems of a multi-track. Tracks without audio on disk or that the
    loader refuses, and labels that it cannot read, are counted and told in one warning each.

    Args:
        name: mirdata's name of the data set, for instance `gtzan_genre`.
        data_home: Folder that holds the data set as mirdata lays it out.
        version: Version of its index.

    Returns:
        One row per track: `path` relative to `data_home`; those of `COLUMNS` that the loader has; and its numeric
        attributes (tempo, year, …) as factors, `key` as semitones above C. Gaps are nan.

    Raises:
        InputError: mirdata or a package of the loader is missing, no such data set, version, folder or index, or no
            track's audio is on disk.
    """
    home = Path(data_home).expanduser().absolute()
    if not home.is_dir():
        raise InputError(f"no folder {home}: give the one that holds {name!r} as mirdata lays it out")
    with _quiet():
        found, left_out, expected = _on_disk(_open(name, home, version), home)
        total = len(found) + left_out.total()
        said = ", ".join(f"{n} × {reason}" for reason, n in left_out.most_common(3))
        if not found:
            remedy = f": its index expects files such as {expected}; give the folder in which they are"
            raise InputError(f"none of the {total} tracks of {name!r} can be used ({said}){remedy if expected else ''}")
        unread: Counter[str] = Counter()
        table = pd.DataFrame(_rows(found, home, unread)).drop_duplicates("path", ignore_index=True)
    table = table.dropna(axis="columns", how="all")
    if left_out:
        warnings.warn(f"{left_out.total()} of {total} tracks of {name!r} are left out: {said}", stacklevel=2)
    if unread:
        gaps = ", ".join(f"{column} of {n}" for column, n in unread.most_common())
        warnings.warn(
            f"mirdata cannot read from {home}: {gaps} of {len(found)} tracks of {name!r}; are its annotations there?",
            stacklevel=2,
        )
    return table


@contextmanager
def _quiet() -> Iterator[None]:
    """Loaders warn of their own code's age and log what they raise; importing them makes the whole process log."""
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)


def _loader(name: str) -> ModuleType:
    try:
        import mirdata
    except ModuleNotFoundError as e:
        raise InputError(f"data sets by name need the package {e.name}: pip install 'vaelib[mirdata]'") from e
    one_of("mirdata data set", name, mirdata.list_datasets())
    try:
        return importlib.import_module(f"mirdata.datasets.{name}")
    except ImportError as e:  # some loaders raise another one without a name
        package = e.name or getattr(e.__context__, "name", None)
        raise InputError(f"mirdata's loader of {name!r} needs the package {package}: pip install {package}") from e


def _open(name: str, home: Path, version: str) -> Any:
    module = _loader(name)
    one_of(f"version of {name!r}", version, [v for v in module.INDEXES if v not in ("test", "sample")])
    try:
        data = module.Dataset(data_home=str(home), version=version)
    except (KeyError, ValueError) as e:  # a loader whose own default is not there
        raise InputError(f"mirdata's loader of {name!r} has no index of version {version!r} ({e}); name another") from e
    index = Path(data.index_path)
    if (home / index.name).is_file():
        index = home / index.name
        data.index_path = str(index)
    if not index.is_file():
        raise InputError(
            f"the index of {name!r} is not here, and nothing is downloaded unasked: put {index.name} into {home}, or "
            f"""let mirdata fetch it: python -c "import mirdata; """
            f"""mirdata.initialize('{name}', version='{version}').download(['index'])" """.rstrip()
        )
    try:
        known = data._index
        if not (isinstance(known, dict) and (known.get("tracks") or known.get("multitracks"))):
            raise ValueError("it lists no tracks")
    except (OSError, ValueError) as e:
        raise InputError(f"{index} is not a mirdata index ({e}); fetch it again") from e
    return data


def _on_disk(data: Any, home: Path) -> tuple[list[tuple[Any, Path, str | None]], Counter[str], str]:
    """Tracks with their audio file and what they are a part of, why others are left out, and a path as expected."""
    whole, parts = list(data._index.get("multitracks", ())), list(data._index.get("tracks", ()))
    part_of: dict[str, str] = {}
    if whole:
        found, left_out, expected = _usable(data.multitrack, whole, home)
        if found or not parts:
            return found, left_out, expected
        part_of = {t: m for m in whole for t in data._index["multitracks"][m].get("tracks", ())}
    return _usable(data.track, parts, home, part_of)


def _usable(
    load: Any, ids: list[str], home: Path, part_of: dict[str, str] | None = None
) -> tuple[list[tuple[Any, Path, str | None]], Counter[str], str]:
    found, left_out, expected = [], Counter(), ""
    for number in ids:
        try:
            track = load(number)
            path = _audio(track)
        except Exception as e:  # loaders raise whatever their parsing meets
            left_out[f"refused by the loader ({type(e).__name__})"] += 1
            continue
        if path is None:
            left_out["without audio"] += 1
            continue
        if not path.is_relative_to(home) or ".." in path.parts:
            raise InputError(f"the index places {number!r} at {path}, outside of {home}; fetch the index again")
        expected = expected or str(path)
        if path.is_file():
            found.append((track, path, (part_of or {}).get(number)))
        else:
            left_out["not on disk"] += 1
    return found, left_out, expected


def _audio(track: Any) -> Path | None:
    """The one file that stands for a track: its mix if there are several."""
    named = [a for a in vars(track) if re.fullmatch(r"(audio|mix)(_\w+)?_paths?", a)]
    for attribute in dict.fromkeys([*AUDIO, *named]):
        value = getattr(track, attribute, None)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str):
            return Path(value)
    return None


def _rows(found: list[tuple[Any, Path, str | None]], home: Path, unread: Counter[str]) -> list[dict[str, Any]]:
    """A row per track; `unread` counts, by column, what an attribute that is there could not give."""
    numbers = {n: None for track, *_ in found[:PROBED] for n in _attributes(track) if _numeric(track, n) is not None}
    rows = []
    for track, path, whole in found:
        row: dict[str, Any] = {"path": str(path.relative_to(home))}
        for column, attributes in COLUMNS.items():
            row[column], failed = _label(track, attributes)
            unread[column] += failed
        row["track"] = whole or row["track"]
        row["key"] = _tonic(_get(track, "key"))
        row |= {name: _numeric(track, name) for name in numbers}
        rows.append(row)
    for column in [c for c, n in unread.items() if not n]:
        del unread[column]
    return rows


def _attributes(track: Any) -> list[str]:
    labels = {a for attributes in COLUMNS.values() for a in attributes}
    names = [n for n in dir(track) if not n.startswith(("_", "audio")) and n not in labels | {"key"}]
    return [n for n in names if not NOT_SOUND.fullmatch(n) and not callable(getattr(type(track), n, None))]


def _get(track: Any, name: str) -> Any:
    try:
        return getattr(track, name, None)
    except Exception:  # an annotation that is not on disk, or not as its loader expects it
        return None


def _label(track: Any, attributes: tuple[str, ...]) -> tuple[str | None, bool]:
    """The first of the attributes that says something, and whether one could not be read."""
    failed = False
    for name in attributes:
        try:
            text = _text(getattr(track, name, None))
        except Exception:
            text, failed = None, True
        if text:
            return text, False
    return None, failed


def _text(value: Any) -> str | None:
    if isinstance(value, dict):
        value = list(value.values())
    while isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return str(value).strip() if isinstance(value, (str, int)) else None


def _numeric(track: Any, name: str) -> float | None:
    value = _get(track, name)
    if value is None and isinstance(path := _get(track, f"{name}_path"), str):
        # mirdata 1.0.0 cannot convert a file of a single number (GTZAN's tempo) under numpy 2.4
        try:
            value = Path(path).read_text(encoding="utf-8") if Path(path).stat().st_size < 64 else None
        except (OSError, UnicodeDecodeError):
            return None
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
