"""One notebook executed by papermill: unfinished files never look finished, what failed is kept with its log."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import papermill as pm
from nbconvert.filters import strip_ansi
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from traitlets.config import Config

from . import locks, provenance, reports, shelf
from .cluster import kernel_environment
from .config import NO_ROOM, InputError, UnwritableError, notebooks_dir, unwritable, write_atomic
from .explore.offline import NO_PLAYERS
from .jobs import Job, NotebookFailedError, Outcome, checked

Tell = Callable[[str], None]
REFUSALS = ("InputError", "UnreadableAudio", "UnwritableError")  # what a notebook was given was wrong, not the notebook


class _LiveClient(PapermillNotebookClient):
    """Passes the live lines of a running notebook (updated displays) on to a callback."""

    show: Any = None

    def process_message(self, msg: dict, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in ("display_data", "update_display_data") and self.show:
            content = msg["content"]
            line = content.get("data", {}).get("text/plain", "")
            if content.get("transient", {}).get("display_id") and "\n" not in line:
                self.show(line)
        return super().process_message(msg, cell, cell_index)


class LiveEngine(NBClientEngine):
    """papermill's engine, with the notebook's own progress line shown in the terminal."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, show=None, page=True, start_timeout=120, **kwargs):
        """Execute all cells; `show` is called with every progress line. Without a page explorers are not drawn into it.

        A kernel keeps the bytecode of what it imports: where `PYTHONDONTWRITEBYTECODE` is set (containers do that),
        each would compile ten thousand files for itself.
        """
        nb_man.nb.metadata["vaelib"] = provenance.record()
        told = {provenance.COMMAND: provenance.command()} | ({} if page else {NO_PLAYERS: "1"})
        environment = os.environ | kernel_environment() | told
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with tempfile.TemporaryDirectory(prefix="vaelib-") as folder:  # sockets that only this user can reach
            sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/k"}})
            client = _LiveClient(
                nb_man, kernel_name=kernel_name, startup_timeout=start_timeout, timeout=None, config=sockets
            )
            client.show = show
            with open(f"{folder}/kernel.log", "wb") as log:  # kernels grumble on their way out
                try:
                    return client.execute(stderr=log, env=environment)
                except Exception as e:
                    e.add_note(Path(log.name).read_text(errors="replace"))  # the last words of one that died
                    raise


pm.engines.papermill_engines.register("vaelib", LiveEngine)


def execute(job: Job, tell: Tell | None = None, again: bool = False) -> Path:
    """Execute one notebook; one that is already executed with these parameters and this code is not repeated.

    While it runs the file is called `….partial.ipynb`, after an error `….failed.ipynb` (with a `….failed.log` of what
    was said): neither looks finished. `index.html` shows what came of it. Who finds another process executing the same
    waits for it.

    Args:
        tell: Gets every progress line of the notebook; None: nobody listens.
        again: Execute in any case.

    Returns:
        The executed notebook in `papermill_runs/`; its HTML report lies beside it, if the job has one.

    Raises:
        InputError: unknown notebook or parameters, input that the notebook refused, or no room to write.
        NotebookFailedError: a cell raised.
    """
    return _made(job, tell, again)[0]


def _made(job: Job, tell: Tell | None, again: bool) -> tuple[Path, bool]:
    """The executed notebook, and whether it had to be executed for that."""
    values, final = checked(job.notebook, job.parameters), job.final

    def say(who: str) -> None:
        if tell:
            tell(f"{who} is executing this notebook; waiting for it")

    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise unwritable(final.parent, e) from e
    with locks.held(final.with_name(f".{final.stem}.lock"), say):
        todo = again or not job.is_done()
        if todo:
            _execute(job, values, final, tell)
    shelf.update_or_say()
    return final, todo


def _execute(job: Job, values: dict[str, Any], final: Path, tell: Tell | None) -> None:
    partial, failed = final.with_suffix(".partial.ipynb"), final.with_suffix(".failed.ipynb")
    try:
        pm.execute_notebook(
            str(job.source), str(partial), values, engine_name="vaelib", kernel_name="python3", progress_bar=False,
            cwd=str(notebooks_dir()), show=tell, page=job.page,
        )  # fmt: skip
    except pm.PapermillExecutionError as e:
        if e.ename in REFUSALS:  # not a failure of the notebook: nothing is left of it
            partial.unlink(missing_ok=True)
            raise InputError(e.evalue) from e
        _keep_failed(partial, failed, e)
        raise NotebookFailedError(f"{job.notebook} failed: {e.ename}: {e.evalue}; see {failed}") from e
    except Exception as e:  # a dead kernel leaves a notebook that looks executed
        if isinstance(e, OSError) and e.errno in NO_ROOM:
            raise unwritable(partial, e) from e
        _keep_failed(partial, failed, e)
        raise NotebookFailedError(f"{job.notebook} failed: {e}; what was executed is in {failed}") from e
    for left in (failed, failed.with_suffix(".log")):
        left.unlink(missing_ok=True)
    if job.page:
        reports.write_html(partial, final.with_suffix(".html"), title=final.stem)
    partial.replace(final)


def _keep_failed(partial: Path, failed: Path, error: Exception) -> None:
    """What is left of a failed run: the notebook as far as it came, and a log of error, traceback and kernel."""
    if partial.exists():
        partial.replace(failed)
    words = "\n".join([str(error), *getattr(error, "__notes__", [])])
    with suppress(UnwritableError):  # a full disk must not hide why the notebook failed
        write_atomic(failed.with_suffix(".log"), strip_ansi(words).strip() + "\n")
    shelf.update_or_say()


def attempt(job: Job, tell: Tell | None = None, again: bool = False) -> Outcome:
    """`execute`, with whatever comes of it as a value: one failure must not end a batch."""
    started = time.monotonic()
    try:
        path, executed = _made(job, tell, again)
        return Outcome(job, "done" if executed else "already done", time.monotonic() - started, path)
    except InputError as e:
        return Outcome(job, "refused", time.monotonic() - started, reason=str(e))
    except Exception as e:  # a notebook that failed, a full disk, or the like
        failed = job.final.with_suffix(".failed.ipynb")
        return Outcome(job, "failed", time.monotonic() - started, failed if failed.is_file() else None, str(e))
