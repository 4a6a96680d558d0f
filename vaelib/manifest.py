"""What a collection says of its files: a manifest, or the names of its folders."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .config import InputError
from .soundfiles import AUDIO_SUFFIXES

LABELS = ("language", "genre", "family")
# Columns that describe a clip but are not something a latent dimension could stand for.
NOT_FACTORS = {"path", *LABELS, "artist", "track", "phrases", "seed", "vocal_active_share", "title"}
# Columns that the store has of its own; a manifest's are left out.
OWN = (
    "split", "n_frames", "level_db", "tilt_db", "start_s", "seconds", "peak", "clipped", "silent", "rms_db", "rate",
    "channels", "format", "duplicate_of", "clip", "mel", "mel_hz", "frame", "log_mel",
)  # fmt: skip
UNLABELLED = "unlabelled"
Rejected = tuple[str, str]  # path, reason
MANIFESTS = ("manifest.csv", "manifest.parquet")


def audio_files(root: Path) -> tuple[list[str], list[Rejected]]:
    """Audio files below a folder; links to folders are followed, each folder is entered once.

    Returns:
        Paths relative to the folder, in order; and (path, reason) of those that cannot even be named or seen.
    """
    files, bad, seen = [], [], set()

    def refused(error: OSError) -> None:
        bad.append((_shown(os.path.relpath(error.filename, root)), f"may not be read ({error.strerror}); allow it"))

    for folder, folders, names in os.walk(root, followlinks=True, onerror=refused):
        about = os.stat(folder)
        if (about.st_dev, about.st_ino) in seen:  # a loop, or a second way here
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(f for f in folders if not _hidden(f))
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() not in AUDIO_SUFFIXES or _hidden(name):
                continue
            relative = os.path.relpath(path, root)
            if _shown(relative) != relative:
                bad.append((_shown(relative), "has a name that is not UTF-8; rename it, e.g. with convmv"))
            elif os.path.isfile(path):  # False where it may not be asked
                files.append(relative)
            else:
                bad.append((relative, "is no file (a broken link, or a device); remove it"))
    return files, bad


def _hidden(name: str) -> bool:
    """`.cache`, and `._song.mp3`, a Mac's notes on a song; but not `...And Justice for All`."""
    return name.startswith(".") and not name.startswith("..")


