"""Dask workers that execute notebooks: on this machine, one for each GPU, of a running scheduler, of a queue."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import dask
from dask.system import CPU_COUNT
from distributed import Client, KilledWorker, LocalCluster, SpecCluster, get_worker
from distributed.comm.core import CommClosedError
from distributed.security import Security

from .config import InputError, papermill_dir

NOTEBOOK = "notebook"  # what a worker has one of: it executes one notebook at a time, beside the tasks of that notebook
THREADS = 2  # of a worker, at least: the notebook, and a task that the notebook itself asks for (preprocessing)
SECONDS = 10  # that a scheduler may take to answer
GONE = "the Dask scheduler went away; the same command continues on another one"
# A notebook that has killed its worker twice is not tried a third time; a worker has longer than 15 s to come back
SETTINGS = {"distributed.scheduler.allowed-failures": 1, "distributed.deploy.lost-worker-timeout": "10 minutes"}
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TLS = {"CA_FILE": "tls_ca_file", "CLIENT__CERT": "tls_client_cert", "CLIENT__KEY": "tls_client_key"}


@dataclass(frozen=True)
class Workers:
    """Which workers execute a batch; InputError: two of the last four, or a count for a running scheduler."""

    count: int | None = None  # default: one for each GPU, else one for each core, at most four
    gpus: str = ""  # `all`, or numbers with commas: a worker for each, which sees no other GPU
    scheduler: str = ""  # address of a running one, whose workers offer `--resources "notebook=1"`
    slurm: str = ""  # section of dask-jobqueue's configuration: what a worker asks the queue for
    pbs: str = ""  # the same

    def __post_init__(self) -> None:
        given = [f"--{name}" for name in ("gpus", "scheduler", "slurm", "pbs") if getattr(self, name)]
        given += ["--workers"] if self.scheduler and self.count else []
        if len(given) > 1:
            raise InputError(f"{given[0]} and {given[1]} exclude each other: give one of them")

    def devices(self) -> list[str]:
        """Numbers of this machine's GPUs to use, as CUDA_VISIBLE_DEVICES names them; InputError: there is no such."""
        if self.scheduler or self.slurm or self.pbs:
            return []
        import torch  # here: it takes a second

        visible, there = os.environ.get("CUDA_VISIBLE_DEVICES"), [str(i) for i in range(torch.cuda.device_count())]
        there = visible.split(",")[: len(there)] if visible else there
        wanted = there if self.gpus in ("", "all") else [number.strip() for number in self.gpus.split(",")]
        if self.gpus and (not there or not set(wanted) <= set(there)):
            raise InputError(f"--gpus {self.gpus}: this machine has {', '.join(there) or 'no GPU'}")
        return wanted


@contextmanager
def connected(workers: Workers, most: int = 4) -> Iterator[Client]:
    """A client of workers that execute one notebook each at a time; more than `most` would have nothing to do.

    InputError: no such GPU, no scheduler at the address, no worker that takes notebooks, or no dask-jobqueue.
    """
    with dask.config.set(SETTINGS):
        if workers.scheduler:
            with client_of(workers.scheduler) as client:
                if not places(client):
                    start = f'`dask worker {workers.scheduler} --nthreads {THREADS} --resources "{NOTEBOOK}=1"`'
                    raise InputError(f"no worker of this scheduler takes notebooks, with {THREADS} threads: {start}")
                yield client
        else:
            made = _queued(workers, most) if workers.slurm or workers.pbs else _local(workers, most)
            with made as cluster, Client(cluster) as client:
                yield client


def client_of(address: str) -> Client:
    """A client of the scheduler at an address; InputError: none answers."""
    try:
        return Client(address, timeout=SECONDS, set_as_default=False)
    except Exception as e:  # whatever answers there, or does not, is no Dask scheduler that lets us in
        raise InputError(f"no Dask scheduler answers at {address}: start one with `dask scheduler`") from e


def places(client: Client) -> int:
    """How many notebooks the workers take at a time; a queue may bring more of them later."""
    there = client.scheduler_info(n_workers=-1)["workers"].values()
    return round(sum(worker["resources"].get(NOTEBOOK, 0) for worker in there if worker["nthreads"] >= THREADS))


def kernel_environment() -> dict[str, str]:
    """What a kernel must know to ask the workers of the batch that it belongs to for help; {} outside of a batch."""
    try:
        worker = get_worker()
    except ValueError:
        return {}
    found = {f"DASK_DISTRIBUTED__COMM__TLS__{k}": getattr(worker.security, attribute) for k, attribute in TLS.items()}
    found |= dict.fromkeys(THREAD_SETTINGS, str(max(1, worker.state.nthreads - 1)))
    return {"DASK_SCHEDULER_ADDRESS": worker.scheduler.address} | {k: v for k, v in found.items() if v}


def _local(workers: Workers, most: int) -> LocalCluster:
    """Workers on this machine. The connection is encrypted: whoever can reach a scheduler can run code through it."""
    count = workers.count or min(len(workers.devices()) or min(CPU_COUNT, 4), most)
    return LocalCluster(
        n_workers=count, threads_per_worker=max(THREADS, 1 + CPU_COUNT // count), resources={NOTEBOOK: 1},
        memory_limit=0, protocol="tls://", security=Security.temporary(), silence_logs=logging.ERROR,
        dashboard_address=None, scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    )  # fmt: skip


def _queued(workers: Workers, most: int) -> SpecCluster:
    kind, section = ("SLURMCluster", workers.slurm) if workers.slurm else ("PBSCluster", workers.pbs)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue
    except ImportError:
        raise InputError("--slurm and --pbs need dask-jobqueue: `pip install dask-jobqueue`") from None
    finally:
        signal.signal(signal.SIGINT, interrupt)  # its import makes Ctrl-C a silent end of the process
    if section not in dask.config.get("jobqueue", {}):
        raise InputError(f"dask-jobqueue has no section {section!r}: write it into ~/.config/dask/jobqueue.yaml")
    given = dask.config.get(f"jobqueue.{section}.worker-extra-args", None) or []
    offered = [*given, "--resources", f"{NOTEBOOK}=1", "--nthreads", str(THREADS)]
    keys = papermill_dir() / ".workers"  # whoever can read them can run code on the workers
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    safe = {"protocol": "tls://", "security": True, "shared_temp_directory": str(keys)}
    cluster = getattr(dask_jobqueue, kind)(config_name=section, worker_extra_args=offered, **safe)
    cluster.scale(jobs=workers.count or most)
    return cluster


@contextmanager
def executor(threads: int | None) -> Iterator[Executor]:
    """Who preprocesses: the workers of `$DASK_SCHEDULER_ADDRESS`, or threads of this process.

    InputError: no scheduler at that address, it went away, or a file kills every worker that opens it.
    """
    import torch

    address, before = os.environ.get("DASK_SCHEDULER_ADDRESS"), torch.get_num_threads()
    client = client_of(address) if address else None
    pool = client.get_executor(pure=False) if client else ThreadPoolExecutor(threads or CPU_COUNT)
    try:
        yield pool
    except KilledWorker as e:
        where = getattr(e, "__notes__", ["the headers of the files"])[-1]
        raise InputError(f"workers died over {where}: too little memory, or a file that kills the decoder") from e
    except (CancelledError, CommClosedError, TimeoutError) as e:
        raise InputError(GONE) from e
    finally:
        client.close() if client else pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # a task sets it to 1
