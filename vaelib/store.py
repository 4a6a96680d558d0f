"""The mel store: one self-describing Zarr file per corpus and front end, how it is made and how it is read.

It is made chunk by chunk, in threads; an interrupted build continues with the chunks that are not done, and ends with
the same bytes. Notebook 01 makes one and shows what is in it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import zarr
from filelock import FileLock
from tqdm import tqdm
from zarr.codecs import BloscCodec

from . import audio, collection
from .collection import LABELS, LADDER, SPLITS, UNLABELLED, Corpus, Rejected, choose_split
from .config import ROOT, FrontEnd, InputError, data_dir, digest, keep_freed_memory, one_of, write_atomic, writing

if TYPE_CHECKING:
    from torch import Tensor

WINDOWS = ("start", "anywhere")  # every window is the first one of its clip, or windows are cut anywhere in it
USUAL = {True: "start", False: "anywhere"}  # of a rendered corpus, whose clips begin with a loop, and of own music
CUT = ("segment_seconds", "hop_seconds")  # how long files are cut
REJECTED = "rejected"  # the `split` of a clip whose decoding failed after its header looked sound
CHUNK_BYTES, CHUNK_CLIPS = 2 << 20, 32  # at most: read for one clip; lost when a worker dies
UNITS = {"level_db": "dB", "tilt_db": "dB", "rms_db": "dB re full scale", "seconds": "s", "start_s": "s", "rate": "Hz"}
MEASURED = ("n_frames", "level_db", "tilt_db", "seconds", *audio.Levels._fields)  # columns that decoding finds
Clip = dict[str, Any]  # what became of a row: `MEASURED` and `fingerprint` (hexadecimal), or the `reason` why not


def store_path(corpus: str, profile: str, windows: str = "", rendered: bool = False) -> Path:
    """Where the store of a corpus and a front end lies; its name says which `windows`, if not the `USUAL` ones."""
    named = "" if windows in ("", USUAL[rendered]) else f"-{one_of('windows', windows, WINDOWS)}"
    return data_dir().absolute() / "stores" / f"{corpus}{named}-{profile}.zarr"


def is_current(corpus: Corpus, fe: FrontEnd, **how: Any) -> bool:
    """Whether the store of a corpus is there and made from the files as they are now, in this way (`build_store`)."""
    return _is(*_identity(corpus, fe, **how))


def attributes(path: Path | str) -> dict[str, Any]:
    """Attributes written in a store, finished or not; {} if there is none."""
    try:
        return dict(json.loads(Path(path, "zarr.json").read_text()).get("attributes", {}))
    except (OSError, ValueError):
        return {}


def _is(path: Path, wanted: dict[str, Any]) -> bool:
    return attributes(path).items() >= wanted.items()


def _identity(
    corpus: Corpus, fe: FrontEnd, *, split_seed: int = 0, segment_seconds: float = audio.SEGMENT_S,
    hop_seconds: float = 0.0, windows: str = "",
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """Where a store lies, and the attributes that tell it from others; arguments as of `build_store`."""
    shortest = fe.min_samples / fe.sample_rate
    if (segment_seconds and not segment_seconds >= shortest - 1e-3) or not 0 <= hop_seconds < float("inf"):
        what = f"segments of {segment_seconds:g} s with a hop of {hop_seconds:g} s cannot be cut"
        raise InputError(f"{what}: a segment has at least {shortest:.2f} s (0: no cut), a hop is not negative")
    rendered, cut = bool(corpus.record), (float(segment_seconds), float(hop_seconds or segment_seconds))
    path, windows = store_path(corpus.name, fe.name, windows, rendered), windows or USUAL[rendered]
    # Another split, or another cut, is another store to a run: its test clips may be those it was trained on.
    fingerprint = corpus.fingerprint() + ("-start" if windows == "start" else "")
    fingerprint += f"-cut{cut[0]:g}-{cut[1]:g}" if cut != (audio.SEGMENT_S, audio.SEGMENT_S) else ""
    fingerprint += f"-split{split_seed}" if split_seed else ""
    own = f"{corpus.name} (own music)" if corpus.name in LADDER else corpus.name  # never taken for the rendered one
    return path, {
        "corpus": corpus.name,
        "fingerprint": fingerprint,
        "front_end": json.dumps(fe.to_dict()),
        "segment_seconds": cut[0],
        "hop_seconds": cut[1],
        "split_seed": split_seed,
        "windows": windows,
        "rendered": rendered,
        "rung": corpus.record["rungs"][windows] if rendered else own,
    }


@dataclass(frozen=True)
class Store:
    """An opened mel store: labels in memory, spectrograms read on demand."""

    path: Path
    table: pd.DataFrame  # a row per usable clip (a file, or a segment of a long one): path, labels, factors, split, …
    log_mel: zarr.Array  # (clip, mel, frame) dB, float16; `table.index` are its rows
    attrs: dict[str, Any]  # corpus, fingerprint, versions, …
    front_end: FrontEnd  # how its sound became spectrograms
    factors: list[str]  # columns that say what varies in the sound
    units: dict[str, str]  # of each factor that has a known one

    @property
    def heard_frames(self) -> int:
        """Frames of a clip that models see: all of them, or those of its first window."""
        return self.front_end.frames if self.attrs["windows"] == "start" else self.log_mel.shape[2]

    def audio_path(self, row: int) -> Path:
        """The clip's audio file."""
        return Path(self.attrs["corpus_root"], self.table.loc[row, "path"])

    def load(self, row: int) -> Tensor:
        """(samples,) of a row, at the front end's rate; UnreadableAudio: the file is gone or has changed."""
        start, length = self.table.loc[row, ["start_s", "asked_s"]].astype(float)
        return audio.load(self.audio_path(row), self.front_end, start, None if np.isnan(length) else length)

    def name(self, row: int) -> str:
        """File of a row, and where in it a segment begins (`song.mp3 1:30`)."""
        path, start, length = self.table.loc[row, ["path", "start_s", "asked_s"]]
        return str(path) if np.isnan(length) and not start else f"{path} {int(start) // 60}:{int(start) % 60:02d}"

    def rows(self, split: str | None = None) -> np.ndarray:
        """Row numbers of a split, or of every usable clip."""
        there = slice(None) if split is None else self.table["split"] == one_of("split", split, SPLITS)
        return self.table.index[there].to_numpy()

    def tracks(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(track,) the first of some rows that belong to each track, in their order; (row,) number of a row's track."""
        number, _ = pd.factorize(self.table.loc[rows, "track"])
        return np.asarray(rows)[np.unique(number, return_index=True)[1]], number

    def classes(self, label: str) -> list[str]:
        """Sorted class names of a label column but `unlabelled`; InputError: no such column, or no label in it."""
        found = sorted(set(self.table[one_of("label", label, LABELS)]) - {UNLABELLED})
        if not found:
            raise InputError(f"no clip of {self.path.name} has a {label}: add the column to the corpus manifest")
        return found

    def codes(self, label: str, rows: np.ndarray) -> np.ndarray:
        """Class index of each row; -1 where there is no label."""
        return pd.Index(self.classes(label)).get_indexer(self.table.loc[rows, label]).astype(np.int64)

    def decibels(self, rows: np.ndarray) -> np.ndarray:
        """(clip, mel, frame) dB, float16."""
        return self.log_mel.oindex[np.asarray(rows)]

    def fit_scaler(self, detilt: bool = False) -> audio.Scaler:
        """Scaling statistics from (at most 512) training clips, evenly chosen."""
        rows = self.rows("train")
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, 512).astype(int))]
        t = self.table.loc[rows]
        db = self.decibels(rows)[..., : t["n_frames"].min()]
        return audio.Scaler.fit(db, t["level_db"].to_numpy(), t["tilt_db"].to_numpy(), detilt)

    def scaled(self, rows: np.ndarray, scaler: audio.Scaler, frames: int) -> np.ndarray:
        """(clip, mel, frame) of the first frames of some clips in [0, 1], float32."""
        t = self.table.loc[rows]
        return scaler.transform(self.decibels(rows)[..., :frames], t["level_db"].to_numpy(), t["tilt_db"].to_numpy())

    def spectrogram(self, row: int, scaler: audio.Scaler) -> np.ndarray:
        """(mel, frame) of one clip in [0, 1]."""
        return self.scaled([row], scaler, self.table.loc[row, "n_frames"])[0]


