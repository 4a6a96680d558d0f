"""Dask workers that execute notebooks: on this machine, one for each GPU, of a running scheduler, of a queue."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, get_worker
from distributed.security import Security

from .config import InputError, papermill_dir
from .tasks import client_of

NOTEBOOK = "notebook"  # what a worker has one of: it executes one notebook at a time, beside the tasks of that notebook
THREADS = 2  # of a worker, at least: the notebook, and a task that the notebook itself asks for (preprocessing)
# A notebook that has killed its worker twice is not tried a third time.
# A worker that does not come back within the time given (15 s by default, busy machines need more) is given up for good.
SETTINGS = {
    "distributed.scheduler.allowed-failures": 1,
    "distributed.admin.low-level-log-length": 100,
    "distributed.deploy.lost-worker-timeout": "10 minutes",
}
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TLS = {"ca-file": "tls_ca_file", "client.cert": "tls_client_cert", "client.key": "tls_client_key"}


@dataclass(frozen=True)
class Workers:
    """Which workers execute a batch; at most one of `gpus`, `scheduler`, `slurm` and `pbs` is given.

    Attributes:
        count: How many (default: one for each GPU, else one for each core, at most four).
        gpus: `all`, or numbers with commas: a worker for each (or more, with `count`), which sees no other GPU.
        scheduler: Address of a running Dask scheduler; its workers offer `--resources "notebook=1"`.
        slurm, pbs: Name of a section of dask-jobqueue's configuration that says what a worker asks the queue for.
    """

    count: int | None = None
    gpus: str = ""
    scheduler: str = ""
    slurm: str = ""
    pbs: str = ""

    def __post_init__(self) -> None:
        given = [f"--{name}" for name in ("gpus", "scheduler", "slurm", "pbs") if getattr(self, name)]
        if len(given) > 1:
            raise InputError(f"{given[0]} and {given[1]} exclude each other: give one of them")
        if self.count is not None and self.count < 1:
            raise InputError(f"--workers {self.count}: a batch needs at least one worker")
        if self.scheduler and self.count:
            raise InputError("--workers does not go with --scheduler: its workers are those that it has")


@contextmanager
def connected(workers: Workers, most: int = 4) -> Iterator[Client]:
    """A client of workers that execute one notebook each at a time.

    Args:
        most: More workers than this would have nothing to do.

    Raises:
        InputError: no such GPU, no scheduler at the address, no worker that takes notebooks, or no dask-jobqueue.
    """
    with dask.config.set(SETTINGS):
        if workers.scheduler:
            with client_of(workers.scheduler, "start one with `dask scheduler`") as client:
                _check_resources(client, workers.scheduler)
                yield client
            return
        made = _queued(workers, most) if workers.slurm or workers.pbs else _local(workers, most)
        with made as cluster, Client(cluster) as client:
            yield client


def kernel_environment() -> dict[str, str]:
    """What a kernel must know to ask the workers of the batch that it belongs to for help; {} outside of a batch."""
    try:
        worker = get_worker()
    except ValueError:
        return {}
    keys = {f"DASK_DISTRIBUTED__COMM__TLS__{k.upper().replace('-', '_').replace('.', '__')}": v for k, v in TLS.items()}
    found = {name: getattr(worker.security, attribute) for name, attribute in keys.items()}
    threads = dict.fromkeys(THREAD_SETTINGS, str(max(1, worker.state.nthreads - 1)))
    return threads | {"DASK_SCHEDULER_ADDRESS": worker.scheduler.address} | {k: v for k, v in found.items() if v}


def _check_resources(client: Client, address: str) -> None:
    found = client.scheduler_info(n_workers=-1)["workers"].values()
    fit = [w for w in found if w["resources"].get(NOTEBOOK)]
    if not fit or any(w["nthreads"] < THREADS for w in fit):
        start = f'dask worker {address} --nthreads {THREADS} --resources "{NOTEBOOK}=1"'
        why = (
            f"a worker of {address} has fewer than {THREADS} threads"
            if fit
            else f"no worker of {address} takes notebooks"
        )
        raise InputError(f"{why}: start them in this environment with `{start}` (or more threads)")


def count_here(workers: Workers, most: int) -> int:
    """How many workers of this machine execute a batch; 0: others do, or GPUs.

    Raises:
        InputError: no such GPU.
    """
    if workers.scheduler or workers.slurm or workers.pbs or _gpus(workers.gpus):
        return 0
    return workers.count or min(len(os.sched_getaffinity(0)), 4, most)


def _local(workers: Workers, most: int) -> SpecCluster:
    """Workers on this machine. The connection is encrypted: whoever can reach a scheduler can run code through it."""
    gpus, cores = _gpus(workers.gpus), len(os.sched_getaffinity(0))
    count = count_here(workers, most) or workers.count or min(len(gpus), most)
    security = Security.temporary()
    reached = {"host": "127.0.0.1", "dashboard": False, "security": security}
    common = reached | {"nthreads": 1 + max(1, cores // count), "resources": {NOTEBOOK: 1}, "memory_limit": 0}
    spec = {}
    for i in range(count):
        own = {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}
        spec[i] = {"cls": Nanny, "options": common | {"env": own, "silence_logs": logging.ERROR}}
    scheduler = {"cls": Scheduler, "options": reached | {"protocol": "tls://"}}
    return SpecCluster(spec, scheduler, security=security, silence_logs=logging.ERROR)


def _gpus(asked: str) -> list[str]:
    """Numbers of the GPUs to use.

    Raises:
        InputError: there is none, or no such.
    """
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = [str(i) for i in range(torch.cuda.device_count())]
    there = visible.split(",")[: len(there)] if visible else there
    wanted = there if asked in ("", "all") else [g.strip() for g in asked.split(",")]
    if asked and (not there or not set(wanted) <= set(there)):
        raise InputError(f"--gpus {asked}: this machine has {', '.join(there) or 'no GPU'}")
    return wanted


def _queued(workers: Workers, most: int) -> SpecCluster:
    kind, section = ("SLURMCluster", workers.slurm) if workers.slurm else ("PBSCluster", workers.pbs)
    try:
        import dask_jobqueue
    except ImportError:
        raise InputError("--slurm and --pbs need dask-jobqueue: `pip install dask-jobqueue`") from None
    if section not in dask.config.get("jobqueue", {}):
        where = "~/.config/dask/jobqueue.yaml"
        raise InputError(f"dask-jobqueue has no section {section!r}: write one under `jobqueue:` in {where}")
    given = dask.config.get(f"jobqueue.{section}.worker-extra-args", None) or []
    offered = [*given, "--resources", f"{NOTEBOOK}=1", "--nthreads", str(THREADS)]
    keys = papermill_dir() / ".workers"  # whoever can read them can run code on the workers
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    safe = {"protocol": "tls://", "security": True, "shared_temp_directory": str(keys)}
    cluster = getattr(dask_jobqueue, kind)(config_name=section, worker_extra_args=offered, **safe)
    cluster.scale(jobs=workers.count or most)
    return cluster
