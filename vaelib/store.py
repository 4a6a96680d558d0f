"""The mel store: one self-describing Zarr file per corpus and front end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from . import audio
from .config import ROOT, FrontEnd, InputError, data_dir, one_of
from .corpus import LABELS, Corpus, read_corpus

REJECTED = "rejected"  # the `split` of a clip whose decoding failed after its header looked sound


# --- which store ---


def store_path(corpus_name: str, profile: str) -> Path:
    """Where the store of a corpus and a front end lies."""
    return data_dir() / "stores" / f"{corpus_name}-{profile}.zarr"


def is_current(folder: Path | str, fe: FrontEnd, split_seed: int = 0) -> bool:
    """Whether the store of a corpus is there and made from the files as they are now."""
    corpus = read_corpus(folder)
    return attributes(store_path(corpus.name, fe.name)).items() >= identity(corpus, fe, split_seed).items()


def fingerprint_of(path: Path | str) -> str:
    """Fingerprint written in a store; "" if there is none."""
    return str(attributes(Path(path)).get("fingerprint", ""))


def identity(corpus: Corpus, fe: FrontEnd, split_seed: int) -> dict:
    """Attributes that tell one store from another: corpus, fingerprint, front end, seed of the split."""
    # another split is another store to a run: its test clips may be those it was trained on
    fingerprint = corpus.fingerprint() + (f"-split{split_seed}" if split_seed else "")
    return {
        "corpus": corpus.name,
        "fingerprint": fingerprint,
        "front_end": json.dumps(fe.to_dict()),
        "split_seed": split_seed,
    }


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
        table: One row per usable clip: path, labels, factors, split, n_frames, level_db, tilt_db.
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

    def audio_path(self, row: int) -> Path:
        """The clip's audio file."""
        return Path(self.attrs["corpus_root"]) / self.table.loc[row, "path"]

    def rows(self, split: str | None = None) -> np.ndarray:
        """Row numbers of a split, or of every usable clip."""
        if split is None:
            return self.table.index.to_numpy()
        one_of("split", split, ("train", "validation", "test"))
        return self.table.index[self.table["split"] == split].to_numpy()

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
    if not path.is_absolute() and not path.exists():
        path = ROOT / path  # notebooks run in notebooks/, commands at the root
    if not (path / "zarr.json").is_file():
        raise InputError(f"no mel store at {path}: make it with `vaelib preprocess CORPUS` or notebook 01")
    if path.name.endswith(".partial.zarr"):
        raise InputError(f"{path} is unfinished: run `vaelib preprocess` on its corpus again, it continues")
    ds = xr.open_zarr(path, chunks=None, consolidated=False)
    if "log_mel" not in ds or "front_end" not in ds.attrs:
        raise InputError(f"{path} is not a mel store of vaelib; make one with `vaelib preprocess CORPUS`")
    table = pd.DataFrame({c: ds[c].values for c in ds.coords if ds[c].dims == ("clip",)})
    store = Store(path, table[table["split"] != REJECTED], zarr.open_group(path, mode="r")["log_mel"], dict(ds.attrs))
    if fe is not None and store.front_end != fe:
        raise InputError(
            f"{path.name} was made with front end {store.front_end}, not {fe}; preprocess the corpus with that profile"
        )
    return store