def _shown(path: str) -> str:
    """A path that can be written: bytes that are not UTF-8 become escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def manifest_table(manifest: Path, root: Path, allow_outside: bool = False) -> pd.DataFrame:
    """Read a manifest: a CSV or Parquet table with a column `path`, relative to `root`; it is data, nothing is run.

    Raises:
        InputError: it is not there, no such table, or a path leaves the root and is not allowed to.
    """
    if not manifest.is_file():
        raise InputError(f"no manifest at {manifest}: give a CSV or Parquet file, or leave it out to read the folders")
    kind = "Parquet" if manifest.suffix.lower() in (".parquet", ".pq") else "CSV"
    try:
        if kind == "Parquet":
            table = pd.read_parquet(manifest)
        else:
            table = pd.read_csv(manifest, dtype={"path": str, **dict.fromkeys((*LABELS, "artist", "track"), str)})
    except Exception as e:  # the parsers raise many kinds
        said = str(e).strip().splitlines() or [type(e).__name__]
        hint = "write it as UTF-8 CSV with a header" if kind == "CSV" else "write it again"
        raise InputError(f"{manifest} is not a readable {kind} table ({said[0][:120]}); {hint}") from e
    table.columns = [str(c).strip().lstrip("\ufeff") for c in table.columns]
    if "path" not in table or table.empty:
        raise InputError(f"{manifest} has no rows with a `path` column; add it (paths relative to the collection)")
    if len(twice := table.columns[table.columns.duplicated()]):
        raise InputError(f"{manifest} has two columns named {twice[0]!r}; rename one of them")
    below, known = root.resolve(), dict[str, bool]()
    for row, path in enumerate(table["path"].fillna("").astype(str), start=2):
        where = f"{manifest}, line {row}"
        if not path.strip():
            raise InputError(f"{where}: the path is empty; fill it in or remove the line")
        if "\0" in path:
            raise InputError(f"{where}: {path!r} is no path; correct it")
        if not allow_outside and not _inside(below, path, known):
            raise InputError(
                f"{where}: {path!r} leaves the corpus folder; use a path inside it, or allow it (--allow-outside)"
            )
    table = table.astype({"path": str})
    for column in table.columns:  # lists, dates, mixed types: as text
        if not pd.api.types.is_numeric_dtype(table[column]) or pd.api.types.is_complex_dtype(table[column]):
            table[column] = table[column].map(str, na_action="ignore").astype(object)
    return table.drop_duplicates("path", ignore_index=True)


def _inside(root: Path, path: str, known: dict[str, bool]) -> bool:
    """Whether a path stays below the resolved root: written so, and links resolved; folders are asked once."""
    if os.path.isabs(path) or ".." in Path(path).parts:
        return False
    folder = os.path.dirname(path)
    try:
        if folder not in known:
            known[folder] = (root / folder).resolve().is_relative_to(root)
        return known[folder] and (not os.path.islink(root / path) or (root / path).resolve().is_relative_to(root))
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that is too long
        return False


def folder_table(root: Path, files: Sequence[str], labels: str = "") -> tuple[pd.DataFrame, list[str]]:
    """Labels from the names of folders and files (see `vaelib.corpus.read_corpus`).

    Returns:
        A row per file, and sentences for the owner.

    Raises:
        InputError: no file, none that fits the pattern, or no pattern.
    """
    if not files:
        raise InputError(f"no audio in {root}: looked for {', '.join(AUDIO_SUFFIXES)} in it and its subfolders")
    pattern = _pattern(labels) if labels else None
    rows, strangers = [], 0
    for path in files:
        if pattern:
            match = pattern.fullmatch(os.path.splitext(path)[0])
            strangers += match is None
            row = {"path": path} | (match.groupdict() if match else {})
            if "track" in row:  # a name is one track in its folder only: every album has a first song
                row["track"] = os.path.join(os.path.dirname(path), row["track"])
            rows.append(row)
        else:
            parts = Path(path).parts
            genre = parts[-2] if len(parts) >= 2 else UNLABELLED
            rows.append({"path": path, "language": parts[-3] if len(parts) >= 3 else UNLABELLED, "genre": genre})
    if strangers == len(files):
        raise InputError(f"no file of {root} fits {labels!r}, for example {files[0]!r} does not; correct the pattern")
    fits = f"{strangers} of {len(files)} files do not fit {labels!r} and have no labels"
    return pd.DataFrame(rows), [fits] if strangers else []


def _pattern(labels: str) -> re.Pattern[str]:
    """`{genre}/{artist} - {title}` → a regular expression with these groups."""
    parts = re.split(r"(\{\w+\}|\*)", labels.strip("/"))
    names = [p[1:-1] for p in parts if p.startswith("{") and p.endswith("}")]
    if not names or len(set(names)) < len(names) or any("{" in p or "}" in p for p in parts[::2]):
        raise InputError(
            f"labels {labels!r} is no pattern: write the levels of folders with names in braces, each once, "
            "e.g. {language}/{genre}/{track}"
        )
    if bad := [n for n in names if n in OWN or n == "path" or n[0].isdigit()]:
        raise InputError(
            f"labels {labels!r}: {bad[0]!r} cannot be a label; use language, genre, family, artist, track, …"
        )
    words = {"*": "[^/]*"}
    return re.compile(
        "".join(
            f"(?P<{p[1:-1]}>[^/]+?)" if i % 2 and p != "*" else words.get(p, re.escape(p)) for i, p in enumerate(parts)
        ),
        re.DOTALL,
    )
