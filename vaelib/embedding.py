"""New files in the latent space of a trained run: where they lie, what the model calls them, what lies near."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import audio
from .audio import header
from .collection import LABELS, UNLABELLED
from .config import InputError, one_of, write_atomic
from .metrics.clustering import nearest
from .models import VaDE
from .runs import Run, track_means
from .store import CUT
from .windows import Clips

PER = ("file", "segment")


@dataclass(frozen=True)
class Embedded:
    """Files (or their segments) in a run's latent space.

    Attributes:
        table: One row each: `file` as it was given, `start` and `seconds` of what was heard, `segments`.
        means: (row, L) posterior means, averaged over evenly spaced windows, then over segments.
        shares: (row, K) probabilities of the classes or components `groups`, (row, 0) where the model has neither.
        groups: Names of the columns of `shares`.
        group: What they are: `language`, `genre`, `component` or "".
        failed: File → why it could not be used.
    """

    table: pd.DataFrame
    means: np.ndarray
    shares: np.ndarray
    groups: tuple[str, ...]
    group: str
    failed: dict[str, str]

    def __len__(self) -> int:
        return len(self.table)


def embed_files(
    run: Run, files: Sequence[Path | str], per: str = "file", show: Callable[[], object] = lambda: None
) -> Embedded:
    """Embed audio files exactly as a run embeds the clips of its store (`Run.embed`, `Run.responsibilities`).

    A conditional model infers the class of each window and says the mean of its probabilities. The windows of a
    file share one cluster variable of a VaDE, those of all its segments too.

    Args:
        per: A row for each `file` or for each `segment` of a long one.
        show: Called after each file.

    Raises:
        InputError: another `per`. A file that cannot be used is named in `failed`, and the others go on.
    """
    one_of("unit", per, PER)
    rows, codes, said, failed = [], [], [], {}
    for file in map(str, files):
        try:
            parts = [(start, seconds, *_encode(run, wave)) for start, seconds, wave in _segments(Path(file), run)]
        except audio.UnreadableAudio as e:
            failed[file] = str(e)
            continue
        except OSError as e:  # a folder on the way may not be entered, a name is too long
            failed[file] = f"cannot be read ({e.strerror or e}); check its name and permissions"
            continue
        finally:
            show()
        for some in [parts] if per == "file" else [[p] for p in parts]:
            starts, seconds, z, logits = zip(*some, strict=True)
            rows.append((file, starts[0], starts[-1] + seconds[-1] - starts[0], len(some)))
            codes.append(np.mean([part.numpy().mean(0) for part in z], axis=0))
            said.append(_shares(run, torch.cat(z), logits))
    table = pd.DataFrame(rows, columns=["file", "start", "seconds", "segments"])
    group, groups = _groups(run)
    means = np.array(codes, np.float32).reshape(len(rows), run.config.model.latent)
    return Embedded(table, means, np.array(said).reshape(len(rows), len(groups)), groups, group, failed)


def _segments(file: Path, run: Run) -> Iterator[tuple[float, float, Tensor]]:
    """Start and length in seconds, and the wave (samples,) of each segment of a file, cut as the store's files were.

    Raises:
        UnreadableAudio: the file cannot be used.
    """
    if file.is_dir():
        raise audio.UnreadableAudio(f"is a folder; give the files in it, e.g. {file}/*.mp3")
    if not file.exists():
        raise audio.UnreadableAudio("is not there; check the name")
    fe = run.store.front_end
    cut = (float(run.store.attrs.get(name, audio.SEGMENT_S)) for name in CUT)
    failed, heard = None, False
    for start, length in audio.segments(header(file).seconds, fe, *cut):
        try:
            wave = audio.load(file, fe, start, length)
        except audio.UnreadableAudio as e:  # a silent part of a song is left out, as it is of the store
            failed = e
            continue
        heard = True
        yield start, len(wave) / fe.sample_rate, wave
    if failed and not heard:
        raise failed


@torch.inference_mode()
def _encode(run: Run, wave: Tensor) -> tuple[Tensor, Tensor | None]:
    """Posterior means (window, L) and class logits (window, C) of the evenly spaced windows of one wave."""
    db = audio.log_mel(wave, run.store.front_end).numpy()
    level, tilt = (np.float32([v]) for v in audio.level_and_tilt(db))
    # float16 twice: in decibels as a store keeps them, then scaled as `Clips` does
    mel = run.scaler.transform(db[None].astype(np.float16), level, tilt).astype(np.float16)
    mel = mel[..., : run.store.front_end.frames] if run.store.attrs["windows"] == "start" else mel
    clip = Clips(torch.from_numpy(mel), torch.tensor([mel.shape[2]]), run.store.front_end.frames, np.zeros(1, int))
    k = clip.distinct(run.config.training.eval_windows)
    with run.lock:
        q = run.model.encode(clip.even_windows(torch.zeros(1, dtype=torch.int64), k).flatten(0, 1))
    return q.mean, q.class_logits


@torch.inference_mode()
def _shares(run: Run, z: Tensor, logits: Sequence[Tensor | None]) -> np.ndarray:
    """(K,) probabilities of one row: all windows share one component; of classes the mean over windows."""
    if isinstance(run.model, VaDE):
        with run.lock:
            return run.model.responsibilities(z, len(z)).exp()[0].numpy()
    return torch.cat(list(logits)).float().softmax(1).mean(0).numpy() if run.conditional else np.zeros(0, np.float32)


def _groups(run: Run) -> tuple[str, tuple[str, ...]]:
    model = run.config.model
    if isinstance(run.model, VaDE):
        return "component", tuple(map(str, range(model.components)))
    return (model.condition, tuple(model.classes)) if run.conditional else ("", ())


# --- more like this ---


def more_like(run: Run, found: Embedded, k: int, metric: str = "euclidean") -> list[pd.DataFrame]:
    """The `k` songs of the run's collection nearest to each row, in the model's own space; never the song itself.

    Returns:
        For each row a table, nearest first: `path`, labels, `distance`.
    """
    every = run.embed(None)
    first, number = run.store.tracks(every.rows)
    table, root = run.store.table.loc[first], Path(run.store.attrs["corpus_root"]).resolve()
    inside = {str(root / p): t for p, t in zip(run.store.table.loc[every.rows, "path"], number, strict=True)}
    asked = np.array([inside.get(str(Path(f).resolve()), -1) for f in found.table["file"]], int)
    means = track_means(every.means, number)
    places, far = nearest(found.means, means, k, metric, (asked, np.arange(len(first))))
    labels = [c for c in LABELS if c in table and (table[c] != UNLABELLED).any()]
    return [
        table.iloc[at[at >= 0]][["path", *labels]].assign(distance=d[at >= 0]).reset_index(drop=True)
        for at, d in zip(places, far, strict=True)
    ]


# --- written and printed ---


def named(file: str) -> str:
    """A file's name as text for a table or terminal: what does not print is spelled out (`\\n`, `\\xff`)."""
    text = os.fsencode(file).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def frame_of(found: Embedded, near: Sequence[pd.DataFrame] = ()) -> pd.DataFrame:
    """One row per file or segment: what was heard, `z0` …, `p_<class>` …, `near_1`, `near_1_distance` …"""
    table = found.table.assign(file=[named(f) for f in found.table["file"]]).reset_index(drop=True)
    codes = pd.DataFrame(found.means, columns=[f"z{i}" for i in range(found.means.shape[1])])
    shares = pd.DataFrame(found.shares, columns=[f"p_{g}" for g in found.groups])
    columns = {}
    for i in range(max(map(len, near), default=0)):
        columns[f"near_{i + 1}"] = [named(n["path"].get(i, "")) for n in near]
        columns[f"near_{i + 1}_distance"] = [n["distance"].get(i, np.nan) for n in near]
    return pd.concat([table, codes, shares, pd.DataFrame(columns, index=table.index)], axis=1)


