"""Many small tasks on Dask workers: on which, how many at a time, and what is said when they are gone."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, Scheduler, SpecCluster, Worker, as_completed
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError

from .config import InputError
from .progress import Progress

SECONDS = 10  # that a scheduler may take to answer


@contextmanager
def connected(client: Client | None = None, threads: int | None = None) -> Iterator[Client]:
    """`client`; or one of the scheduler at `$DASK_SCHEDULER_ADDRESS`; or one whose worker is threads of this process.

    Args:
        threads: How many in the last case; default: one per core.

    Raises:
        InputError: no scheduler answers at that address.
    """
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if client is not None:
        yield client
    elif address:
        hint = "start it, or unset $DASK_SCHEDULER_ADDRESS to have this machine do the work"
        with client_of(address, hint) as found:
            yield found
    else:
        # Starts in 0.05 s, without processes. Dask's pages of figures stay on this machine, nothing else listens; what
        # goes wrong in a task is raised here, and need not be logged too.
        quiet = {"protocol": "inproc://", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
        worker = {"cls": Worker, "options": quiet | {"nthreads": threads or CPU_COUNT, "memory_limit": 0}}
        made = SpecCluster({0: worker}, {"cls": Scheduler, "options": quiet}, silence_logs=logging.CRITICAL)
        with made as cluster, Client(cluster, set_as_default=False) as found:
            yield found


def client_of(address: str, hint: str) -> Client:
    """A client of the scheduler at an address.

    Raises:
        InputError: none answers there, or none that lets us in; with the hint what to do.
    """
    try:
        return Client(address, timeout=SECONDS, set_as_default=False)
    except Exception as e:  # whatever answers there, or does not, is no Dask scheduler that lets us in
        tls = " (its certificates: distributed.comm.tls in Dask's configuration)" * address.startswith("tls")
        raise InputError(f"no Dask scheduler answers at {address}{tls}: {hint}") from e


def results(
    client: Client, task: Callable, calls: Iterable[tuple], tell: Callable[[int], str] = str
) -> Iterator[tuple[int, Any]]:
    """Number and result of each call of `task`, as they come; at most two calls for each thread are under way.

    A call whose worker dies is made again on another one; one that raises ends it all.

    Args:
        calls: Arguments of each call, taken when there is room for them.
        tell: What a call works on, for the message when it kills its workers.

    Raises:
        InputError: workers died over a call, or the scheduler went away.
    """
    waiting, going = enumerate(calls), as_completed(loop=client.loop)
    number: dict[Future, int] = {}

    def more() -> None:
        threads = sum(client.nthreads().values())
        if not threads:
            Progress("Dask").close(f"waiting for a worker of {client.scheduler.address}")
        for i, arguments in islice(waiting, max(0, 2 * (threads or 1) - len(number))):
            future = client.submit(task, *arguments, pure=False)
            number[future] = i
            going.add(future)

    i = 0
    try:
        more()
        for future in going:
            i = number[future]
            result = future.result()
            del number[future]
            more()
            yield i, result
    except KilledWorker as e:
        raise InputError(
            f"{e.allowed_failures + 1} workers died, one after the other, over {tell(i)}: too little memory, or a file "
            "that kills the decoder; the same command continues"
        ) from e
    except (FutureCancelledError, CommClosedError, TimeoutError) as e:
        raise InputError("the Dask scheduler went away; the same command continues on another one") from e
    finally:
        for future in number:
            future.release()


def in_order(client: Client, task: Callable, items: Sequence) -> list:
    """`task` of every item, like the built-in `map`.

    Raises:
        InputError: see `results`.
    """
    found = dict(results(client, task, ((item,) for item in items)))
    return [found[i] for i in range(len(items))]


_inside, _before, _counting = 0, 1, threading.Lock()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Torch computes in this thread alone: the workers are the parallelism.

    `torch.set_num_threads` sets this thread's number and the one that new threads begin with, so that two threads
    that each set and restore it could leave a 1 behind. The number found by the first one in is restored by all.
    """
    global _inside, _before
    with _counting:
        found = torch.get_num_threads()  # a thread takes the common number over when first asked, not later
        _before = _before if _inside else found
        _inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _counting:
            _inside -= 1
            torch.set_num_threads(_before)
