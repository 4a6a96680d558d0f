"""Many small tasks on Dask workers: which ones are asked, how many are under way, what is said when they are gone."""

import os
import platform
import subprocess
import sys
import threading
import time

import pytest
import torch
from distributed import Client, LocalCluster

from vaelib import tasks
from vaelib.config import InputError
from vaelib.tasks import connected, in_order, one_torch_thread, results

PAGES = """
import resource, sys
import numpy as np
from vaelib.memory import keep_freed_memory
if len(sys.argv) > 1:
    keep_freed_memory()
for i in range(60):
    if i == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(n << 20, np.uint8) for n in (3, 5, 7, 9)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.fixture(scope="module")
def client():
    """Two threads of this process."""
    with connected(None, 2) as client:
        yield client


def test_a_given_client_is_used_and_left_open(client):
    with connected(client, 7) as found:
        assert found is client
    assert in_order(client, abs, [-1]) == [1]


def test_without_one_this_process_does_the_work():
    with connected(None, 3) as found:
        assert sum(found.nthreads().values()) == 3 and in_order(found, lambda _: os.getpid(), [0]) == [os.getpid()]


def test_the_scheduler_of_the_environment(monkeypatch):
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0"
    ) as cluster:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        with connected(None, 7) as found:
            assert sum(found.nthreads().values()) == 2 and in_order(found, abs, [-1, -2]) == [1, 2]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere", "tls://127.0.0.1:1"])
def test_a_scheduler_that_does_not_answer_is_a_sentence(monkeypatch, address):
    monkeypatch.setattr(tasks, "SECONDS", 0.5)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    with pytest.raises(InputError, match=rf"no Dask scheduler answers at {address}.*unset \$DASK"), connected():
        pass


def test_results_come_with_their_numbers_and_few_calls_are_under_way(client):
    taken, given = [], []

    def calls():
        for i in range(40):
            taken.append(i)
            yield (i,)

    for i, result in results(client, lambda x: x * x, calls()):
        given.append(i)
        assert result == i * i and len(taken) - len(given) <= 4  # two calls for each of two threads
    assert sorted(given) == list(range(40)) and in_order(client, str, [3, 1, 2]) == ["3", "1", "2"]
    assert list(results(client, abs, iter([]))) == []


def test_who_waits_for_a_worker_says_so(capfd):
    options = {"processes": False, "n_workers": 0, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as found:
        later = threading.Timer(0.3, cluster.scale, [1])
        later.start()
        assert in_order(found, abs, [-1, -2, -3]) == [1, 2, 3]
        later.join()
    assert "Dask: waiting for a worker of inproc://" in capfd.readouterr().err


def test_an_error_in_a_call_is_raised_as_it_is(client):
    with pytest.raises(ZeroDivisionError):
        list(results(client, lambda x: 1 / x, ((x,) for x in (1, 0, 2))))


def test_what_was_begun_is_given_back_when_the_caller_stops(client):
    going = results(client, time.sleep, ((0.01,) for _ in range(100)))
    next(going)
    going.close()
    end = time.monotonic() + 60
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < end


def test_a_call_that_kills_its_workers_is_named():
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "memory_limit": 0}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as found:
        cluster.scheduler.allowed_failures = 0
        with pytest.raises(InputError, match=r"1 workers died, .* over a.flac to c.flac: .*continues"):
            list(results(found, os._exit, [(1,)], lambda i: "a.flac to c.flac"))


def test_a_scheduler_that_goes_away_is_a_sentence(monkeypatch):
    monkeypatch.setattr(tasks, "SECONDS", 0.5)
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "processes": False}
    with LocalCluster(**options, protocol="tcp") as cluster:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        with pytest.raises(InputError, match="the Dask scheduler went away"), connected() as found:
            for _ in results(found, time.sleep, ((0.01,) for _ in range(1000))):
                cluster.close()


def test_torch_threads_are_one_inside_and_restored_after_tasks_that_overlap():
    before, inside, gate = torch.get_num_threads(), [], threading.Barrier(2)

    def task(turn):
        gate.wait()  # one is in before the other asks for the number, and leaves last
        time.sleep(0.05 * turn)
        with one_torch_thread():
            inside.append(torch.get_num_threads())
            time.sleep(0.2 - 0.1 * turn)
        inside.append(torch.get_num_threads())

    torch.set_num_threads(3)
    try:
        threads = [threading.Thread(target=task, args=(turn,)) for turn in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = []
        new = threading.Thread(target=lambda: after.append(torch.get_num_threads()))
        new.start()
        new.join()
        assert sorted(inside) == [1, 1, 3, 3] and after == [3] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_for_the_next_block():
    """50 times 24 MB: 6,144 pages each time, where they are given back."""
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", PAGES, *more], capture_output=True, text=True, check=True).stdout)
        for more in ([], ["keep"])
    )
    assert kept < 6144 < given_back