def check_output(path: Path) -> Path:
    """Refuse a name that cannot be written, before any file is decoded.

    Raises:
        InputError: a folder, another ending than `.csv`, `.parquet` or `.npz`, or Parquet without its library.
    """
    if path.is_dir():
        raise InputError(f"--output {path} is a folder: give the name of a .csv, .parquet or .npz file")
    if path.suffix not in WRITERS:
        raise InputError(f"--output {path} ends in {path.suffix or 'nothing'}: end it in {', '.join(WRITERS)}")
    if path.suffix == ".parquet" and not (find_spec("pyarrow") or find_spec("fastparquet")):
        raise InputError(f"--output {path}: Parquet needs `pip install pyarrow`; or choose .csv or .npz")
    return path


def write(found: Embedded, path: Path, near: Sequence[pd.DataFrame] = ()) -> Path:
    """Write the rows as CSV or Parquet (`frame_of`), or as the arrays of an NPZ that loads without pickle.

    Raises:
        InputError: as `check_output`, or the disk refuses.
    """
    make = WRITERS[check_output(path).suffix]
    try:
        return write_atomic(path, make(found, near))
    except OSError as e:
        raise InputError(f"cannot write {path}: {e.strerror or e}; make room or choose another folder") from e


def _csv(found: Embedded, near: Sequence[pd.DataFrame]) -> bytes:
    return frame_of(found, near).to_csv(index=False).encode()


def _parquet(found: Embedded, near: Sequence[pd.DataFrame]) -> bytes:
    buffer = io.BytesIO()
    frame_of(found, near).to_parquet(buffer, index=False)
    return buffer.getvalue()


def _npz(found: Embedded, near: Sequence[pd.DataFrame]) -> bytes:
    frame, buffer = frame_of(found, near), io.BytesIO()
    arrays = {c: frame[c].to_numpy() for c in ("start", "seconds", "segments")}
    names = [c for c in frame if c.startswith("near_") and not c.endswith("_distance")]
    arrays |= {"files": frame["file"].to_numpy(str), "means": found.means, "shares": found.shares}
    arrays |= {"groups": np.array(found.groups, str), "group": np.array(found.group)}
    if names:
        arrays["near"] = frame[names].to_numpy(str)
        arrays["near_distance"] = frame[[f"{n}_distance" for n in names]].to_numpy(float)
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


WRITERS = {".csv": _csv, ".parquet": _parquet, ".npz": _npz}


def text_of(found: Embedded, near: Sequence[pd.DataFrame], most: int = 3) -> str:
    """A table for a terminal: each file with its likeliest groups, and below it distances and nearest clips."""
    lines = [["file", "heard", found.group]]
    for share, row in zip(found.shares, found.table.itertuples(), strict=True):
        top = [g for g in np.argsort(-share, kind="stable")[:most] if share[g] > 0.005]
        likely = ", ".join(f"{named(found.groups[g])} ({share[g]:.0%})" for g in top)
        lines.append([named(row.file), f"{_clock(row.start)}–{_clock(row.start + row.seconds)}", likely])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    told = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    below = [[f"{d:10.3f}  " + " · ".join(map(named, words)) for *words, d in clips.to_numpy()] for clips in near]
    return "\n".join(line for row, clips in zip_longest(told, [[], *below], fillvalue=[]) for line in (row, *clips))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"
