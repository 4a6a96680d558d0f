"""The mel store: one self-describing Zarr file per corpus and front end."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
import zarr

from . import audio
from .config import ROOT, FrontEnd, InputError, data_dir, one_of, write_atomic
from .corpus import LABELS, Corpus, quarantine, read_corpus, split_clips, write_rejected
from .progress import Progress

CHUNK_BYTES = 2 << 20
REJECTED = "rejected"  # the `split` of a clip whose decoding failed after its header looked sound


# --- writing ---


def store_path(corpus_name: str, profile: str) -> Path:
    """Where the store of a corpus and a front end lies."""
    return data_dir() / "stores" / f"{corpus_name}-{profile}.zarr"


def build_store(folder: Path | str, fe: FrontEnd, *, split_seed: int = 0, workers: int | None = None) -> Path:
    """Turn a corpus into a mel store; a second call does nothing, an interrupted one continues.

    Unusable files are listed with the reason in `<store>.rejected.csv` and left out.

    Args:
        folder: Corpus folder (see `vaelib.corpus.read_corpus`).
        split_seed: Seed of the train/validation/test split written into the store.
        workers: Threads; default: one per core.

    Returns:
        Path of the store.

    Raises:
        InputError: no corpus, no usable clip, or another folder of the same name was preprocessed before.
    """
    corpus = read_corpus(folder)
    path = store_path(corpus.name, fe.name)
    identity = _identity(corpus, fe, split_seed)
    if path.is_dir() and _attributes(path).items() >= identity.items():
        return path
    other = Path(_attributes(path).get("corpus_root", corpus.root))
    if other != corpus.root and other.is_dir():
        raise InputError(
            f"{path.name} already holds another folder of that name, {other}: rename {corpus.root} or remove the store"
        )
    rejected = path.with_suffix(".rejected.csv")
    table, bad = quarantine(corpus, lambda p: audio.probe(p, fe), rejected)
    if "test" not in split_clips(table.reset_index(drop=True), split_seed):
        raise InputError(
            f"{len(table)} usable clips of {corpus.root} are too few to set some aside for testing: every genre "
            "has one clip or one artist; add clips, or leave the genres out"
        )
    partial = path.with_suffix(".partial.zarr")
    if not (_ledger(partial).is_file() and _attributes(partial).items() >= identity.items()):
        shutil.rmtree(partial, ignore_errors=True)
        _write_template(partial, corpus, table, fe, identity)
    bad += _fill(partial, corpus, fe, workers or os.cpu_count() or 1)
    write_rejected(rejected, bad)
    _finish(partial, split_seed)
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
    return path


def is_current(folder: Path | str, fe: FrontEnd, split_seed: int = 0) -> bool:
    """Whether the store of a corpus is there and made from the files as they are now."""
    corpus = read_corpus(folder)
    return _attributes(store_path(corpus.name, fe.name)).items() >= _identity(corpus, fe, split_seed).items()


def fingerprint_of(path: Path | str) -> str:
    """Fingerprint written in a store; "" if there is none."""
    return str(_attributes(Path(path)).get("fingerprint", ""))


def _identity(corpus: Corpus, fe: FrontEnd, split_seed: int) -> dict:
    # another split is another store to a run: its test clips may be those it was trained on
    fingerprint = corpus.fingerprint() + (f"-split{split_seed}" if split_seed else "")
    return {
        "corpus": corpus.name,
        "fingerprint": fingerprint,
        "front_end": json.dumps(fe.to_dict()),
        "split_seed": split_seed,
    }


def _attributes(path: Path) -> dict:
    try:
        return dict(json.loads((path / "zarr.json").read_text()).get("attributes", {}))
    except (OSError, ValueError):
        return {}


def _ledger(partial: Path) -> Path:
    return partial.with_suffix(".progress.json")


def _write_template(path: Path, corpus: Corpus, table: pd.DataFrame, fe: FrontEnd, identity: dict) -> None:
    """Lay out the whole store, labels filled in, spectrograms empty."""
    _ledger(path).unlink(missing_ok=True)
    frames = int(table["n_frames"].max())
    chunk = max(1, min(len(table), CHUNK_BYTES // (2 * fe.n_mels * frames)))
    others = [c for c in table if c not in ("path", *LABELS) and not pd.api.types.is_numeric_dtype(table[c])]
    texts = ["path", *LABELS, *others]
    n = len(table)
    coords: dict = {c: ("clip", table[c].fillna("").astype(str).to_numpy(object)) for c in texts}
    coords |= {c: ("clip", table[c].to_numpy(np.float64)) for c in corpus.factors}
    coords |= {c: ("clip", np.zeros(n, np.float32), {"units": "dB"}) for c in ("level_db", "tilt_db")}
    coords |= {"n_frames": ("clip", np.zeros(n, np.int32)), "split": ("clip", np.full(n, REJECTED, object))}
    coords["mel_hz"] = ("mel", audio.mel_frequencies(fe).astype(np.float32), {"units": "Hz"})
    attributes = identity | {
        "title": f"log-mel spectrograms of {corpus.name}, {fe.name} front end",
        "corpus_root": str(corpus.root),
        "factors": list(corpus.factors),
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "torchaudio", "soundfile", "zarr")},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    xr.Dataset(coords=coords, attrs=attributes).to_zarr(path, mode="w", zarr_format=3, consolidated=False)
    zarr.open_group(path, mode="a").create_array(
        "log_mel",
        shape=(n, fe.n_mels, frames),
        chunks=(chunk, fe.n_mels, frames),
        dtype="float16",
        dimension_names=("clip", "mel", "frame"),
        attributes={"units": "dB re full scale, power"},
        fill_value=-100.0,
    )
    write_atomic(_ledger(path), json.dumps({"done": 0, "clips": []}))  # only now is the template complete


def _fill(path: Path, corpus: Corpus, fe: FrontEnd, workers: int) -> list[tuple[str, str]]:
    """Compute the chunks that are not there yet; returns (path, reason) of clips that failed to decode."""
    group = zarr.open_group(path, mode="a")
    array, names = group["log_mel"], [str(p) for p in group["path"][:]]
    n, step = len(names), array.chunks[0]
    ledger = _ledger(path)
    state = json.loads(ledger.read_text())
    progress = Progress("log-mel", n, "clips")
    progress.step(state["done"])

    def one(row: int) -> tuple[np.ndarray | None, int, float, float, str]:
        try:
            db = audio.log_mel(audio.load(corpus.root / names[row], fe), fe).numpy()[:, : array.shape[2]]
        except audio.UnreadableAudio as e:
            return None, 0, 0.0, 0.0, str(e)
        return db, db.shape[1], *audio.level_and_tilt(db), ""

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the workers are the parallelism
    try:
        with ThreadPoolExecutor(workers) as pool:
            for start in range(state["done"], n, step):
                stop = min(start + step, n)
                block = np.full((stop - start, *array.shape[1:]), -100.0, np.float16)
                for i, (db, frames, level, tilt, reason) in enumerate(pool.map(one, range(start, stop))):
                    if db is not None:
                        block[i, :, :frames] = db
                    state["clips"].append([frames, level, tilt, reason])
                    progress.step()
                array[start:stop] = block
                state["done"] = stop
                write_atomic(ledger, json.dumps(state))  # only now does the chunk count as done
    finally:
        torch.set_num_threads(threads)
    progress.close()
    return [(names[i], clip[3]) for i, clip in enumerate(state["clips"]) if clip[3]]


def _finish(path: Path, split_seed: int) -> None:
    """Add lengths, level, tilt and the split; then drop the ledger of the unfinished state."""
    clips = json.loads(_ledger(path).read_text())["clips"]
    frames, level, tilt = (np.array([c[i] for c in clips]) for i in range(3))
    good = frames > 0
    if not good.any():
        raise InputError(f"no clip of {path.name} could be decoded; the reasons are in the rejected list beside it")
    ds = xr.open_zarr(path, chunks=None, consolidated=False)
    table = pd.DataFrame({c: ds[c].values for c in ds.coords if ds[c].dims == ("clip",)})
    split = np.full(len(table), REJECTED, object)
    split[good] = split_clips(table[good].reset_index(drop=True), split_seed)
    group = zarr.open_group(path, mode="a")
    for name, values in {"n_frames": frames, "level_db": level, "tilt_db": tilt, "split": split}.items():
        group[name][:] = values
    _ledger(path).unlink()


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
