"""Long work that may be interrupted: who computes it, one process at a time, and a ledger of the regions that are done.

A region is some neighbouring rows of a mel store (`vaelib.store`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from filelock import FileLock, Timeout

from .config import InputError, unwritable

if TYPE_CHECKING:
    from distributed import Client

SCHEDULER_SECONDS = 10  # that a Dask scheduler may take to answer


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
    fingerprint: str = ""  # hexadecimal (`vaelib.splits`)
    reason: str = ""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk, or a folder that may not be written to, becomes one sentence."""
    try:
        yield
    except OSError as e:
        if e.errno is None:  # the network's: not what the operating system says of a file
            raise
        # No OSError: what Dask brings from a worker would lose its words
        raise InputError(f"{unwritable(e.filename or path, e)} (another folder: $VAELIB_DATA)") from e


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process makes a store; the lock of one that is killed is free again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process is making {path.stem}; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def executor(client: Client | None, threads: int | None) -> Iterator[tuple[Executor, int]]:
    """Who computes, and how many at a time: threads of this process, or the workers of a Dask scheduler."""
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if client or address:
        with _dask(client, address) as found:
            yield found
        return
    import torch
    from dask.system import CPU_COUNT

    before, pool = torch.get_num_threads(), ThreadPoolExecutor(threads or CPU_COUNT)
    try:
        yield pool, threads or CPU_COUNT
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


@contextmanager
def _dask(client: Client | None, address: str | None) -> Iterator[tuple[Executor, int]]:
    from distributed import Client, KilledWorker
    from distributed.comm.core import CommClosedError

    try:
        client = client or Client(address, timeout=SCHEDULER_SECONDS, set_as_default=False)
    except Exception as e:  # whatever answers there, or does not, is no Dask scheduler that lets us in
        raise InputError(
            f"no Dask scheduler answers at {address}: start it, or unset $DASK_SCHEDULER_ADDRESS to have this machine "
            "do the work"
        ) from e
    try:
        threads = sum(client.nthreads().values())
        if not threads:
            print(f"waiting for a worker of {client.scheduler.address}", file=sys.stderr, flush=True)
        pool = client.get_executor(pure=False)
        yield pool, threads or 1
    except KilledWorker as e:
        where = getattr(e, "__notes__", ["the headers of the files"])[-1]
        raise InputError(
            f"{e.allowed_failures + 1} workers died, one after the other, over {where}: too little memory, or a file "
            "that kills the decoder; the same command continues"
        ) from e
    except (CancelledError, CommClosedError, TimeoutError) as e:
        raise InputError("the Dask scheduler went away; the same command continues on another one") from e
    finally:
        pool.shutdown(wait=False)
        if address:
            client.close()


class Ledger:
    """Which regions are done and what became of their clips: a line of JSON each, only ever appended.

    The first line says that the template is complete, for which rows, and how many clips a region has. Half a line (a
    kill while writing) does not count.

    Attributes:
        step: Clips of a region; 0: there is no template for these rows.
        clips: What became of the clips of each region that is done.
    """

    def __init__(self, path: Path, rows: str) -> None:
        self.path, self.rows, self.step, self.clips = path, rows, 0, dict[int, list[Clip]]()
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        entries = [json.loads(line) for line in whole]
        if entries and entries[0][0] == rows:
            os.truncate(path, sum(map(len, whole)))
            self.step = entries[0][1]
            self.clips = {region: [Clip(*clip) for clip in clips] for region, clips in entries[1:]}

    def begin(self, step: int) -> None:
        """The template is complete; a region has so many clips."""
        self.step, self.clips = step, {}
        self._append([self.rows, step])

    def add(self, region: int, clips: Sequence[Clip]) -> None:
        """A region is done; its clips are in the store."""
        self._append([region, clips])
        self.clips[region] = list(clips)

    def _append(self, entry: list) -> None:
        with open(self.path, "ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
