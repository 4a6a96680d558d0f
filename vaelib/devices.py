"""One device or several: what is there, and the processes that train one model together."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from . import locks
from .config import ROOT, InputError, write_atomic
from .steps import resolve_precision


class TrainingStoppedError(RuntimeError):
    """One of the processes that train a model together died; the others were ended."""


def launched() -> int:
    """How many processes `torchrun` started, this one among them; 0: it did not start this one."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def rank() -> int:
    """Number of this process among those that `torchrun` started; 0 if it did not start this one."""
    return int(os.environ["RANK"]) if launched() else 0


def group() -> str:
    """Name of the processes that train together, the same in all of them: their launcher's, else this process's."""
    return f"process {os.getppid()} on {socket.gethostname()}" if launched() else locks.this_process()


def check_devices(devices: int, batch: int) -> None:
    """Whether a step of `batch` clips can be shared by so many devices of this machine.

    Raises:
        InputError: it cannot.
    """
    if devices < 1:
        raise InputError(f"devices must be at least 1, not {devices}")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and devices > gpus:
        raise InputError(f"devices is {devices}, but {gpus} GPU{'s are' if gpus > 1 else ' is'} there: ask for fewer")
    if devices > 1 and (batch % devices or batch < 2 * devices):
        raise InputError(
            f"a step of {batch} clips cannot be shared equally by {devices} devices, two clips or more each: "
            "choose another batch_size or number of devices"
        )


def make_fabric(precision: str = "auto", devices: int = 1) -> Any:
    """Lightning Fabric on the accelerator that is there; for `auto` precision see `steps.resolve_precision`.

    With several devices (GPUs by NCCL, else CPU processes by Gloo) this process must be one of as many that
    `torchrun` started.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    precision = resolve_precision(precision, kind)
    if devices == 1:
        return Fabric(accelerator="auto", devices=1, precision=precision)
    # what batch normalisation remembers is averaged after each pass, not overwritten by the first process at each step
    together = DDPStrategy(broadcast_buffers=False)
    fabric = Fabric(accelerator=kind, devices=devices, strategy=together, precision=precision)
    fabric.launch()
    return fabric


def launch(
    module: str, arguments: Sequence[str], devices: int, show: Callable[[str], None], errors: Sequence[type[Exception]],
    log: Path,
) -> None:  # fmt: skip
    """Run `python -m module arguments` in several processes with `torchrun`, and wait for them.

    A notebook's kernel cannot itself become several processes. What they have to say they print as JSON, one object
    per line (see `tell`): `{"line": …}` is shown, `{"error": …, "message": …}` raised here.

    Args:
        show: Called with every line.
        errors: Exceptions that are raised here as there.
        log: Where to write what the processes left on stderr, if they fail.

    Raises:
        TrainingStoppedError: a process died, or failed with another exception; the others were ended.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    command += ["-m", module, *arguments]
    failed: list[dict[str, Any]] = []
    log.unlink(missing_ok=True)
    with (
        tempfile.TemporaryFile("w+", errors="replace") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=_environment(devices)
        ) as process,
    ):  # fmt: skip
        try:
            for line in process.stdout:
                said = _heard(line)
                if "line" in said:
                    show(said["line"])
                elif "error" in said:
                    failed.append(said)
            process.wait()
        except BaseException:
            process.terminate()  # the launcher takes its processes along
            process.wait()
            raise
        stderr.seek(0)
        last_words = stderr.read()
    if process.returncode:
        raise _failure(devices, failed, errors, last_words, log)


def _environment(devices: int) -> dict[str, str]:
    """This process's, its threads shared out; `vaelib` is found whatever the working directory."""
    threads = str(max(1, torch.get_num_threads() // devices))
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": path}


def tell(**said: str) -> None:
    """Print something for the process that waits in `launch`."""
    # one write, the end of the line included: several processes share this pipe
    sys.stdout.write(json.dumps(said | {"process": rank()}) + "\n")
    sys.stdout.flush()


def _heard(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}  # some library's print
    return said if isinstance(said, dict) else {}


def _failure(
    devices: int, failed: list[dict[str, Any]], errors: Sequence[type[Exception]], last_words: str, log: Path
) -> Exception:
    """The first cause: the others only lost their partner."""
    known = {e.__name__: e for e in errors}
    for said in failed:
        if said["error"] in known:
            return known[said["error"]](said["message"])
    write_atomic(log, last_words)
    # torchrun lists who ended how, the first one last; those ended by itself got SIGTERM
    ends = re.findall(r"rank\s*: (\d+) .*\n\s*exitcode\s*: -(\d+)", last_words)
    killed = [(process, int(number)) for process, number in ends if int(number) != signal.SIGTERM]
    if killed:
        process, number = killed[-1]
        what = f"process {process} was killed by {signal.Signals(number).name}"
        what += " (out of memory?)" if number == signal.SIGKILL else ""
    elif failed:
        what = f"process {failed[0]['process']} failed with {failed[0]['error']}: {failed[0]['message']}"
    else:
        what = "the processes could not be started"
    return TrainingStoppedError(
        f"training on {devices} devices stopped, {what}; the others were ended, {log} has what they said: "
        "run the same again, it continues from the last checkpoint"
    )
