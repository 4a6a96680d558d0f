"""From audio files to a mel store: one Dask task for each chunk, and a ledger of those that are done."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from distributed import Client

from . import audio
from .config import FrontEnd, InputError
from .corpus import LABELS, Corpus, quarantine, read_corpus, require_seen, split_clips, write_rejected
from .progress import Progress
from .store import REJECTED, attributes, identity, store_path
from .tasks import connected, in_order, one_torch_thread, results

CHUNK_BYTES, CHUNK_CLIPS = 2 << 20, 32  # at most; few clips: tasks for many workers, little lost when one dies
Clip = tuple[int, float, float, str]  # frames (0: rejected), level and tilt in dB, why it was rejected


def build_store(
    folder: Path | str,
    fe: FrontEnd,
    *,
    split_seed: int = 0,
    workers: int | None = None,
    client: Client | None = None,
) -> Path:
    """Turn a corpus into a mel store; a second call does nothing, an interrupted one continues.

    The result is the same whichever workers compute it, and whether or not it was interrupted. Memory does not grow
    with the number of clips, but for their table. Unusable files are listed with the reason in
    `<store>.rejected.csv` and left out.

    Args:
        folder: Corpus folder (see `vaelib.corpus.read_corpus`).
        split_seed: Seed of the train/validation/test split written into the store.
        workers: Threads of this process, if it does the work; default: one per core.
        client: Dask workers that do it instead; they must see the same folders under the same names. Default: those
            of the scheduler at `$DASK_SCHEDULER_ADDRESS`, if it is set (`vaelib batch` sets it for its notebooks).

    Returns:
        Path of the store.

    Raises:
        InputError: no corpus, no usable clip, another folder of the same name was preprocessed before, the store
            cannot be written, no scheduler answers, or workers die or do not see the files.
    """
    corpus = read_corpus(folder)
    path = store_path(corpus.name, fe.name)
    unfinished = path.absolute().with_suffix(".partial.zarr")
    progress = unfinished.with_suffix(".progress.jsonl")
    wanted = identity(corpus, fe, split_seed)
    if attributes(path).items() >= wanted.items():
        with suppress(OSError):
            progress.unlink()  # left by a process that was killed in its last moment
        return path
    other = Path(attributes(path).get("corpus_root", corpus.root))
    if other != corpus.root and other.is_dir():
        raise InputError(
            f"{path.name} already holds another folder of that name, {other}: rename {corpus.root} or remove the store"
        )
    with _writing(path), _Ledger(progress) as ledger:
        if attributes(path).items() >= wanted.items():
            return path  # another process has made it meanwhile
        with connected(client, workers) as found:
            rejected = path.with_suffix(".rejected.csv")
            table, bad = quarantine(corpus, partial(audio.probe, fe=fe), rejected, partial(in_order, found))
            if "test" not in split_clips(table.reset_index(drop=True), split_seed):
                raise InputError(
                    f"{len(table)} usable clips of {corpus.root} are too few to set some aside for testing: every "
                    "genre has one clip or one artist; add clips, or leave the genres out"
                )
            if not (ledger.started and attributes(unfinished).items() >= wanted.items()):
                ledger.clear()
                shutil.rmtree(unfinished, ignore_errors=True)
                _write_template(unfinished, corpus, table, fe, wanted)
                ledger.start()
            _fill(unfinished, corpus.root, fe, wanted, ledger, found)
        clips, undecodable = _clips(unfinished, ledger)
        write_rejected(rejected, bad + undecodable)
        _finish(unfinished, clips, split_seed)
        shutil.rmtree(path, ignore_errors=True)
        unfinished.rename(path)
    return path


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """A full disk, or a folder that may not be written to, is told in one sentence."""
    try:
        yield
    except OSError as e:
        if e.errno is None:  # the network's: not what the operating system says of a file
            raise
        where = f"{e.filename or path}: {e.strerror or e}"
        raise InputError(
            f"cannot write {where}; make room, or choose another folder with $VAELIB_DATA; the same command continues"
        ) from e


class _Ledger:
    """Which chunks are done and what became of their clips: a line of JSON for each, only ever appended.

    The first line says that the template is complete. Half a line (a kill while writing) does not count. While the
    file is open it is locked: another process that builds the same store waits.

    Attributes:
        started: Whether the template is complete.
        done: Numbers of the chunks that are done.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.started, self.done = path, False, set[int]()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self._file = open(self.path, "a+b")
            self._lock()
            with suppress(FileNotFoundError):
                if os.fstat(self._file.fileno()).st_ino == self.path.stat().st_ino:
                    break
            self._file.close()  # whoever held the lock has finished and removed the file
        whole = 0
        for line, entry in self._lines():
            self.started = True
            self.done.update(entry[:1])
            whole += len(line)
        self._file.truncate(whole)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Kept only where there is something to continue."""
        if kind is None or not self.started:
            self.path.unlink(missing_ok=True)
        with suppress(OSError):  # on a full disk the rest of a line, which was told already
            self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            Progress("log-mel").close(
                f"another process is making {self.path.stem.split('.partial')[0]}; waiting for it"
            )
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks

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
        """Every chunk that is done, with its clips."""
        for _, entry in self._lines():
            if entry:
                yield entry[0], entry[1]

    def clear(self) -> None:
        """Forget everything."""
        self._file.truncate(0)
        self.started, self.done = False, set()

    def start(self) -> None:
        """The template is complete."""
        self._append([])
        self.started = True

    def add(self, chunk: int, clips: Sequence[Clip]) -> None:
        """A chunk is done; its clips are in the store."""
        self._append([chunk, clips])
        self.done.add(chunk)

    def _append(self, entry: list) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _write_template(path: Path, corpus: Corpus, table: pd.DataFrame, fe: FrontEnd, wanted: dict) -> None:
    """Lay out the whole store, labels filled in, spectrograms empty."""
    frames = int(table["n_frames"].max())
    chunk = max(1, min(len(table), CHUNK_CLIPS, CHUNK_BYTES // (2 * fe.n_mels * frames)))
    others = [c for c in table if c not in ("path", *LABELS) and not pd.api.types.is_numeric_dtype(table[c])]
    texts = ["path", *LABELS, *others]
    n = len(table)
    coords: dict = {c: ("clip", table[c].fillna("").astype(str).to_numpy(object)) for c in texts}
    coords |= {c: ("clip", table[c].to_numpy(np.float64)) for c in corpus.factors}
    coords |= {c: ("clip", np.zeros(n, np.float32), {"units": "dB"}) for c in ("level_db", "tilt_db")}
    coords |= {"n_frames": ("clip", np.zeros(n, np.int32)), "split": ("clip", np.full(n, REJECTED, object))}
    coords["mel_hz"] = ("mel", audio.mel_frequencies(fe).astype(np.float32), {"units": "Hz"})
    given = wanted | {
        "title": f"log-mel spectrograms of {corpus.name}, {fe.name} front end",
        "corpus_root": str(corpus.root),
        "factors": list(corpus.factors),
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "torchaudio", "soundfile", "zarr")},
    }
    xr.Dataset(coords=coords, attrs=given).to_zarr(path, mode="w", zarr_format=3, consolidated=False)
    zarr.open_group(path, mode="a").create_array(
        "log_mel",
        shape=(n, fe.n_mels, frames),
        chunks=(chunk, fe.n_mels, frames),
        dtype="float16",
        dimension_names=("clip", "mel", "frame"),
        attributes={"units": "dB re full scale, power"},
        fill_value=-100.0,
    )


def _fill(path: Path, root: Path, fe: FrontEnd, wanted: dict, ledger: _Ledger, client: Client) -> None:
    """Have the chunks computed that are not there yet."""
    group = zarr.open_group(path, mode="r")
    names, step = [str(p) for p in group["path"][:]], group["log_mel"].chunks[0]
    chunks = range(-(-len(names) // step))
    todo = [c for c in chunks if c not in ledger.done]

    def clips(chunk: int) -> list[str]:
        return names[chunk * step : (chunk + 1) * step]

    progress = Progress("log-mel", len(names), "clips")
    progress.step(sum(len(clips(c)) for c in chunks if c in ledger.done))
    calls = ((root, clips(c), fe, path, wanted, c * step) for c in todo)

    def tell(i: int) -> str:
        return f"{clips(todo[i])[0]} to {clips(todo[i])[-1]}"

    with closing(results(client, _chunk, calls, tell)) as finished:
        for i, found in finished:
            ledger.add(todo[i], found)  # only now does the chunk count as done
            progress.step(len(found))
    progress.close()


def _chunk(root: Path, names: list[str], fe: FrontEnd, path: Path, wanted: dict, start: int) -> list[Clip]:
    """Write the log-mels of `names` to the rows from `start` on, which are a whole chunk: nobody else's."""
    for folder in (root, path):
        require_seen(folder)
    # Whether a chunk is all fill value is not asked: that costs as much as compressing it.
    array = zarr.open_array(path / "log_mel", mode="r+", config={"write_empty_chunks": True})
    block = np.full((len(names), *array.shape[1:]), -100.0, np.float16)
    found: list[Clip] = []
    with one_torch_thread():
        for row, name in zip(block, names, strict=True):
            try:
                db = audio.log_mel(audio.load(root / name, fe), fe).numpy()[:, : row.shape[1]]
            except audio.UnreadableAudio as e:
                found.append((0, 0.0, 0.0, str(e)))
            else:
                row[:, : db.shape[1]] = db
                found.append((db.shape[1], *audio.level_and_tilt(db), ""))
    # A worker does not notice that whoever asked was killed: its corpus may have changed, its store may be finished.
    if not attributes(path).items() >= wanted.items():
        raise InputError(f"{path} was removed or begun anew while it was written; the same command continues")
    with _writing(path):
        array[start : start + len(names)] = block
    return found


