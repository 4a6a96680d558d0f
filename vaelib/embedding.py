"""New files in the latent space of a trained run: where they lie, what the model calls them, their nearest songs."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import audio
from .collection import LABELS, UNLABELLED
from .config import InputError, one_of, write_atomic
from .explore import player, wave_player
from .metrics.clustering import nearest, project
from .models import VaDE
from .plots import maps
from .report import Section
from .report import write as write_report
from .runs import Run, track_means
from .store import CUT
from .windows import Clips

PER = ("file", "segment")
ENDINGS = (".csv", ".parquet", ".html")
LONGEST_SOUND = 30.0  # seconds of a new file that a page plays


@dataclass(frozen=True)
class Embedded:
    """Files (or their segments) in a run's latent space.

    Attributes:
        table: One row each: `file` as it was given, `start` and `seconds` of what was heard, `segments`; `z0` …,
            posterior means averaged over evenly spaced windows, then over segments; `p_<class>` …, probabilities.
        group: What the classes are: `language`, `genre`, `component`, or "" where the model has neither.
        failed: File → why it could not be used.
    """

    table: pd.DataFrame
    group: str
    failed: dict[str, str]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def means(self) -> np.ndarray:
        """(row, L) float32."""
        return self.table.filter(regex=r"^z\d+$").to_numpy(np.float32)

    @property
    def shares(self) -> pd.DataFrame:
        """(row, class) probabilities."""
        return self.table.filter(regex="^p_").rename(columns=lambda name: name.removeprefix("p_"))


@torch.inference_mode()
def embed_files(run: Run, files: Iterable[Path | str], per: str = "file") -> Embedded:
    """Embed audio files, of the collection or new, exactly as a run embeds the clips of its store (`Run.embed`).

    A conditional model infers the class of each window; the mean of its probabilities is given. The windows of a file
    share one cluster variable of a VaDE, those of all its segments too.

    Args:
        per: A row for each `file` or for each `segment` of a long one.

    Raises:
        InputError: another `per`. A file that cannot be used is named in `failed`, and the others go on.
    """
    one_of("unit", per, PER)
    model, rows, failed = run.config.model, [], {}
    group = "component" if isinstance(run.model, VaDE) else model.condition
    for file in map(str, files):
        try:
            parts = [(start, seconds, *_encode(run, wave)) for start, seconds, wave in _segments(Path(file), run)]
        except audio.UnreadableAudio as e:
            failed[file], parts = str(e), []
        for some in [parts] if per == "file" and parts else [[p] for p in parts]:
            starts, seconds, z, logits = zip(*some, strict=True)
            row = {"file": file, "start": starts[0], "seconds": starts[-1] + seconds[-1] - starts[0]}
            row["segments"], mean = len(some), np.mean([part.numpy().mean(0) for part in z], axis=0)
            row |= {f"z{i}": value for i, value in enumerate(mean)}
            if group == "component":
                share = run.model.responsibilities(torch.cat(z), sum(map(len, z))).exp()[0].tolist()
                row |= {f"p_{i}": value for i, value in enumerate(share)}
            elif group:
                share = torch.cat(logits).float().softmax(1).mean(0).tolist()
                row |= {f"p_{name}": value for name, value in zip(model.classes, share, strict=True)}
            rows.append(row)
    return Embedded(pd.DataFrame(rows), group, failed)


def _segments(file: Path, run: Run) -> Iterator[tuple[float, float, Tensor]]:
    """Start and length in seconds, and the wave (samples,) of each segment of a file, cut as the store's files were."""
    if not os.path.exists(file):  # Path.exists raises where a name is too long
        raise audio.UnreadableAudio("is not there; check the name")
    if file.is_dir():
        raise audio.UnreadableAudio(f"is a folder; give the files in it, e.g. {file}/*.mp3")
    fe, failed, heard = run.store.front_end, None, False
    for start, length in audio.segments(audio.header(file).seconds, fe, *(run.store.attrs[name] for name in CUT)):
        try:
            wave = audio.load(file, fe, start, length)
        except audio.UnreadableAudio as e:  # a silent part of a song is left out, as it is of the store
            failed = e
            continue
        heard = True
        yield start, len(wave) / fe.sample_rate, wave
    if not heard:
        raise failed


def _encode(run: Run, wave: Tensor) -> tuple[Tensor, Tensor | None]:
    """Posterior means (window, L) and class logits (window, C) of the evenly spaced windows of one wave."""
    fe = run.store.front_end
    db = audio.log_mel(wave, fe).numpy()
    level, tilt = (np.float32([v]) for v in audio.level_and_tilt(db))
    # float16 twice: in decibels as a store keeps them, then scaled as `Clips` does
    mel = run.scaler.transform(db[None].astype(np.float16), level, tilt).astype(np.float16)
    mel = torch.from_numpy(mel[..., : run.store.heard_frames])
    clip = Clips(mel, torch.tensor([mel.shape[2]]), fe.frames, np.zeros(1, int))
    q = run.posteriors(clip, run.config.training.eval_windows)
    return q.mean[0], None if q.class_logits is None else q.class_logits[0]


