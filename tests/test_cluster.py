"""Where notebooks are executed: workers of this machine, of a scheduler, of a queue."""

import os
import subprocess
import sys

import dask
import pytest
from distributed import Client, LocalCluster

from vaelib import cluster, tasks
from vaelib.cluster import NOTEBOOK, Workers, connected, kernel_environment
from vaelib.config import InputError


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"gpus": "all", "slurm": "gpu"}, "--gpus and --slurm exclude each other"),
        ({"count": 0}, "at least one worker"),
        ({"count": 2, "scheduler": "tcp://x:1"}, "--workers does not go with --scheduler"),
    ],
)
def test_contradictions_are_refused(given, says):
    with pytest.raises(InputError, match=says):
        Workers(**given)


def test_gpus_that_are_not_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(InputError, match="--gpus all: this machine has no GPU"), connected(Workers(gpus="all")):
        pass
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(InputError, match="--gpus 0,2: this machine has 0, 1"), connected(Workers(gpus="0,2")):
        pass


def seen() -> tuple:
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid(), kernel_environment()


def test_every_worker_sees_its_own_gpu_and_gives_its_kernels_the_way_back(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with connected(Workers(gpus="all")) as client:
        addresses = list(client.scheduler_info(n_workers=-1)["workers"])
        found = [client.submit(seen, workers=[a], resources={NOTEBOOK: 1}, pure=False).result() for a in addresses]
        assert sorted(f[0] for f in found) == ["4", "7"] and len({f[1] for f in found}) == 2
        environment = found[0][2]
        assert environment["DASK_SCHEDULER_ADDRESS"].startswith("tls://127.0.0.1")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert kernel_environment() == {}  # not a worker
        code = "from distributed import Client; print(Client(timeout=120).submit(sum, [1, 2]).result())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.strip() == "3", done.stderr


def test_no_more_workers_than_work():
    with connected(Workers(), most=1) as client:
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 1


def test_a_scheduler_that_is_not_there(monkeypatch):
    monkeypatch.setattr(tasks, "SECONDS", 0.5)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"), connected(
        Workers(scheduler="tcp://127.0.0.1:9")
    ):  # fmt: skip
        pass


def test_workers_of_a_running_scheduler():
    quiet = {"processes": False, "n_workers": 1, "dashboard_address": None, "threads_per_worker": 2}
    with LocalCluster(**quiet, protocol="tcp://", host="127.0.0.1") as other, pytest.raises(
        InputError, match='--resources "notebook=1"'
    ), connected(Workers(scheduler=other.scheduler_address)):  # fmt: skip
        pass
    with LocalCluster(**quiet, protocol="tcp://", host="127.0.0.1", resources={NOTEBOOK: 1}) as other, connected(
        Workers(scheduler=other.scheduler_address)
    ) as client:  # fmt: skip
        assert isinstance(client, Client) and client.submit(sum, [1, 2], resources={NOTEBOOK: 1}).result() == 3


def test_a_queue_is_asked_for_workers_that_take_notebooks(monkeypatch):
    jobqueue = pytest.importorskip("dask_jobqueue")
    asked = []
    monkeypatch.setattr(jobqueue.SLURMCluster, "scale", lambda self, jobs: asked.append(jobs))
    section = dict(dask.config.get("jobqueue.slurm"), cores=4, memory="8GB", queue="gpu")
    with dask.config.set({"jobqueue.mine": section}):
        made = cluster._queued(Workers(count=3, slurm="mine"), 9)
        try:
            script = made.job_script()
        finally:
            made.close()
    assert asked[0] == 3 and "#SBATCH -p gpu" in script and "--resources notebook=1" in script
    with pytest.raises(InputError, match="no section 'none'"):
        cluster._queued(Workers(slurm="none"), 9)