def _clips(path: Path, ledger: _Ledger) -> tuple[dict[str, np.ndarray], list[tuple[str, str]]]:
    """n_frames, level_db and tilt_db, (clip,) each, and (path, reason) of the clips that failed to decode."""
    group = zarr.open_group(path, mode="r")
    names, step = group["path"], group["log_mel"].chunks[0]
    n = names.shape[0]
    found = {"n_frames": np.zeros(n, np.int32), "level_db": np.zeros(n, np.float32), "tilt_db": np.zeros(n, np.float32)}
    reasons = {}
    for chunk, clips in ledger.clips():
        for row, (*values, reason) in enumerate(clips, chunk * step):
            for column, value in zip(found.values(), values, strict=True):
                column[row] = value
            if reason:
                reasons[row] = reason
    return found, [(str(names[row]), reasons[row]) for row in sorted(reasons)]


def _finish(path: Path, clips: dict[str, np.ndarray], split_seed: int) -> None:
    """Add lengths, level, tilt and the split."""
    good = clips["n_frames"] > 0
    if not good.any():
        raise InputError(f"no clip of {path.name} could be decoded; the reasons are in the rejected list beside it")
    for left in (path / "log_mel").rglob("*.partial"):
        left.unlink()  # of a worker that was killed while it wrote
    ds = xr.open_zarr(path, chunks=None, consolidated=False)
    table = pd.DataFrame({c: ds[c].values for c in ds.coords if ds[c].dims == ("clip",)})
    split = np.full(len(table), REJECTED, object)
    split[good] = split_clips(table[good].reset_index(drop=True), split_seed)
    group = zarr.open_group(path, mode="a")
    for name, values in (clips | {"split": split}).items():
        group[name][:] = values