def more_like(run: Run, found: Embedded, k: int, metric: str = "euclidean") -> list[pd.DataFrame]:
    """The `k` songs of the run's collection nearest to each row, in the model's own space; never the song itself.

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


def named(file: str) -> str:
    """A file's name as text for a table or terminal: what does not print is spelled out (`\\n`, `\\xff`)."""
    text = os.fsencode(file).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_output(path: Path) -> Path:
    """Refuse a name that cannot be written (InputError), before any file is decoded."""
    if path.is_dir() or path.suffix not in ENDINGS:
        raise InputError(f"--output {path}: give the name of a {', '.join(ENDINGS)} file")
    return path


def write(run: Run, found: Embedded, path: Path, neighbours: Sequence[pd.DataFrame] = ()) -> Path:
    """Write the rows as CSV or Parquet, or as a page with a map, players and the nearest songs.

    A row of a table holds what was heard, `z0` …, `p_<class>` …, `near_1`, `near_1_distance` and so on.
    """
    if check_output(path).suffix == ".html":
        return _page(run, found, path, neighbours)
    frame = found.table.assign(file=[named(f) for f in found.table["file"]])
    near = {}
    for i in range(max(map(len, neighbours), default=0)):
        near[f"near_{i + 1}"] = [named(n["path"].iloc[i]) if i < len(n) else "" for n in neighbours]
        near[f"near_{i + 1}_distance"] = [n["distance"].iloc[i] if i < len(n) else np.nan for n in neighbours]
    frame = pd.concat([frame, pd.DataFrame(near, frame.index)], axis=1)
    return write_atomic(path, frame.to_parquet(index=False) if path.suffix == ".parquet" else frame.to_csv(index=False))


def _page(run: Run, found: Embedded, path: Path, neighbours: Sequence[pd.DataFrame]) -> Path:
    """For each file a section: where it lies on a map of the collection, its sound, the nearest songs with theirs."""
    sections, fe = [], run.store.front_end
    with TemporaryDirectory() as folder:
        for i, row in enumerate(found.table.itertuples()):
            picture, songs = Path(folder) / f"{i}.png", None
            _draw(run, found.means[i], neighbours[i].index if neighbours else (), picture)
            wave = audio.load(Path(row.file), fe, row.start, min(row.seconds, LONGEST_SOUND))
            sounds = [f"<p>{wave_player(wave.numpy(), fe.sample_rate)._repr_html_()}</p>"]
            if neighbours:
                songs = neighbours[i].assign(path=[named(p) for p in neighbours[i]["path"]])
                sounds += [
                    f"<p>{html.escape(name)}</p>{player(run.store, store_row)._repr_html_()}"
                    for store_row, name in songs["path"].items()
                ]
            text = f"Likeliest: {_likeliest(found, i)}" if found.group else ""
            sections.append(Section(named(Path(row.file).name), text, songs, picture, markup="".join(sounds)))
        return write_report(path, f"New files in the space of {run.name}", sections, f"Run: {run.folder}")


def _draw(run: Run, mean: np.ndarray, neighbours: Sequence[int], path: Path) -> None:
    """The codes of the collection on their two main axes, the new file as a star, its neighbours ringed."""
    every, table = run.embed(None), run.store.table
    flat = project(np.vstack([every.means, mean]), "pca")
    label = next((c for c in ("language", "genre") if table[c].nunique() > 1), "language")
    figure, ax = maps({run.name: flat[:-1]}, table.loc[every.rows, label].to_numpy().astype(str))
    ringed = flat[:-1][np.isin(every.rows, neighbours)]
    ax[0, 0].scatter(*ringed.T, s=60, facecolors="none", edgecolors="black")
    ax[0, 0].scatter(*flat[-1], s=220, marker="*", color="black", edgecolors="white")
    figure.set_size_inches(6, 6)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _likeliest(found: Embedded, row: int) -> str:
    top = found.shares.iloc[row].nlargest(3)
    return ", ".join(f"{named(name)} ({share:.0%})" for name, share in top[top > 0.005].items())


def text_of(found: Embedded, neighbours: Sequence[pd.DataFrame]) -> str:
    """For a terminal: each file with what was heard and its likeliest groups, below it distances and nearest songs."""
    lines = []
    for i, row in enumerate(found.table.itertuples()):
        times = (f"{s // 60:.0f}:{s % 60:04.1f}" for s in (round(row.start, 1), round(row.start + row.seconds, 1)))
        groups = [f"{found.group} {_likeliest(found, i)}"] if found.group else []
        lines.append("  ".join([named(row.file), "–".join(times), *groups]))
        near = neighbours[i].to_numpy() if neighbours else ()
        lines += [f"{distance:10.3f}  " + " · ".join(map(named, words)) for *words, distance in near]
    return "\n".join(lines)
