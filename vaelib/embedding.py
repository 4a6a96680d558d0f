"""New files in the latent space of a trained run: where they lie, what the model calls them, their nearest songs."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from . import audio
from .audio import header
from .collection import LABELS, UNLABELLED
from .config import InputError, one_of, write_atomic
from .explore import player, wave_player
from .metrics.clustering import nearest
from .models import VaDE
from .plots import maps
from .report import Section
from .report import write as write_report
from .runs import Run, track_means
from .store import CUT
from .windows import Clips

PER = ("file", "segment")
LONGEST_SOUND = 30.0  # seconds of a new file that a page plays


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

    A conditional model infers the class of each window; the mean of its probabilities is given. The windows of a
    file share one cluster variable of a VaDE, those of all its segments too.

    Args:
        run: A trained run.
        files: Audio files, of the collection or new.
        per: A row for each `file` or for each `segment` of a long one.
        show: Called after each file.

    Raises:
        InputError: another `per`. A file that cannot be used is named in `failed`, and the others go on.
    """
    one_of("unit", per, PER)
    rows, codes, shares, failed = [], [], [], {}
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
            shares.append(_shares(run, torch.cat(z), logits))
    table = pd.DataFrame(rows, columns=["file", "start", "seconds", "segments"])
    group, groups = _groups(run)
    means = np.array(codes, np.float32).reshape(len(rows), run.config.model.latent)
    return Embedded(table, means, np.array(shares).reshape(len(rows), len(groups)), groups, group, failed)


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


def more_like(run: Run, found: Embedded, k: int, metric: str = "euclidean") -> list[pd.DataFrame]:
    """The `k` songs of the run's collection nearest to each row, in the model's own space; never the song itself.

    Returns:
        For each row a table, nearest first, indexed by rows of the store: `path`, labels, `distance`.
    """
    every = run.embed(None)
    first, number = run.store.tracks(every.rows)
    table, root = run.store.table.loc[first], Path(run.store.attrs["corpus_root"]).resolve()
    inside = {str(root / p): t for p, t in zip(run.store.table.loc[every.rows, "path"], number, strict=True)}
    asked = np.array([inside.get(str(Path(f).resolve()), -1) for f in found.table["file"]], int)
    means = track_means(every.means, number)
    places, distances = nearest(found.means, means, k, metric, (asked, np.arange(len(first))))
    labels = [c for c in LABELS if c in table and (table[c] != UNLABELLED).any()]
    return [
        table.iloc[at[at >= 0]][["path", *labels]].assign(distance=d[at >= 0])
        for at, d in zip(places, distances, strict=True)
    ]


# --- written and printed ---

ENDINGS = (".csv", ".parquet", ".html")


def named(file: str) -> str:
    """A file's name as text for a table or terminal: what does not print is spelled out (`\\n`, `\\xff`)."""
    text = os.fsencode(file).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def frame_of(found: Embedded, neighbours: Sequence[pd.DataFrame] = ()) -> pd.DataFrame:
    """One row per file or segment: what was heard, `z0` …, `p_<class>` …, `near_1`, `near_1_distance` and so on."""
    table = found.table.assign(file=[named(f) for f in found.table["file"]]).reset_index(drop=True)
    codes = pd.DataFrame(found.means, columns=[f"z{i}" for i in range(found.means.shape[1])])
    shares = pd.DataFrame(found.shares, columns=[f"p_{g}" for g in found.groups])
    columns = {}
    for i in range(max(map(len, neighbours), default=0)):
        columns[f"near_{i + 1}"] = [named(n["path"].iloc[i]) if i < len(n) else "" for n in neighbours]
        columns[f"near_{i + 1}_distance"] = [n["distance"].iloc[i] if i < len(n) else np.nan for n in neighbours]
    return pd.concat([table, codes, shares, pd.DataFrame(columns, index=table.index)], axis=1)


