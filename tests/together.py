"""What the processes of `test_devices.py` do; started by `torchrun`: python -m together WHAT ARGUMENTS."""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import torch

from vaelib.config import RunConfig
from vaelib.devices import make_fabric, rank, tell


def train(folder: Path, store_path: str, *names: str) -> None:
    """Train the configurations `<name>.json` of a folder; each process leaves its weights as `<name>-<rank>.pt`."""
    from vaelib.store import open_store

    store = open_store(store_path)
    for name in names:
        config = RunConfig.from_dict(json.loads((folder / f"{name}.json").read_text()))
        os.environ["VAELIB_OUTPUTS"] = str(folder / "two")
        trainer = train_one(config, store)
        torch.save(trainer.model.state_dict(), folder / f"{name}-{rank()}.pt")
    os.environ["VAELIB_OUTPUTS"] = str(folder / "parts")
    train_one(config, store, stop_at=config.training.total_epochs - 1)
    trainer = train_one(config, store)
    torch.save(trainer.model.state_dict(), folder / f"{name}-resumed-{rank()}.pt")


def train_one(config: RunConfig, store, stop_at: int | None = None):
    """A trainer that has run; interrupted in epoch `stop_at` if given."""
    from vaelib import training

    training.SAVE_EVERY_S = -1.0
    trainer = training.Trainer(config, store, show=False)
    epoch = trainer._epoch

    def interrupted(number: int) -> dict:
        if number == stop_at:
            trainer.fabric.barrier()  # the first process has written its checkpoint
            raise KeyboardInterrupt
        return epoch(number)

    trainer._epoch = interrupted
    with suppress(KeyboardInterrupt):
        trainer.run()
    return trainer


def die() -> None:
    """The second process is killed while the first one waits for it."""
    fabric = make_fabric("32-true", 2)
    tell(line=f"process {rank()} is there")
    fabric.barrier()
    if rank():
        os.kill(os.getpid(), signal.SIGKILL)
    fabric.barrier()


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    train(Path(arguments[0]), *arguments[1:]) if what == "train" else die()