def open_store(path: Path | str) -> Store:
    """Open a mel store; InputError: there is none, or an unfinished one."""
    path = Path(path)
    if not path.is_absolute() and not os.path.exists(path):
        path = ROOT / path  # notebooks run in notebooks/, commands at the root
    if "front_end" not in attributes(path) or path.name.endswith(".partial.zarr"):
        raise InputError(f"no mel store at {path}, or an unfinished one: make it with `vaelib preprocess CORPUS`")
    group = zarr.open_group(path, mode="r")
    columns = {n: a[:] for n, a in sorted(group.arrays()) if a.metadata.dimension_names == ("clip",)}
    table = pd.DataFrame({n: a if a.dtype.kind in "biuf" else a.astype(object) for n, a in columns.items()})
    about, table = dict(group.attrs), table[table["split"] != REJECTED]
    fe = FrontEnd.from_dict(json.loads(about["front_end"]))
    return Store(path, table, group["log_mel"], about, fe, list(about["factors"]), dict(about["units"]))


def build_store(corpus: Corpus | Path | str, fe: FrontEnd, *, workers: int | None = None, **how: Any) -> Path:
    """Turn a corpus into a mel store; a second call does nothing, an interrupted one continues.

    Unusable files are left out and listed with the reason in `<store>.rejected.csv`. `workers`: threads (None: one
    per core). `how`: `split_seed`; `segment_seconds` that longer files are cut into (0: never), `hop_seconds` from one
    segment to the next (0: end to end); `windows` (`WINDOWS`, `USUAL`).
    InputError: no usable clip, a store of another folder of that name, …
    """
    corpus = corpus if isinstance(corpus, Corpus) else collection.read_corpus(corpus)
    path, wanted = _identity(corpus, fe, **how)
    if _is(path, wanted):
        return path
    other = Path(attributes(path).get("corpus_root", corpus.root))
    if other != corpus.root and other.is_dir():
        raise InputError(f"{path.name} already holds another folder of that name, {other}: rename it, or {corpus.root}")
    import torch  # here: a second that reading a store need not wait for
    from dask.system import CPU_COUNT  # what a container may use

    with writing(path), FileLock(path.with_name(f".{path.stem}.lock")):
        pool, before = ThreadPoolExecutor(workers or CPU_COUNT), torch.get_num_threads()
        try:
            if not _is(path, wanted):  # another process may have made it meanwhile
                _make(path, corpus, fe, wanted, pool)
        finally:
            pool.shutdown(cancel_futures=True)  # no thread writes when the lock is free
            torch.set_num_threads(before)  # a task sets it to 1
    return path


