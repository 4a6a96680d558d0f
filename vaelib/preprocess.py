"""From audio files to a mel store: one Dask task for each region of it, and a ledger of those that are done."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr
import zarr
from distributed import Client
from zarr.codecs import BloscCodec

from . import audio, demo, duplicates
from .config import FrontEnd, InputError, unwritable
from .corpus import Corpus, choose_split, quarantine, read_corpus, require_seen, write_rejected
from .locks import held
from .manifest import Rejected
from .memory import keep_freed_memory
from .progress import Progress
from .store import REJECTED, attributes, check_cut, choose_windows, identity, store_path
from .tasks import connected, in_order, one_torch_thread, results

CHUNK_BYTES = 2 << 20  # at most: what is read from the store for one clip
REGION_CLIPS = 32  # at most, of a task: little is lost when its worker dies
REGIONS = 4  # at least, for each thread, if chunks are small enough: they end at about the same time


class Clip(NamedTuple):
    """What became of a row of the store."""

    n_frames: int = 0  # 0: rejected
    level_db: float = 0.0
    tilt_db: float = 0.0
    seconds: float = 0.0
    peak: float = 0.0
    clipped: float = 0.0
    silent: float = 0.0
    rms_db: float = 0.0
    fingerprint: str = ""  # hexadecimal (`vaelib.duplicates`)
    reason: str = ""


MEASURED = Clip._fields[:-2]  # columns of the store
UNITS = {"level_db": "dB", "tilt_db": "dB", "rms_db": "dB re full scale", "seconds": "s", "start_s": "s", "rate": "Hz"}


def build_store(
    corpus: Corpus | Path | str,
    fe: FrontEnd,
    *,
    split_seed: int = 0,
    segment_seconds: float = audio.SEGMENT_S,
    hop_seconds: float = 0.0,
    windows: str = "",
    workers: int | None = None,
    client: Client | None = None,
) -> Path:
    """Turn a corpus into a mel store; a second call does nothing, an interrupted one continues.

    The result is the same whichever workers compute it, and whether or not it was interrupted. Memory does not grow
    with the number of clips, but for their table, nor with the length of a song. Unusable files are listed with the
    reason in `<store>.rejected.csv` and left out.

    Args:
        corpus: What `vaelib.corpus.read_corpus` found, or the folder.
        split_seed: Seed of the train/validation/test split written into the store.
        segment_seconds: Longer files are cut into segments of this length, a row of the store each; 0: never.
        hop_seconds: From the start of one segment to the next; 0: end to end.
        windows: Which windows models see: `start`, the first one of every row, or `anywhere`. Default: `start` for a
            rendered corpus, `anywhere` for other music.
        workers: Threads of this process, if it does the work; default: one per core.
        client: Dask workers that do it instead; they must see the same folders under the same names. Default: those
            of the scheduler at `$DASK_SCHEDULER_ADDRESS`, if it is set (`vaelib batch` sets it for its notebooks).

    Returns:
        Path of the store.

    Raises:
        InputError: no corpus, no usable clip, segments shorter than a window, another folder of the same name was
            preprocessed before, the store cannot be written, no scheduler answers, or workers die or do not see the
            files.
    """
    corpus = corpus if isinstance(corpus, Corpus) else read_corpus(corpus)
    cut = check_cut(fe, segment_seconds, hop_seconds)
    chosen, named = choose_windows(bool(corpus.record), windows)
    path = store_path(corpus.name, fe.name, named)
    unfinished = path.absolute().with_suffix(".partial.zarr")
    progress = unfinished.with_suffix(".progress.jsonl")
    wanted = identity(corpus, fe, split_seed, cut, chosen)
    if attributes(path).items() >= wanted.items():
        with suppress(OSError):
            progress.unlink()  # left by a process that was killed in its last moment
        return path
    other = Path(attributes(path).get("corpus_root", corpus.root))
    if other != corpus.root and other.is_dir():
        raise InputError(
            f"{path.name} already holds another folder of that name, {other}: rename {corpus.root} or remove the store"
        )
    with _writing(path), held(path.with_suffix(".lock"), partial(_waiting, path)), _Ledger(progress) as ledger:
        if attributes(path).items() >= wanted.items():
            return path  # another process has made it meanwhile
        with connected(client, workers) as found:
            rejected = path.with_suffix(".rejected.csv")
            table, bad = quarantine(corpus, fe, rejected, partial(in_order, found), *cut)
            choose_split(table, split_seed)  # too few are refused before they are decoded
            begun = ledger.step and attributes(unfinished).items() >= wanted.items()
            if not (begun and _has_rows(unfinished, table)):
                ledger.clear()
                shutil.rmtree(unfinished, ignore_errors=True)
                chunk = _write_template(unfinished, corpus, table, fe, wanted)
                ledger.start(_region(chunk, len(table), found))
            _fill(unfinished, corpus.root, table, fe, wanted, ledger, found)
        clips, prints, undecodable = _clips(table, ledger)
        write_rejected(rejected, bad + undecodable)
        _finish(unfinished, table, clips, None if corpus.record else prints, split_seed)
        shutil.rmtree(path, ignore_errors=True)
        unfinished.rename(path)
    return path


def _waiting(path: Path, who: str) -> None:
    Progress("log-mel").close(f"{who} is making {path.stem}; waiting for it")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """A full disk, or a folder that may not be written to, is told in one sentence."""
    try:
        yield
    except OSError as e:
        if e.errno is None:  # the network's: not what the operating system says of a file
            raise
        # No OSError: what Dask brings from a worker would lose its words
        raise InputError(f"{unwritable(e.filename or path, e)} (another folder: $VAELIB_DATA)") from e


class _Ledger:
    """Which regions are done and what became of their clips: a line of JSON for each, only ever appended.

    The first line says that the template is complete, and how many clips a region has. Half a line (a kill while
    writing) does not count.

    Attributes:
        step: Clips of a region; 0: the template is not complete.
        done: Numbers of the regions that are done.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.step, self.done = path, 0, set[int]()

    def __enter__(self) -> Self:
        self._file = open(self.path, "a+b")
        whole = 0
        for line, entry in self._lines():
            if not whole:
                self.step = entry[0] if entry else 0  # versions before 2026-11-26 did not write it
            else:
                self.done.add(entry[0])
            whole += len(line)
        self._file.truncate(whole)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Kept only where there is something to continue."""
        if kind is None or not self.step:
            self.path.unlink(missing_ok=True)
        with suppress(OSError):  # on a full disk the rest of a line, which was told already
            self._file.close()

    def _lines(self) -> Iterator[tuple[bytes, list]]:
        self._file.seek(0)
        for line in self._file:
            try:
                entry = json.loads(line)
            except ValueError:
                return
            if not line.endswith(b"\n"):
                return
            yield line, entry

    def clips(self) -> Iterator[tuple[int, list[Clip]]]:
        """Every region that is done, with its clips."""
        for _, (region, clips) in islice(self._lines(), 1, None):
            yield region, clips

    def clear(self) -> None:
        """Forget everything."""
        self._file.truncate(0)
        self.step, self.done = 0, set()

    def start(self, step: int) -> None:
        """The template is complete; a region has so many clips."""
        self._append([step])
        self.step = step

    def add(self, region: int, clips: Sequence[Clip]) -> None:
        """A region is done; its clips are in the store."""
        self._append([region, clips])
        self.done.add(region)

    def _append(self, entry: list) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _has_rows(path: Path, table: pd.DataFrame) -> bool:
    """Whether a template has these rows: which files are usable depends on the decoders that are installed, too."""
    group = zarr.open_group(path, mode="r")
    return (
        group["path"][:].tolist() == table["path"].tolist()
        and np.array_equal(group["start_s"][:], table["start_s"])
        and np.array_equal(group["asked_s"][:], table["seconds"], equal_nan=True)
    )


def _region(chunk: int, clips: int, client: Client) -> int:
    """Clips of a region: whole chunks. Of small ones several, because handing a task over costs 10 ms."""
    fair = clips // (REGIONS * max(1, sum(client.nthreads().values())))
    return max(1, min(fair, REGION_CLIPS) // chunk) * chunk


def _write_template(path: Path, corpus: Corpus, table: pd.DataFrame, fe: FrontEnd, wanted: dict) -> int:
    """Lay out the whole store, labels filled in, spectrograms empty; returns the clips of a chunk."""
    frames = int(table["n_frames"].max())
    table = table.drop(columns="n_frames")
    chunk = max(1, min(len(table), REGION_CLIPS, CHUNK_BYTES // (2 * fe.n_mels * frames)))
    own = ("start_s", "rate", "channels")
    texts = [c for c in table if c not in (*corpus.factors, *own, "seconds")]
    n = len(table)
    coords: dict = {c: ("clip", table[c].fillna("").astype(str).to_numpy(object)) for c in texts}
    coords |= {c: ("clip", table[c].to_numpy(np.float64, na_value=np.nan)) for c in corpus.factors}
    coords |= {c: ("clip", table[c].to_numpy()) for c in own}
    coords["asked_s"] = ("clip", table["seconds"].to_numpy())  # nan: to the end of the file
    coords |= {c: ("clip", np.zeros(n, np.float32)) for c in MEASURED}
    coords |= {"n_frames": ("clip", np.zeros(n, np.int32)), "split": ("clip", np.full(n, REJECTED, object))}
    coords["duplicate_of"] = ("clip", np.full(n, "", object))
    units = {f: demo.UNITS[f] for f in corpus.factors if demo.UNITS.get(f)} if corpus.record else {}
    for c, unit in (UNITS | units).items():
        coords[c] = (*coords[c], {"units": unit})
    coords["mel_hz"] = ("mel", audio.mel_frequencies(fe).astype(np.float32), {"units": "Hz"})
    given = wanted | {
        "title": f"log-mel spectrograms of {corpus.name}, {fe.name} front end",
        "corpus_root": str(corpus.root),
        "factors": list(corpus.factors),
        "units": units,
        "notes": list(corpus.notes),
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "torchaudio", "soundfile", "zarr")},
    }
    xr.Dataset(coords=coords, attrs=given).to_zarr(path, mode="w", zarr_format=3, consolidated=False)
    zarr.open_group(path, mode="a").create_array(
        "log_mel",
        shape=(n, fe.n_mels, frames),
        chunks=(chunk, fe.n_mels, frames),
        dtype="float16",
        # Smaller than Zarr's default, in a third of its time (full front end: 0.87 instead of 0.88 of the raw size)
        compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=2),
        dimension_names=("clip", "mel", "frame"),
        attributes={"units": "dB re full scale, power"},
        fill_value=-100.0,
    )
    return chunk


Place = tuple[str, float, float]  # path, start and length (nan: to the end of the file) in seconds


def _fill(
    path: Path, root: Path, table: pd.DataFrame, fe: FrontEnd, wanted: dict, ledger: _Ledger, client: Client
) -> None:
    """Have the regions computed that are not there yet."""
    names = list(zip(*(table[c].tolist() for c in ("path", "start_s", "seconds")), strict=True))
    step = ledger.step
    regions = range(-(-len(names) // step))
    todo = [r for r in regions if r not in ledger.done]

    def clips(region: int) -> list[Place]:
        return names[region * step : (region + 1) * step]

    progress = Progress("log-mel", len(names), "clips")
    progress.step(sum(len(clips(r)) for r in ledger.done))
    calls = ((root, clips(r), fe, path, wanted, r * step) for r in todo)

    def tell(i: int) -> str:
        return f"{clips(todo[i])[0][0]} to {clips(todo[i])[-1][0]}"

    with closing(results(client, _write, calls, tell)) as finished:
        for i, found in finished:
            ledger.add(todo[i], found)  # only now does the region count as done
            progress.step(len(found))
    progress.close()


def _write(root: Path, places: list[Place], fe: FrontEnd, path: Path, wanted: dict, first: int) -> list[Clip]:
    """Write the log-mels of `places` to the rows from `first` on, which are a whole region: nobody else's."""
    for folder in (root, path):
        require_seen(folder)
    # Whether a chunk is all fill value is not asked: that takes four times as long as compressing it, and every thread
    # waits meanwhile. (`config` of `open_array` is for new arrays.)
    array = zarr.open_array(path / "log_mel", mode="r+").with_config({"write_empty_chunks": True})
    found: list[Clip] = []
    keep_freed_memory()
    with one_torch_thread():  # also the next line: several threads would wait busily for more after it
        block = torch.full((len(places), *array.shape[1:]), -100.0, dtype=torch.float16)
        for row, (name, start, length) in zip(block, places, strict=True):
            seconds = None if np.isnan(length) else length
            try:
                wave, levels = audio.read(root / name, fe, start, seconds)
                mel = audio.log_mel(wave, fe)[:, : row.shape[1]]
            except audio.UnreadableAudio as e:
                found.append(Clip(reason=f"{e} (from {start:.1f} s on)" if start or seconds else str(e)))
            else:
                row[:, : mel.shape[1]] = mel.half()  # as they lie, then turned: a third of the time
                db = mel.numpy()
                heard = len(wave) / fe.sample_rate
                mark = duplicates.fingerprint(db).tobytes().hex()
                found.append(Clip(db.shape[1], *audio.level_and_tilt(db), heard, *astuple(levels), mark))
    # A worker does not notice that whoever asked was killed: its corpus may have changed, its store may be finished.
    if not attributes(path).items() >= wanted.items():
        raise InputError(f"{path} was removed or begun anew while it was written; the same command continues")
    with _writing(path):
        array[first : first + len(places)] = block.numpy()
    return found


