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

import pandas as pd
from pandas.api.types import is_complex_dtype, is_numeric_dtype

from .audio import AUDIO_SUFFIXES, UnreadableAudio, frames_of, header, segments
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
HIDDEN = re.compile(r"\.(?!\.)")  # .cache, and ._song.mp3, a Mac's notes on a song; not ...And Justice for All
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
    """Find the audio files of a folder and what is known of them.

    Args:
        labels: What the levels of folders mean, from the top, e.g. `{genre}/{artist}/{album}/{track}` or
            `*/{genre}/{artist} - {title}`: names without the suffix; `*` is anything. Files that do not fit have no
            labels. Default: language/genre/file, genre/file, or the file alone.
        manifest: CSV or Parquet table with a column `path`, relative to the folder; without one and without `labels`
            the first of `MANIFESTS` that is in the folder.
        allow_outside: Whether a manifest's paths may leave the folder.

    Raises:
        InputError: no such folder, no audio in it, a pattern or table that is none, or paths outside.
    """
    root = Path(folder).expanduser()
    if not os.path.isdir(root):  # False too where it may not be asked
        raise InputError(f"no corpus at {root}: give a folder of audio files, or run `vaelib demo` for the demo corpus")
    if labels and manifest:
        raise InputError("labels and manifest exclude each other: give one of them")
    root = root.resolve()
    files, left_out = _audio_files(root)
    inside = next(filter(Path.is_file, map(root.joinpath, MANIFESTS)), None)
    source = Path(manifest).expanduser() if manifest else None if labels else inside
    if source:
        table, notes = _manifest_table(source, root, allow_outside), []
        unlisted = sorted(set(files) - set(table["path"]))
        left_out += [(path, f"is not in {source.name}; add a row to use it") for path in unlisted]
    else:
        table, notes = _folder_table(root, files, labels)
    if own := [c for c in table if c in OWN]:
        notes.append(f"columns {', '.join(own)} are not read: the store has its own")
        table = table.drop(columns=own)
    known = table.reindex(columns=[*LABELS, "track", "artist"]).astype(object).fillna("").astype(str)
    table[list(LABELS)] = known[list(LABELS)].replace("", UNLABELLED)
    track = known["track"]
    if source:  # two artists may have a track of one name
        track = track.where(track.eq("") | known["artist"].eq(""), known["artist"] + ": " + track)
    table["track"] = track.where(track.ne(""), table["path"])
    table = table.sort_values("path", ignore_index=True)
    numeric = [c for c in table if c not in NOT_FACTORS and is_numeric_dtype(table[c])]
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
        raise InputError(f"{root} was rendered by an older version: run `vaelib demo` again, its clips are kept")
    return record


def _audio_files(root: Path) -> tuple[list[str], list[Rejected]]:
    """Audio files below a folder, in order, and what cannot even be named or seen; links to folders are followed."""
    files, bad, seen = [], [], set()

    def set_aside(path: str, reason: str) -> None:
        bad.append((os.fsencode(path).decode("utf-8", "backslashreplace"), reason))  # what is not UTF-8 with escapes

    def refused(error: OSError) -> None:
        set_aside(os.path.relpath(error.filename, root), f"may not be read ({error.strerror}); allow it")

    for folder, folders, names in os.walk(root, followlinks=True, onerror=refused):
        about = os.stat(folder)
        if (about.st_dev, about.st_ino) in seen:  # a loop, or a second way here
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(f for f in folders if not HIDDEN.match(f))
        for name in sorted(names):
            path = os.path.relpath(os.path.join(folder, name), root)
            if Path(name).suffix.lower() not in AUDIO_SUFFIXES or HIDDEN.match(name):
                continue
            if os.fsencode(path) != path.encode(errors="replace"):
                set_aside(path, "has a name that is not UTF-8; rename it, e.g. with convmv")
            elif os.path.isfile(root / path):
                files.append(path)
            else:
                set_aside(path, "is no file (a broken link, or a device); remove it")
    return files, bad