def _make(path: Path, corpus: Corpus, fe: FrontEnd, wanted: dict, pool: Executor) -> None:
    """Build under another name, from where an interrupted call left it; what is rejected is written down early."""
    unfinished, rejected = path.with_suffix(".partial.zarr"), path.with_suffix(".rejected.csv")
    table, bad = collection.quarantine(corpus, fe, *(wanted[name] for name in CUT), pool.map)
    _write_rejected(rejected, bad)
    if table.empty:
        raise InputError(f"none of the {len(bad)} files of {corpus.root} is usable; the reasons are in {rejected}")
    choose_split(table, wanted["split_seed"])  # too few are refused before they are decoded
    # Which files are usable depends on the decoders that are installed, too: other rows are another build.
    wanted = wanted | {"rows": digest(table.to_csv(index=False))}
    done = path.with_suffix(".partial.done")  # what became of the clips of each finished chunk
    if not _is(unfinished, wanted):
        shutil.rmtree(done, ignore_errors=True)
        n, frames = len(table), int(table["n_frames"].max())
        chunk = max(1, min(n, CHUNK_CLIPS, CHUNK_BYTES // (2 * fe.n_mels * frames)))
        group = zarr.open_group(unfinished, mode="w", zarr_format=3)
        group.create_array(
            "log_mel", shape=(n, fe.n_mels, frames), chunks=(chunk, fe.n_mels, frames), dtype="float16",
            # smaller than Zarr's default, in a third of its time
            compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=2), fill_value=-100.0,
            dimension_names=("clip", "mel", "frame"), attributes={"units": "dB re full scale, power"},
        )  # fmt: skip
        group.attrs.put(wanted)  # last: they say that the array is there
    clips = _fill(unfinished, done, corpus.root, table, fe, wanted, pool)
    bad += [(p, clip["reason"]) for p, clip in zip(table["path"], clips, strict=True) if "reason" in clip]
    _write_rejected(rejected, bad)
    _finish(unfinished, corpus, table, clips, fe, wanted)
    shutil.rmtree(path, ignore_errors=True)
    unfinished.rename(path)
    shutil.rmtree(done)


def _write_rejected(path: Path, rows: list[Rejected]) -> None:
    table = pd.DataFrame(rows, columns=["path", "reason"], dtype=object)
    parts = table.groupby("path")["path"].transform("size")
    table["reason"] = table["reason"].mask(parts > 1, table["reason"] + "; parts set aside: " + parts.astype(str))
    write_atomic(path, table.drop_duplicates("path").to_csv(index=False))


def _fill(path: Path, done: Path, root: Path, table: pd.DataFrame, fe: FrontEnd, wanted: dict, pool: Executor) -> list:
    """Have the chunks computed that are not there yet; what became of every row."""
    step, places = zarr.open_array(path / "log_mel", mode="r").chunks[0], table[["path", "start_s", "seconds"]]
    chunks, write = {i: done / f"{i}.json" for i in range(0, len(table), step)}, partial(_write, root, fe, path, wanted)
    todo = {pool.submit(write, places[i : i + step], f): i for i, f in chunks.items() if not f.exists()}
    for future in tqdm(as_completed(todo), "log-mel", len(todo), unit="chunk", file=sys.stdout):
        try:
            future.result()
        except Exception as e:
            e.add_note(f"{step} clips from {table['path'][todo[future]]} on")
            raise
    return [clip for file in chunks.values() for clip in json.loads(file.read_text())]


def _write(root: Path, fe: FrontEnd, path: Path, wanted: dict, places: pd.DataFrame, done: Path) -> None:
    """Write the log-mels of some rows, a whole chunk, and to `done` what became of them."""
    import torch

    collection.require_seen(root)
    torch.set_num_threads(1)  # the threads of the pool are the parallelism
    keep_freed_memory()
    # Whether a chunk is all fill value is not asked: that takes four times as long as compressing it
    array = zarr.open_array(path / "log_mel", mode="r+").with_config({"write_empty_chunks": True})
    block = np.full((len(places), *array.shape[1:]), -100.0, np.float16)
    found: list[Clip] = []
    for row, (_, name, start, length) in zip(block, places.itertuples(), strict=True):
        seconds = None if np.isnan(length) else length  # nan: to the end of the file
        try:
            wave, levels = audio.read(root / name, fe, start, seconds)
        except audio.UnreadableAudio as e:
            found.append({"reason": f"{e} (from {start:.1f} s on)" if start or seconds else str(e)})
            continue
        db = audio.log_mel(wave, fe)[:, : row.shape[1]].numpy()
        row[:, : db.shape[1]] = db
        values = db.shape[1], *audio.level_and_tilt(db), len(wave) / fe.sample_rate, *levels
        mark = collection.fingerprint(db).tobytes().hex()
        found.append(dict(zip((*MEASURED, "fingerprint"), (*values, mark), strict=True)))
    if not _is(path, wanted):
        raise InputError(f"{path} was removed or begun anew while it was written; the same command continues")
    array[places.index[0] : places.index[-1] + 1] = block
    write_atomic(done, json.dumps(found))  # only now does the chunk count as done


def _finish(path: Path, corpus: Corpus, table: pd.DataFrame, clips: list[Clip], fe: FrontEnd, wanted: dict) -> None:
    """Add labels and factors, lengths and levels, which files are copies of others, the split, and the attributes."""
    found = pd.DataFrame(clips, columns=[*MEASURED, "fingerprint"])
    good = found["fingerprint"].notna().to_numpy()
    if not good.any():
        raise InputError(f"no clip of {path.name} could be decoded; the reasons are in the rejected list beside it")
    for left in (path / "log_mel").rglob("*.partial"):
        left.unlink()  # of a worker that was killed while it wrote
    measured = found[list(MEASURED)].fillna(0).astype(np.float32).astype({"n_frames": np.int32})
    table = table.drop(columns="n_frames").rename(columns={"seconds": "asked_s"}).join(measured)
    table = table.assign(split=REJECTED, duplicate_of="")
    usable = table[good].reset_index(drop=True)
    if not corpus.record:  # rendered clips are each other's near copies by design
        prints = np.frombuffer(bytes.fromhex("".join(found["fingerprint"][good])), np.uint8)
        same = collection.groups(prints.reshape(len(usable), -1), usable["seconds"].to_numpy())
        usable["duplicate_of"] = collection.duplicate_of(usable["path"].tolist(), same)
    usable["split"], note = choose_split(usable, wanted["split_seed"])
    table.loc[good, ["duplicate_of", "split"]] = usable[["duplicate_of", "split"]].to_numpy()
    group = zarr.open_group(path, mode="a")
    units = {f: u for f, u in corpus.record.get("units", {}).items() if u and f in corpus.factors}
    for name, values in table.items():
        if name in {*corpus.factors, *MEASURED, "start_s", "asked_s", "rate", "channels"}:
            column = values.to_numpy(np.float64 if name in corpus.factors else values.dtype, na_value=np.nan)
        else:
            column = values.fillna("").astype(str).to_numpy(object).astype(np.dtypes.StringDType())
        how = {"attributes": {"units": (UNITS | units)[name]} if name in UNITS | units else {}, "overwrite": True}
        group.create_array(name, data=column, chunks=column.shape, dimension_names=("clip",), **how)
    hertz = audio.mel_frequencies(fe).astype(np.float32)
    group.create_array("mel_hz", data=hertz, dimension_names=("mel",), attributes={"units": "Hz"}, overwrite=True)
    group.attrs.put(wanted | {
        "title": f"log-mel spectrograms of {corpus.name}, {fe.name} front end",
        "corpus_root": str(corpus.root),
        "factors": list(corpus.factors),
        "units": units,
        "notes": [*corpus.remarks, *([note] if note else [])],
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "librosa", "soundfile", "zarr")},
        "coordinates": " ".join(sorted([*table.columns, "mel_hz"])),  # so that xarray knows them, too
    })  # fmt: skip