def _clips(table: pd.DataFrame, ledger: _Ledger) -> tuple[dict[str, np.ndarray], np.ndarray, list[Rejected]]:
    """The MEASURED columns, (clip,) each; fingerprints; and (path, reason) of the clips that failed to decode."""
    found = {c: np.zeros(len(table), np.int32 if c == "n_frames" else np.float32) for c in MEASURED}
    prints = np.zeros((len(table), duplicates.BYTES), np.uint8)
    reasons = {}
    for region, clips in ledger.clips():
        for row, values in enumerate(clips, region * ledger.step):
            clip = Clip(*values)
            for column in MEASURED:
                found[column][row] = getattr(clip, column)
            if clip.reason:
                reasons[row] = clip.reason
            else:
                prints[row] = np.frombuffer(bytes.fromhex(clip.fingerprint), np.uint8)
    return found, prints, [(table["path"].iloc[row], reasons[row]) for row in sorted(reasons)]


def _finish(
    path: Path, table: pd.DataFrame, clips: dict[str, np.ndarray], prints: np.ndarray | None, split_seed: int
) -> None:
    """Add lengths, levels, which files are copies of others, and the split.

    Args:
        prints: Fingerprints; None: nothing is a copy. Rendered clips are each other's near copies by design.
    """
    good = clips["n_frames"] > 0
    if not good.any():
        raise InputError(f"no clip of {path.name} could be decoded; the reasons are in the rejected list beside it")
    for left in (path / "log_mel").rglob("*.partial"):
        left.unlink()  # of a worker that was killed while it wrote
    split, copies = np.full(len(table), REJECTED, object), np.full(len(table), "", object)
    table = table[good].reset_index(drop=True)
    if prints is not None:
        same = duplicates.groups(prints[good], clips["seconds"][good])
        table["duplicate_of"] = copies[good] = duplicates.duplicate_of(table["path"].tolist(), same)
    split[good], note = choose_split(table, split_seed)
    group = zarr.open_group(path, mode="a")
    group.attrs["notes"] = [*group.attrs["notes"], *([note] if note else [])]
    for name, values in (clips | {"split": split, "duplicate_of": copies}).items():
        group[name][:] = values
