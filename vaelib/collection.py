"""A person's collection: its files, what a table or its folders say of them, and which of them can be used.

The one way in: `read_corpus` (files and labels) → `quarantine` (rows, and reasons for what is left out) →
`vaelib.store.build_store`. Notebook 01 shows each step.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .audio import AUDIO_SUFFIXES, Header, UnreadableAudio, frames_of, header, segments
from .config import FrontEnd, InputError

LABELS = ("language", "genre", "family")
UNLABELLED = "unlabelled"
READING = ("labels", "manifest", "allow_outside")  # parameters of `read_corpus`, and of notebook 01
MANIFESTS = ("manifest.csv", "manifest.parquet")
RECORD = "corpus.json"  # what a rendered corpus says of itself (`vaelib_demo`)
LADDER = ("desk", "loops", "loops, full range", "loops, cut anywhere", "composed")  # rendered, from easy to difficult
# Columns that describe a clip but are not something a latent dimension could stand for.
NOT_FACTORS = {"path", *LABELS, "artist", "track", "phrases", "seed", "vocal_active_share", "title"}
# Columns that the store has of its own; a manifest's are left out.
OWN = (
    "split", "n_frames", "level_db", "tilt_db", "start_s", "seconds", "peak", "clipped", "silent", "rms_db", "rate",
    "channels", "format", "duplicate_of", "clip", "mel", "mel_hz", "frame", "log_mel",
)  # fmt: skip
BLOCK = 256  # headers read by one task
Rejected = tuple[str, str]  # path, reason


@dataclass(frozen=True)
class Corpus:
    """Audio files found on disk."""

    name: str  # of the folder; part of the names of stores and runs
    root: Path  # that `path` is relative to
    table: pd.DataFrame  # a row per file: path, language, genre, family, track, and further columns of a manifest
    factors: tuple[str, ...]  # numeric columns that describe the sound (tempo, key, …) and differ between clips
    left_out: tuple[Rejected, ...] = ()  # files that are there and cannot be used, known before any is opened
    notes: tuple[str, ...] = ()  # sentences for the owner of the collection
    record: dict[str, Any] = field(default_factory=dict)  # `corpus.json` of a rendered corpus; {} for own music

    def fingerprint(self) -> str:
        """Digest of names, labels, sizes and both ends of every file; equal on every machine."""
        total = hashlib.blake2b(self.table.to_csv(index=False).encode(), digest_size=8)
        with ThreadPoolExecutor() as pool:
            for digest in pool.map(_file_digest, (self.root / path for path in self.table["path"])):
                total.update(digest)
        return total.hexdigest()


def _file_digest(path: Path, ends: int = 16_384) -> bytes:
    h = hashlib.blake2b(digest_size=8)
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            h.update(size.to_bytes(8, "big") + file.read(ends))
            file.seek(max(size - ends, 0))
            h.update(file.read(ends))
    except OSError:
        h.update(b"unreadable")
    return h.digest()


def read_corpus(
    folder: Path | str, *, labels: str = "", manifest: Path | str = "", allow_outside: bool = False
) -> Corpus:
    """Find the audio files of a collection and what is known of them.

    From the first of these that is there: a `manifest`; `manifest.csv` or `manifest.parquet` in the folder; the names
    of the folders (`labels`).

    Args:
        folder: The collection.
        labels: What the levels of folders mean, from the top, e.g. `{genre}/{artist}/{album}/{track}` or
            `*/{genre}/{artist} - {title}`: names without the suffix; `*` is anything. Files that do not fit have no
            labels. Default: language/genre/file, genre/file, or the file alone.
        manifest: CSV or Parquet table with a column `path`, relative to the folder.
        allow_outside: Whether a manifest's paths may leave the folder.

    Raises:
        InputError: no such folder, no audio in it, a rendered corpus of an older version, or a manifest without `path`
            or with paths outside.
    """
    root = Path(folder).expanduser()
    if not os.path.isdir(root):  # False too where it may not be asked
        raise InputError(f"no corpus at {root}: give a folder of audio files, or run `vaelib demo` for the demo corpus")
    if labels and manifest:
        raise InputError("labels and manifest exclude each other: give one of them")
    root = root.resolve()
    files, left_out = audio_files(root)
    inside = next(filter(Path.is_file, map(root.joinpath, MANIFESTS)), None)
    source = Path(manifest).expanduser() if manifest else None if labels else inside
    if source:
        table, notes = manifest_table(source, root, allow_outside), []
        unlisted = sorted(set(files) - set(table["path"]))
        left_out += [(path, f"is not in {source.name}; add a row to use it") for path in unlisted]
    else:
        table, notes = folder_table(root, files, labels)
    if own := [c for c in table if c in OWN]:
        notes.append(f"columns {', '.join(own)} are not read: the store has its own")
        table = table.drop(columns=own)

    def words(column: str) -> pd.Series:
        """A column as text, "" where nothing is known."""
        return table[column].fillna("").astype(str) if column in table else pd.Series("", table.index)

    for label in LABELS:
        table[label] = words(label).replace("", UNLABELLED)
    track, artist = words("track"), words("artist")
    if source:  # two artists may have a track of one name
        track = track.where(track.eq("") | artist.eq(""), artist + ": " + track)
    table["track"] = track.where(track.ne(""), table["path"])
    table = table.sort_values("path", ignore_index=True)
    numeric = [c for c in table if c not in NOT_FACTORS and pd.api.types.is_numeric_dtype(table[c])]
    factors = tuple(c for c in numeric if table[c].nunique() > 1)  # what is the same in every clip explains nothing
    return Corpus(root.name, root, table, factors, tuple(left_out), tuple(notes), read_record(root))


def read_record(root: Path) -> dict[str, Any]:
    """What `corpus.json` says of a rendered corpus; {} where there is none: a person's own music."""
    try:
        record = json.loads((root / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict) or "rendering" not in record:
        return {}
    if "rungs" not in record or "units" not in record:
        raise InputError(
            f"{root} was rendered by an older version: render it again (`vaelib demo`), its clips are kept"
        )
    return record


# --- files and what is said of them ---


def audio_files(root: Path) -> tuple[list[str], list[Rejected]]:
    """Audio files below a folder; links to folders are followed, each folder is entered once.

    Returns:
        Paths relative to the folder, in order; and (path, reason) of those that cannot even be named or seen.
    """
    files, bad, seen = [], [], set()

    def refused(error: OSError) -> None:
        bad.append((_printable(os.path.relpath(error.filename, root)), f"may not be read ({error.strerror}); allow it"))

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
            if _printable(relative) != relative:
                bad.append((_printable(relative), "has a name that is not UTF-8; rename it, e.g. with convmv"))
            elif os.path.isfile(path):
                files.append(relative)
            else:
                bad.append((relative, "is no file (a broken link, or a device); remove it"))
    return files, bad


def _hidden(name: str) -> bool:
    """`.cache`, and `._song.mp3`, a Mac's notes on a song; but not `...And Justice for All`."""
    return name.startswith(".") and not name.startswith("..")


def _printable(path: str) -> str:
    """A path that can be written: bytes that are not UTF-8 become escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def manifest_table(manifest: Path, root: Path, allow_outside: bool = False) -> pd.DataFrame:
    """Read a manifest: a CSV or Parquet table with a column `path`, relative to `root`; it is data, nothing is run.

    Raises:
        InputError: it is not there, no such table, or a path leaves the root and is not allowed to.
    """
    if not manifest.is_file():
        raise InputError(f"no manifest at {manifest}: give a CSV or Parquet file, or leave it out to read the folders")
    try:
        if manifest.suffix.lower() in (".parquet", ".pq"):
            table = pd.read_parquet(manifest)
        else:
            table = pd.read_csv(manifest, dtype=dict.fromkeys(("path", *LABELS, "artist", "track"), str))
    except Exception as e:  # the parsers raise many kinds
        line = (str(e).strip().splitlines() or [type(e).__name__])[0][:120]
        raise InputError(
            f"{manifest} is not a readable table ({line}); write it as Parquet, or as UTF-8 CSV with a header"
        ) from e
    table.columns = [str(c).strip().lstrip("\ufeff") for c in table.columns]
    table = table.loc[:, ~table.columns.duplicated()]
    if "path" not in table or table.empty:
        raise InputError(f"{manifest} has no rows with a `path` column; add it (paths relative to the collection)")
    table = table.assign(path=table["path"].fillna("").astype(str))
    for row, path in enumerate(table["path"], start=2):
        where = f"{manifest}, line {row}"
        if not path.strip() or "\0" in path:
            raise InputError(f"{where}: {path!r} is no path; correct it or remove the line")
        if not allow_outside and not _inside(root, path):
            raise InputError(
                f"{where}: {path!r} leaves the corpus folder; use a path inside it, or allow it (--allow-outside)"
            )
    for column in table.columns:  # lists, dates, mixed types: as text
        if not pd.api.types.is_numeric_dtype(table[column]) or pd.api.types.is_complex_dtype(table[column]):
            table[column] = table[column].map(str, na_action="ignore").astype(object)
    return table.drop_duplicates("path", ignore_index=True)


def _inside(root: Path, path: str) -> bool:
    """Whether a path stays below the resolved root: written so, and with its links resolved."""
    try:
        return ".." not in Path(path).parts and (root / path).resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links, a name that is too long
        return False


def folder_table(root: Path, files: Sequence[str], labels: str = "") -> tuple[pd.DataFrame, list[str]]:
    """Labels from the names of folders and files (see `read_corpus`).

    Returns:
        A row per file, and sentences for the owner.

    Raises:
        InputError: no file, none that fits the pattern, or no pattern.
    """
    if not files:
        raise InputError(f"no audio in {root}: looked for {', '.join(AUDIO_SUFFIXES)} in it and its subfolders")
    if not labels:
        levels = [[UNLABELLED, UNLABELLED, *Path(path).parts] for path in files]
        return pd.DataFrame({"path": files, "language": [x[-3] for x in levels], "genre": [x[-2] for x in levels]}), []
    pattern = _pattern(labels)
    matches = [pattern.fullmatch(os.path.splitext(path)[0]) for path in files]
    if not any(matches):
        raise InputError(f"no file of {root} fits {labels!r}, for example {files[0]!r} does not; correct the pattern")
    table = pd.DataFrame([{"path": p} | (m.groupdict() if m else {}) for p, m in zip(files, matches, strict=True)])
    if "track" in table:  # a name is one track in its folder only: every album has a first song
        folders = table["path"].map(os.path.dirname)
        table["track"] = [os.path.join(f, t) if t == t else t for f, t in zip(folders, table["track"], strict=True)]
    others = matches.count(None)
    return table, [f"{others} of {len(files)} files do not fit {labels!r} and have no labels"] if others else []


def _pattern(labels: str) -> re.Pattern[str]:
    """`{genre}/{artist} - {title}` → a regular expression with these groups."""
    parts = re.split(r"(\{\w+\}|\*)", labels.strip("/"))  # at odd places what stands in braces, and stars
    names = [p[1:-1] for p in parts[1::2] if p != "*"]
    bad = [n for n in names if n in (*OWN, "path") or n[0].isdigit()]
    if bad or not names or len(set(names)) < len(names) or any("{" in p or "}" in p for p in parts[::2]):
        raise InputError(
            f"labels {labels!r} is no pattern{f', {bad[0]!r} cannot be a label' if bad else ''}: write the levels of "
            "folders with names in braces, each once, e.g. {language}/{genre}/{artist}/{track}"
        )
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = ["[^/]*" if p == "*" else f"(?P<{p[1:-1]}>[^/]+?)" for p in parts[1::2]]
    return re.compile("".join(parts), re.DOTALL)


# --- what can be used ---


def quarantine(
    corpus: Corpus, fe: FrontEnd, length: float, step: float, apply: Callable = map
) -> tuple[pd.DataFrame, list[Rejected]]:
    """Read every file's header, set aside what cannot be used, and cut the others into segments.

    Args:
        length, step: Of a segment and from one to the next, seconds (`vaelib.audio.segments`).
        apply: Calls a function with each of many lists of paths, like the built-in `map`.

    Returns:
        One row per segment, with `start_s`, `seconds` (nan: to the end of the file), `n_frames`, `rate`, `channels` and
        `format`; and the rejected (path, reason) pairs.

    Raises:
        InputError: a worker does not see the folder.
    """
    paths = corpus.table["path"].tolist()
    blocks = [paths[i : i + BLOCK] for i in range(0, len(paths), BLOCK)]
    found = [about for part in apply(partial(_headers, corpus.root), blocks) for about in part]
    bad, rows, cut = list(corpus.left_out), [], []
    for i, (path, about) in enumerate(zip(paths, found, strict=True)):
        try:
            if isinstance(about, str):
                raise UnreadableAudio(about)
            places = segments(about.seconds, fe, length, step)
        except UnreadableAudio as e:
            bad.append((path, str(e)))
            continue
        for start, seconds in places:
            frames = frames_of(about.seconds - start if seconds is None else seconds, fe)
            rows.append(i)
            cut.append((start, np.nan if seconds is None else seconds, frames, *about[1:]))
    columns = ["start_s", "seconds", "n_frames", "rate", "channels", "format"]
    return corpus.table.iloc[rows].reset_index(drop=True).join(pd.DataFrame(cut, columns=columns)), bad


def _headers(root: Path, paths: list[str]) -> list[Header | str]:
    """Header of each file, or the reason why it cannot be used."""
    require_seen(root)
    found: list[Header | str] = []
    for path in paths:
        try:
            found.append(header(root / path))
        except UnreadableAudio as e:
            found.append(str(e))
    return found


def require_seen(folder: Path) -> None:
    """Raise InputError where a folder is not there: a worker elsewhere would set every file aside as missing."""
    if not folder.is_dir():
        raise InputError(
            f"{socket.gethostname()} does not see {folder}: workers on other machines need the corpus and the data "
            "folder under the same names"
        )