def _manifest_table(manifest: Path, root: Path, allow_outside: bool) -> pd.DataFrame:
    """Read a table with a column `path`, relative to `root`; it is data, nothing is run."""
    if not manifest.is_file():
        raise InputError(f"no manifest at {manifest}: give a CSV or Parquet file, or leave it out to read the folders")
    try:
        if manifest.suffix.lower() in (".parquet", ".pq"):
            table = pd.read_parquet(manifest)
        else:
            table = pd.read_csv(manifest, dtype=dict.fromkeys(("path", *LABELS, "artist", "track"), str))
    except Exception as e:  # the parsers raise many kinds
        line = (str(e).strip().splitlines() or [type(e).__name__])[0][:120]
        raise InputError(f"{manifest} is no readable table ({line}); write Parquet, or UTF-8 CSV with a header") from e
    table.columns = [str(c).strip() for c in table.columns]
    table = table.loc[:, ~table.columns.duplicated()]
    if "path" not in table or table.empty:
        raise InputError(f"{manifest} has no rows with a `path` column; add it (paths relative to the collection)")
    table = table.assign(path=table["path"].fillna("").astype(str))
    for row, path in enumerate(table["path"], start=2):
        fault = ""
        if not path.strip() or "\0" in path:
            fault = "is no path; correct it or remove the line"
        elif not allow_outside and not _inside(root, path):
            fault = "leaves the corpus folder; use a path inside it, or allow it (--allow-outside)"
        if fault:
            raise InputError(f"{manifest}, line {row}: {path!r} {fault}")
    for column in table.columns:  # lists, dates, mixed types: as text
        if not is_numeric_dtype(table[column]) or is_complex_dtype(table[column]):
            table[column] = table[column].map(str, na_action="ignore").astype(object)
    return table.drop_duplicates("path", ignore_index=True)


def _inside(root: Path, path: str) -> bool:
    """Whether a path stays below the resolved root: written so, and with its links resolved."""
    try:
        return ".." not in Path(path).parts and (root / path).resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links, a name that is too long
        return False


def _folder_table(root: Path, files: Sequence[str], labels: str) -> tuple[pd.DataFrame, list[str]]:
    """Labels from the names of folders and files, a row per file; and sentences for the owner."""
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
    text = re.escape(labels.strip("/")).replace(r"\*", "[^/]*")
    text = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+?)", text)
    try:
        pattern = re.compile(text, re.DOTALL)
    except re.error:  # a name begins with a digit, or stands twice
        pattern = re.compile("")
    if not pattern.groups or {"path", *OWN} & set(pattern.groupindex) or re.search(r"\\[{}]", text):
        usage = "write the levels of folders with names in braces, each once, e.g. {language}/{genre}/{artist}/{track}"
        raise InputError(f"labels {labels!r} is no pattern: {usage}; {', '.join(('path', *OWN))} are taken")
    return pattern


def quarantine(
    corpus: Corpus, fe: FrontEnd, length: float, step: float, apply: Callable = map
) -> tuple[pd.DataFrame, list[Rejected]]:
    """Read every file's header, set aside what cannot be used, and cut the others (`vaelib.audio.segments`).

    `apply` works like the built-in `map`. Returns one row per segment, with `start_s`, `seconds` (nan: to the end of
    the file), `n_frames`, `rate`, `channels` and `format`; and the rejected (path, reason) pairs.
    """
    paths = corpus.table["path"].tolist()
    blocks = [paths[i : i + BLOCK] for i in range(0, len(paths), BLOCK)]
    found = [part for block in apply(partial(_segments, corpus.root, fe, length, step), blocks) for part in block]
    reasons = [(path, part) for path, part in zip(paths, found, strict=True) if isinstance(part, str)]
    rows = [(i, *segment) for i, part in enumerate(found) if not isinstance(part, str) for segment in part]
    columns = ["row", "start_s", "seconds", "n_frames", "rate", "channels", "format"]
    cut = pd.DataFrame(rows, columns=columns).astype({"row": int, "seconds": float})
    table = corpus.table.iloc[cut.pop("row")].reset_index(drop=True)
    return table.join(cut), [*corpus.left_out, *reasons]


def _segments(root: Path, fe: FrontEnd, length: float, step: float, paths: list[str]) -> list[list[tuple] | str]:
    """Of each file the segments, or the reason why it cannot be used."""
    require_seen(root)
    found: list[list[tuple] | str] = []
    for path in paths:
        try:
            about = header(root / path)
            places = segments(about.seconds, fe, length, step)
            found.append([(s, n, frames_of(n or about.seconds - s, fe), *about[1:]) for s, n in places])
        except UnreadableAudio as e:
            found.append(str(e))
    return found


def require_seen(folder: Path) -> None:
    """Raise InputError where a folder is not there: a worker elsewhere would set every file aside as missing."""
    if not folder.is_dir():
        here = socket.gethostname()
        raise InputError(f"{here} does not see {folder}: workers need corpus and data folder under the same names")
