"""The mel store: one self-describing Zarr file per corpus and front end."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from torch import Tensor

from . import audio
from .config import ROOT, FrontEnd, InputError, data_dir, one_of
from .corpus import Corpus, read_corpus
from .demo import LADDER, rung
from .manifest import LABELS

WINDOWS = ("start", "anywhere")  # every window is the first one of its clip, or windows are cut anywhere in it
CUT = ("segment_seconds", "hop_seconds")  # how long files are cut
REJECTED = "rejected"  # the `split` of a clip whose decoding failed after its header looked sound


# --- which store ---


def store_path(corpus_name: str, profile: str, windows: str = "") -> Path:
    """Where the store of a corpus and a front end lies.

    Args:
        windows: `start` or `anywhere` where that is not the default of such a corpus.
    """
    return data_dir() / "stores" / f"{corpus_name}{windows and f'-{windows}'}-{profile}.zarr"


def choose_windows(rendered: bool, windows: str) -> tuple[str, str]:
    """Where the windows of a corpus's store begin, and the part of the store's name that says so.

    Args:
        rendered: Whether the corpus is rendered.
        windows: `start` or `anywhere`; "": `start` for a rendered corpus, `anywhere` for a person's own music.

    Raises:
        InputError: another word.
    """
    usual = "start" if rendered else "anywhere"
    chosen = one_of("windows", windows, WINDOWS) if windows else usual
    return chosen, "" if chosen == usual else chosen


def is_current(
    corpus: Corpus | Path | str,
    fe: FrontEnd,
    split_seed: int = 0,
    segment_seconds: float = audio.SEGMENT_S,
    hop_seconds: float = 0.0,
    windows: str = "",
) -> bool:
    """Whether the store of a corpus is there and made from the files as they are now, in this way."""
    corpus = corpus if isinstance(corpus, Corpus) else read_corpus(corpus)
    chosen, named = choose_windows(bool(corpus.record), windows)
    wanted = identity(corpus, fe, split_seed, check_cut(fe, segment_seconds, hop_seconds), chosen)
    return attributes(store_path(corpus.name, fe.name, named)).items() >= wanted.items()


def check_cut(fe: FrontEnd, segment_seconds: float, hop_seconds: float) -> tuple[float, float]:
    """Length of the segments of long files, and the step from one to the next, in seconds.

    Raises:
        InputError: a segment would be shorter than a window, or the step is negative.
    """
    window = fe.min_samples / fe.sample_rate
    if segment_seconds and not segment_seconds >= window - 1e-3:
        raise InputError(
            f"segments of {segment_seconds:g} s are shorter than one window of the {fe.name!r} front end "
            f"({window:.2f} s): use longer ones, or 0 to leave files whole"
        )
    if not 0 <= hop_seconds < float("inf"):
        raise InputError(f"a hop of {hop_seconds:g} s is none: use a positive one, or 0 for segments end to end")
    return float(segment_seconds), float(hop_seconds or segment_seconds)


def fingerprint_of(path: Path | str) -> str:
    """Fingerprint written in a store; "" if there is none."""
    return str(attributes(Path(path)).get("fingerprint", ""))


def identity(corpus: Corpus, fe: FrontEnd, split_seed: int, cut: tuple[float, float], windows: str) -> dict:
    """Attributes that tell one store from another: corpus, fingerprint, front end, cut, windows, seed of the split."""
    # another split, or another cut, is another store to a run: its test clips may be those it was trained on
    fingerprint = corpus.fingerprint() + ("-start" if windows == "start" else "")
    fingerprint += f"-cut{cut[0]:g}-{cut[1]:g}" if cut != (audio.SEGMENT_S, audio.SEGMENT_S) else ""
    fingerprint += f"-split{split_seed}" if split_seed else ""
    return {
        "corpus": corpus.name,
        "fingerprint": fingerprint,
        "front_end": json.dumps(fe.to_dict()),
        "segment_seconds": cut[0],
        "hop_seconds": cut[1],
        "split_seed": split_seed,
        "windows": windows,
        "rendered": bool(corpus.record),
        "rung": rung(corpus.record, windows) if corpus.record else _own_rung(corpus.name),
    }


def _own_rung(name: str) -> str:
    """Someone's own music is a rung of its own, also in a folder that has the name of one."""
    return f"{name} (own music)" if name in LADDER else name


def attributes(path: Path) -> dict:
    """Attributes written in a store, finished or not; {} if there is none."""
    try:
        return dict(json.loads((path / "zarr.json").read_text()).get("attributes", {}))
    except (OSError, ValueError):
        return {}


# --- reading ---


