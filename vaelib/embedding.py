"""New files in the latent space of a trained run: where they lie, what the model calls them, their nearest songs."""

from __future__ import annotations

import html
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from . import audio, explore, report
from .collection import LABELS, UNLABELLED
from .config import write_atomic
from .metrics.clustering import nearest, project
from .models import Posterior, VaDE
from .plots import maps
from .runs import Run
from .store import CUT
from .windows import Clips

PER = ("file", "segment")
CODES = r"^z\d+$"  # columns of a table
ENDINGS = (".csv", ".parquet", ".html")
LONGEST_SOUND = 30.0  # seconds of a new file that a page plays


@torch.inference_mode()
def embed_files(run: Run, files: Iterable[Path | str], per: str = "file") -> tuple[pd.DataFrame, dict[str, str]]:
    """Embed audio files, of the collection or new, exactly as a run embeds the clips of its store (`Run.embed`).

    Returns a row for each file, or `per` segment: `file`, `start` and `seconds` of what was heard, `segments`; `z0` …,
    means over windows, then over segments; `p_<class>` …, inferred probabilities (of a VaDE all windows share one
    component). And for each file that could not be used the reason.
    """
    rows, failed = [], {}
    for file in map(str, files):
        try:
            parts = _segments(run, Path(file))
        except audio.UnreadableAudio as e:
            failed[file] = str(e)
            continue
        for some in [parts] if per == "file" else [[part] for part in parts]:
            starts, ends, q = zip(*some, strict=True)
            row = {"file": file, "start": starts[0], "seconds": ends[-1] - starts[0], "segments": len(some)}
            codes, shares = [part.mean[0] for part in q], {}  # (window, L) of each segment
            row |= {f"z{i}": v for i, v in enumerate(np.mean([c.numpy().mean(0) for c in codes], axis=0))}
            if isinstance(run.model, VaDE):
                shares = enumerate(run.model.responsibilities(torch.cat(codes), sum(map(len, codes))).exp()[0].tolist())
            elif run.conditional:
                logits = torch.cat([part.class_logits[0] for part in q]).float()
                shares = zip(run.config.model.classes, logits.softmax(1).mean(0).tolist(), strict=True)
            rows.append(row | {f"p_{name}": share for name, share in dict(shares).items()})
    return pd.DataFrame(rows), failed


def _segments(run: Run, file: Path) -> list[tuple[float, float, Posterior]]:
    """Start and end in seconds, and posteriors of each segment of a file, cut as the store's files were."""
    if not os.path.isfile(file):
        raise audio.UnreadableAudio("is no file; check the name")
    fe, found, failed = run.store.front_end, [], None
    for start, length in audio.segments(audio.header(file).seconds, fe, *(run.store.attrs[name] for name in CUT)):
        try:
            wave = audio.load(file, fe, start, length)
        except audio.UnreadableAudio as e:  # a silent part of a song is left out, as it is of the store
            failed = e
            continue
        db = audio.log_mel(wave, fe).numpy()
        # float16 twice: in decibels as a store keeps them, then scaled as `Clips` does
        mel = run.scaler.transform(db[None].astype(np.float16), *np.float32(audio.level_and_tilt(db))[:, None])
        mel = torch.from_numpy(mel[..., : run.store.heard_frames].astype(np.float16))
        clip = Clips(mel, torch.tensor([mel.shape[2]]), fe.frames, np.zeros(1, int))
        q = run.posteriors(clip, run.config.training.eval_windows)
        found.append((start, start + len(wave) / fe.sample_rate, q))
    if not found:
        raise failed
    return found


def more_like(run: Run, table: pd.DataFrame, k: int, metric: str = "euclidean") -> list[pd.DataFrame]:
    """The `k` songs of the run's collection nearest to each row, in the model's own space; never the song itself.

    For each row a table, nearest first, indexed by rows of the store: `path` as text, labels, `distance`.
    """
    if not k:
        return [pd.DataFrame({"path": [], "distance": []})] * len(table)
    every, store = run.embed(None), run.store
    first, number = store.tracks(every.rows)
    track = {store.audio_path(row).resolve(): t for row, t in zip(every.rows, number, strict=True)}
    own = np.array([track.get(Path(file).resolve(), -1) for file in table["file"]], int), np.arange(len(first))
    labels = [c for c in LABELS if (store.table[c] != UNLABELLED).any()]
    songs = store.table.loc[first, ["path", *labels]].assign(path=lambda table: table["path"].map(named))
    found = nearest(table.filter(regex=CODES).to_numpy(np.float32), run.embed_tracks(None).means, k, metric, own)
    return [songs.iloc[at[at >= 0]].assign(distance=far[at >= 0]) for at, far in zip(*found, strict=True)]