def check_output(path: Path) -> Path:
    """Refuse a name that cannot be written, before any file is decoded.

    Raises:
        InputError: a folder, another ending than those of `ENDINGS`, or Parquet without its library.
    """
    if path.is_dir():
        raise InputError(f"--output {path} is a folder: give the name of a {', '.join(ENDINGS)} file")
    if path.suffix not in ENDINGS:
        raise InputError(f"--output {path} ends in {path.suffix or 'nothing'}: end it in {', '.join(ENDINGS)}")
    if path.suffix == ".parquet" and not find_spec("pyarrow"):
        raise InputError(f"--output {path}: Parquet needs `pip install pyarrow`; or choose .csv")
    return path


def write(run: Run, found: Embedded, path: Path, neighbours: Sequence[pd.DataFrame] = ()) -> Path:
    """Write the rows as CSV or Parquet (`frame_of`), or as a page with a map, players and the nearest songs.

    Raises:
        InputError: as `check_output`, or the file cannot be written.
    """
    check_output(path)
    if path.suffix == ".html":
        return _page(run, found, path, neighbours)
    frame = frame_of(found, neighbours)
    return write_atomic(path, frame.to_parquet(index=False) if path.suffix == ".parquet" else frame.to_csv(index=False))


def _page(run: Run, found: Embedded, path: Path, neighbours: Sequence[pd.DataFrame]) -> Path:
    """For each file a section: where it lies on a map of the collection, its sound, the nearest songs with theirs."""
    sections, fe = [], run.store.front_end
    with TemporaryDirectory() as folder:
        for i, row in enumerate(found.table.itertuples()):
            picture = Path(folder) / f"{i}.png"
            _draw(run, found.means[i], neighbours[i].index if neighbours else (), picture)
            wave = audio.load(Path(row.file), fe, row.start, min(row.seconds, LONGEST_SOUND))
            sounds = [f"<p>{wave_player(wave.numpy(), fe.sample_rate)._repr_html_()}</p>"]
            songs = neighbours[i].assign(path=[named(p) for p in neighbours[i]["path"]]) if neighbours else None
            for store_row, name in () if songs is None else songs["path"].items():
                sounds.append(f"<p>{html.escape(name)}</p>{player(run.store, store_row)._repr_html_()}")
            text = "Likeliest: " + _likeliest(found, i) if found.groups else ""
            sections.append(Section(named(Path(row.file).name), text, songs, picture, markup="".join(sounds)))
        return write_report(path, f"New files in the space of {run.name}", sections, f"Run: {run.folder}")


def _draw(run: Run, mean: np.ndarray, neighbours: Sequence[int], path: Path) -> None:
    """The codes of the collection on their two main axes, the new file as a star, its neighbours ringed."""
    every = run.embed(None)
    axes = PCA(2, random_state=0).fit(every.means)
    flat = pd.DataFrame(axes.transform(every.means), index=every.rows, columns=["x", "y"])
    label = next((c for c in ("language", "genre") if run.store.table[c].nunique() > 1), "language")
    figure, ax = maps({run.name: flat.to_numpy()}, run.store.table.loc[every.rows, label].to_numpy().astype(str))
    ax[0, 0].scatter(*flat.loc[list(neighbours)].to_numpy().T, s=60, facecolors="none", edgecolors="black")
    ax[0, 0].scatter(*axes.transform(mean[None])[0], s=220, marker="*", color="black", edgecolors="white")
    figure.set_size_inches(6, 6)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _likeliest(found: Embedded, row: int, most: int = 3) -> str:
    share = found.shares[row]
    top = [g for g in np.argsort(-share, kind="stable")[:most] if share[g] > 0.005]
    return ", ".join(f"{named(found.groups[g])} ({share[g]:.0%})" for g in top)


def text_of(found: Embedded, neighbours: Sequence[pd.DataFrame]) -> str:
    """A table for a terminal: each file with its likeliest groups, and below it distances and nearest songs."""
    lines = [["file", "heard", found.group]]
    for i, row in enumerate(found.table.itertuples()):
        times = (f"{s // 60:.0f}:{s % 60:04.1f}" for s in (round(row.start, 1), round(row.start + row.seconds, 1)))
        lines.append([named(row.file), "–".join(times), _likeliest(found, i)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    below = [[f"{d:10.3f}  " + " · ".join(map(named, words)) for *words, d in n.to_numpy()] for n in neighbours]
    return "\n".join(line for row, n in zip_longest(rows, [[], *below], fillvalue=[]) for line in (row, *n))