@dataclass(frozen=True)
class Store:
    """An opened mel store: labels in memory, spectrograms read on demand.

    Attributes:
        path: Where it lies.
        table: One row per usable clip (a file, or a segment of a long one): path, track, labels, factors, split,
            n_frames, level_db, tilt_db, start_s, seconds, peak, clipped, silent, rms_db, rate, channels, format.
        log_mel: Zarr array (clip, mel, frame), dB, float16; `table.index` are its rows.
        attrs: Corpus name, fingerprint, front end, versions.
    """

    path: Path
    table: pd.DataFrame
    log_mel: object
    attrs: dict

    @property
    def front_end(self) -> FrontEnd:
        return FrontEnd.from_dict(json.loads(self.attrs["front_end"]))

    @property
    def factors(self) -> list[str]:
        return list(self.attrs["factors"])

    @property
    def units(self) -> dict[str, str]:
        """Unit of each factor that has a known one."""
        return dict(self.attrs["units"])

    @property
    def heard_frames(self) -> int:
        """Frames of a clip that models see: all of them, or those of its first window."""
        return self.front_end.frames if self.attrs["windows"] == "start" else self.log_mel.shape[2]

    def audio_path(self, row: int) -> Path:
        """The clip's audio file."""
        return Path(self.attrs["corpus_root"]) / self.table.loc[row, "path"]

    def load(self, row: int) -> Tensor:
        """(samples,) of the row itself: of the file, or of a segment of it, at the front end's rate.

        Raises:
            UnreadableAudio: the file is gone or has changed.
        """
        t = self.table.loc[row]
        start, length = float(t.get("start_s", 0.0)), float(t.get("asked_s", np.nan))
        return audio.load(self.audio_path(row), self.front_end, start, None if np.isnan(length) else length)

    def name(self, row: int) -> str:
        """File of a row, and where in it a segment begins (`song.mp3 1:30`)."""
        t = self.table.loc[row]
        part = not np.isnan(t.get("asked_s", np.nan)) or t.get("start_s", 0.0) > 0
        return str(t["path"]) + (f" {int(t['start_s']) // 60}:{int(t['start_s']) % 60:02d}" if part else "")

    def rows(self, split: str | None = None) -> np.ndarray:
        """Row numbers of a split, or of every usable clip."""
        if split is None:
            return self.table.index.to_numpy()
        one_of("split", split, ("train", "validation", "test"))
        return self.table.index[self.table["split"] == split].to_numpy()

    def tracks(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of some rows belong to one track.

        Returns:
            (track,) the first row of each track, in the order of `rows`; (row,) number of each row's track.
        """
        t = self.table.loc[rows]
        number, _ = pd.factorize(t["track"] if "track" in t else t["path"])
        return np.asarray(rows)[np.unique(number, return_index=True)[1]], number

    def classes(self, label: str) -> list[str]:
        """Sorted class names of a label column; `unlabelled` is not one.

        Raises:
            InputError: no such label column, or no clip has a label there.
        """
        one_of("label", label, LABELS)
        found = sorted(set(self.table[label]) - {"unlabelled"})
        if not found:
            raise InputError(f"no clip of {self.path.name} has a {label}: add the column to the corpus manifest")
        return found

    def codes(self, label: str, rows: np.ndarray) -> np.ndarray:
        """Class index of each row; -1 where there is no label."""
        return pd.Index(self.classes(label)).get_indexer(self.table.loc[rows, label]).astype(np.int64)

    def decibels(self, rows: np.ndarray) -> np.ndarray:
        """(clip, mel, frame) dB, float16."""
        return self.log_mel.oindex[np.asarray(rows)]

    def fit_scaler(self, detilt: bool = False, sample: int = 512) -> audio.Scaler:
        """Scaling statistics from (at most `sample`) training clips, evenly chosen."""
        rows = self.rows("train")
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, sample).astype(int))]
        t = self.table.loc[rows]
        shortest = int(t["n_frames"].min())
        db = self.decibels(rows)[..., :shortest]
        return audio.Scaler.fit(db, t["level_db"].to_numpy(), t["tilt_db"].to_numpy(), detilt)

    def spectrogram(self, row: int, scaler: audio.Scaler) -> np.ndarray:
        """(mel, frame) of one clip in [0, 1]."""
        t = self.table.loc[[row]]
        db = self.decibels([row])[..., : int(t["n_frames"].iloc[0])]
        return scaler.transform(db, t["level_db"].to_numpy(), t["tilt_db"].to_numpy())[0]


def open_store(path: Path | str, fe: FrontEnd | None = None) -> Store:
    """Open a mel store.

    Args:
        fe: The front end the caller needs, or None.

    Raises:
        InputError: not a store, an unfinished one, or made with another front end than `fe`.
    """
    path = Path(path)
    if not path.is_absolute() and not os.path.exists(path):
        path = ROOT / path  # notebooks run in notebooks/, commands at the root
    if not os.path.isfile(path / "zarr.json"):  # False too for a name that cannot be one
        raise InputError(f"no mel store at {str(path)[:200]}: make it with `vaelib preprocess CORPUS` or notebook 01")
    if path.name.endswith(".partial.zarr"):
        raise InputError(f"{path} is unfinished: run `vaelib preprocess` on its corpus again, it continues")
    ds = xr.open_zarr(path, chunks=None, consolidated=False)
    if "log_mel" not in ds or "front_end" not in ds.attrs:
        raise InputError(f"{path} is not a mel store of vaelib; make one with `vaelib preprocess CORPUS`")
    table = pd.DataFrame({c: ds[c].values for c in ds.coords if ds[c].dims == ("clip",)})
    if "windows" not in ds.attrs:
        raise InputError(
            f"{path.name} was made by an older version: run `vaelib preprocess` or notebook 01 on its corpus again"
        )
    store = Store(path, table[table["split"] != REJECTED], zarr.open_group(path, mode="r")["log_mel"], dict(ds.attrs))
    if fe is not None and store.front_end != fe:
        raise InputError(
            f"{path.name} was made with front end {store.front_end}, not {fe}; preprocess the corpus with that profile"
        )
    return store