def named(file: str) -> str:
    """A file's name as text for a table or terminal: what does not print is spelled out (`\\n`, `\\xff`)."""
    text = os.fsencode(file).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def likeliest(run: Run, row: pd.Series) -> str:
    """The three most probable classes or components of a row, in words; none if the model has none."""
    top = row.filter(regex="^p_").astype(float).nlargest(3)
    words = [f"{named(name.removeprefix('p_'))} ({share:.0%})" for name, share in top[top > 0.005].items()]
    return f"{run.config.model.condition or 'component'} {', '.join(words)}" if words else ""


def text_of(run: Run, table: pd.DataFrame, neighbours: Sequence[pd.DataFrame]) -> str:
    """For a terminal: each file with what was heard and its likeliest classes, below it distances and nearest songs."""
    lines = []
    for (_, row), songs in zip(table.iterrows(), neighbours, strict=True):
        start, seconds = row["start"], row["seconds"]
        lines.append(f"{named(row['file'])}  {start:.1f}–{start + seconds:.1f} s  {likeliest(run, row)}".rstrip())
        lines += [f"{distance:10.3f}  {' · '.join(words)}" for *words, distance in songs.to_numpy()]
    return "\n".join(lines)


def write(run: Run, table: pd.DataFrame, path: Path, neighbours: Sequence[pd.DataFrame]) -> Path:
    """Write the rows, with `near_1`, `near_1_distance` …, as CSV or Parquet, or as a page with maps and players."""
    if path.suffix == ".html":
        return _page(run, table, path, neighbours)
    table, near = table.assign(file=table["file"].map(named)), [n.reset_index(drop=True) for n in neighbours]
    for i in range(max(map(len, near))):
        table[f"near_{i + 1}"] = [n["path"].get(i, "") for n in near]
        table[f"near_{i + 1}_distance"] = [n["distance"].get(i, np.nan) for n in near]
    return write_atomic(path, table.to_parquet(index=False) if path.suffix == ".parquet" else table.to_csv(index=False))


def _page(run: Run, table: pd.DataFrame, path: Path, neighbours: Sequence[pd.DataFrame]) -> Path:
    """For each file a section: a star on a map of the collection, its sound, the nearest songs (ringed) with theirs."""
    every, fe, sections = run.embed(None), run.store.front_end, []
    codes = np.vstack([every.means, table.filter(regex=CODES).to_numpy(np.float32)])
    known, new = np.split(project(codes, "pca"), [len(every.rows)])
    kind = next((c for c in LABELS if run.store.table[c].nunique() > 1), LABELS[0])
    for (_, row), star, songs in zip(table.iterrows(), new, neighbours, strict=True):
        figure, ax = maps({run.name: known}, run.labels(None, kind))
        ax[0, 0].scatter(*known[np.isin(every.rows, songs.index)].T, s=60, fc="none", ec="black")
        ax[0, 0].scatter(*star, s=220, marker="*", color="black", edgecolors="white")
        figure.set_size_inches(6, 6)
        figure.savefig(picture := io.BytesIO(), dpi=100)
        plt.close(figure)
        wave = audio.load(Path(row["file"]), fe, row["start"], min(row["seconds"], LONGEST_SOUND))
        sounds = f"<p>{explore.wave_player(wave.numpy(), fe.sample_rate)._repr_html_()}</p>"
        for store_row, name in songs["path"].items():
            sounds += f"<p>{html.escape(name)}</p>{explore.player(run.store, store_row)._repr_html_()}"
        said = f"Likeliest: {likeliest(run, row) or '–'}", None if songs.empty else songs, picture
        sections.append(report.Section(named(Path(row["file"]).name), *said, markup=sounds))
    return report.write(path, f"New files in the space of {run.name}", sections, f"Run: {run.folder}")
