"""What the processes of `test_devices.py` do; started by `torchrun`: python -m together FOLDER STORE NAME...

Each trains the configurations `<name>.json` of the folder and leaves its weights as `<name>-<rank>.pt`, trains the last
one again with an interruption, and at the end one is killed while the other waits for it.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import torch

from vaelib import training
from vaelib.config import RunConfig
from vaelib.devices import rank, tell
from vaelib.store import Store, open_store
from vaelib.training import Trainer


def main(folder: Path, store_path: str, *names: str) -> None:
    """All of it."""
    store = open_store(store_path)
    os.environ["VAELIB_OUTPUTS"] = str(folder / "two")
    for name in names:
        config = RunConfig.from_dict(json.loads((folder / f"{name}.json").read_text()))
        leave(train(config, store), folder / name)
    os.environ["VAELIB_OUTPUTS"] = str(folder / "parts")
    train(config, store, stop_at=config.training.total_epochs - 1)
    trainer = train(config, store)
    leave(trainer, folder / f"{name}-resumed")
    tell(line=f"process {rank()} is done")
    trainer.fabric.barrier()
    if rank():
        os.kill(os.getpid(), signal.SIGKILL)
    trainer.fabric.barrier()


def leave(trainer: Trainer, path: Path) -> None:
    """Save this process's weights."""
    torch.save(trainer.model.state_dict(), f"{path}-{rank()}.pt")


def train(config: RunConfig, store: Store, stop_at: int | None = None) -> Trainer:
    """A trainer that has run; interrupted before epoch `stop_at` if given."""
    trainer = Trainer(config, store, show=False)
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


if __name__ == "__main__":
    training.SAVE_EVERY_S = -1.0
    main(Path(sys.argv[1]), *sys.argv[2:])
