"""Work in forked processes that get SIGKILL at random moments; `test_kills.py` runs this, for pytest has threads.

    python tests/killing.py store|training KILLS SEED FOLDER CORPUS

Leaves `FOLDER/whole`, made without a kill, and `FOLDER/1`, `FOLDER/2`, …, each made by processes that were killed and
begun again until one came to its end; prints how many kills hit work that was under way.
"""

import itertools
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import lightning_fabric  # noqa: F401 (here once, not in every fork: kills shall hit the work, not seconds of imports)
import torch
import torch._dynamo
from conftest import TINY
from test_training import settings

from vaelib import preprocess, training
from vaelib.store import build_store, open_store


def run(work: Callable[[], object], seconds: float = 3600, since: Callable[[], bool] = lambda: True) -> bool:
    """Do the work in a fork, for so many seconds at most once `since` holds; whether it came to its end."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    end = None
    while end is None or time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        if end is None and since():
            end = time.monotonic() + seconds
        time.sleep(0.001)
    else:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    if os.waitstatus_to_exitcode(status):
        sys.exit("the work failed without being killed")
    return True


def main(what: str, kills: int, seed: int, folder: Path, corpus: Path) -> None:
    """Kill until enough kills have hit."""
    random.seed(seed)
    torch.set_num_threads(1)
    preprocess.REGION_CLIPS, preprocess.REGIONS, preprocess.CHUNK_BYTES, training.SAVE_EVERY_S = 3, 1, 1, -1.0
    place, begun, done = {
        "store": ("VAELIB_DATA", "stores/*.partial*", "stores/*-tiny.zarr/zarr.json"),
        "training": ("VAELIB_OUTPUTS", "*/*/last.safetensors", "*/*/done.json"),
    }[what]
    if what == "store":
        work = lambda: build_store(corpus, TINY, workers=2)  # noqa: E731
    else:
        store = folder / "store"
        run(lambda: store.write_text(str(build_store(corpus, TINY))))
        opened = open_store(store.read_text())
        config = settings(opened, "vade", pretrain_epochs=4, epochs=8)
        work = lambda: training.train(config, opened, show=False)  # noqa: E731

    os.environ[place] = str(folder / "whole")
    started = time.monotonic()
    run(work)
    whole, hits = time.monotonic() - started, 0
    for number in itertools.count(1):
        here = folder / str(number)
        os.environ[place] = str(here)
        ended = False
        while not ended:
            # Most kills wait for the work: on a busy machine imports and settings before it can take most of the time
            since = (lambda: any(here.glob(begun))) if random.random() < 0.7 else (lambda: True)  # noqa: B023
            ended = run(work, random.uniform(0, whole), since) if hits < kills else run(work)
            hit = not ended and any(here.glob(begun)) and not any(here.glob(done))
            hits += hit
            whole *= 1 if hit else 1 / 1.2 if ended else 1.2  # too late, too early: the machine's load has changed
        if hits >= kills:
            break
    print(hits, number, f"{whole:.2f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
