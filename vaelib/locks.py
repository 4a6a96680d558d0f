"""One process at a time: an advisory lock on a file, which the operating system takes back from a process that dies."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from .config import unwritable

EVERY = 0.2  # seconds between two looks at a lock that somebody else is to take


def this_process() -> str:
    """How this process is named in a lock file and in the line of whoever waits for it."""
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextmanager
def held(path: Path, say: Callable[[str], None], name: str = "") -> Iterator[None]:
    """Hold a lock file, which is removed at the end; whoever comes second waits for the first.

    A file that a killed process left is no lock. On a file system without locks nobody waits.

    Args:
        path: The lock file; its folder is made.
        say: Called with the name of the holder, once, if there is one to wait for.
        name: Of this process; default: `this_process()`.

    Raises:
        UnwritableError: the folder may not be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path, say)
    except OSError as e:
        raise unwritable(path, e) from e
    try:
        with suppress(OSError):  # on a full disk it is held without a name
            file.truncate(0)
            file.write(name or this_process())
            file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: see `_locked`
        with suppress(OSError):
            file.close()


def _locked(path: Path, say: Callable[[str], None]) -> TextIO:
    told = False
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (writable: network file systems lock no other files)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    say(holder(path) or "another process")
                told = True
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                return file  # a file system without locks
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # whoever held it has removed the file: another one counts now


def holder(path: Path) -> str:
    """Who holds a lock file, or held it last and was killed; "" if nobody does."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8")
    return ""


def wait_for(path: Path, name: str, unless: Callable[[], bool]) -> None:
    """Wait until a partner called `name` holds a lock file, or until `unless` says that there is no need."""
    while holder(path) != name and not unless():
        time.sleep(EVERY)
