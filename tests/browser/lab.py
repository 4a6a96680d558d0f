"""A private JupyterLab and a browser that drives it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a test must be collected without playwright, to say why it is skipped
    from playwright.sync_api import Browser, Locator, Page, Playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Quiet and offline; sounds start as they do for a reader who has clicked the page
FLAGS = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--mute-audio",
         "--autoplay-policy=no-user-gesture-required"]  # fmt: skip
# No pop-up over what is measured, no look-up of newer versions
NOTIFICATIONS = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
FOLDERS = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR",
           "JUPYTERLAB_WORKSPACES_DIR")  # fmt: skip
VIEWPORT = {"width": 1400, "height": 1000}
EXPLORERS = ".vaelib-view, .vaelib-clips"
WAIT = 240_000  # milliseconds that any step may take (a busy machine is slow)

KERNEL_IS_READY = """() => {
    const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""
# Asks the model, for cells far from the view are not in the page.
HAS_RUN = """() => {
    const panel = window.jupyterapp.shell.currentWidget, cells = [...panel.content.model.cells];
    const code = cells.filter((c) => c.type === "code" && c.sharedModel.source.trim());
    const errors = code.flatMap((c) => c.outputs.toJSON()).filter((o) => o.output_type === "error");
    const idle = panel.sessionContext.session?.kernel?.status === "idle";
    if (!idle || (code.some((c) => c.executionCount === null) && !errors.length)) return null;
    return {errors: errors.map((e) => `${e.ename}: ${e.evalue}`)};
}"""
SCROLL_TO_CELL = """async (i) => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    await notebook.scrollToItem(i, "start");
    notebook.widgets[i].node.dataset.vaelibCell = i;
}"""


def find_browser() -> str | None:
    """Path of an installed Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def launch(playwright: Playwright, executable: str) -> Browser:
    """A headless browser; as root (in a container) Chromium has no sandbox to offer."""
    flags = FLAGS + (["--no-sandbox"] if os.geteuid() == 0 else [])
    return playwright.chromium.launch(executable_path=executable, args=flags)


@contextmanager
def jupyter_lab(root: Path) -> Iterator[str]:
    """Serve `root` on a free local port, with settings that are thrown away; → address of a notebook, to be formatted.

    RuntimeError with the end of the server's log: it ended, or did not answer within four minutes.
    """
    token = secrets.token_hex(24)
    with tempfile.TemporaryDirectory(prefix="vaelib-lab-", ignore_cleanup_errors=True) as scratch:
        folders = {name: f"{scratch}/{name}" for name in FOLDERS}
        settings = Path(folders["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab/apputils-extension")
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text(json.dumps(NOTIFICATIONS))
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root.resolve()}",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--allow-root",
            # Should whoever started it be killed, it ends by itself.
            "--MappingKernelManager.cull_idle_timeout=600", "--ServerApp.shutdown_no_activity_timeout=900",
        ]  # fmt: skip
        # The token goes through the environment: command lines are seen by everyone on the machine.
        environment = os.environ | folders | {"JUPYTER_TOKEN": token, "JUPYTER_PREFER_ENV_PATH": "1"}
        log = Path(scratch, "server.log")
        with log.open("wb") as out:
            server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            _wait_until_it_listens(server, port, log)
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}?reset&token={token}"
        finally:
            server.terminate()  # ends its kernels too
            server.wait(60)


def _wait_until_it_listens(server: subprocess.Popen, port: int, log: Path) -> None:
    deadline = time.monotonic() + WAIT / 1000
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not answer; the end of its log: {log.read_text(errors='replace')[-1500:]}")


class Notebook:
    """A notebook in JupyterLab, at an address of `jupyter_lab`, in a page of a browser, which stays on it."""

    def __init__(self, page: Page, address: str, path: Path) -> None:
        self.page, self.path = page, path
        page.set_default_timeout(WAIT)
        page.goto(address.format(path.name))
        page.locator(".jp-NotebookPanel:visible").wait_for()
        # The status bar says "idle" before the kernel is connected, and a command sent then is dropped in silence.
        page.wait_for_function(KERNEL_IS_READY, polling=100)

    def command(self, name: str) -> None:
        """Run a command of JupyterLab and wait for its end."""
        self.page.evaluate("name => window.jupyterapp.commands.execute(name)", name)

    def run_all(self) -> None:
        """Run all cells from the menu, as a reader does, and wait for their end; AssertionError: a cell failed."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.locator("li[data-command='runmenu:run-all']").click()
        self.wait_until_run()

    def wait_until_run(self) -> None:
        """Wait until every cell has run."""
        state = self.page.wait_for_function(HAS_RUN, polling=100).json_value()
        assert not state["errors"], f"{self.path.name}: {state['errors'][0]}"

    def show(self, cell: int) -> Locator:
        """Scroll to a cell, and find it."""
        self.page.evaluate(SCROLL_TO_CELL, cell)
        return self.page.locator(f"[data-vaelib-cell='{cell}']")

    def explorer(self, cell: int) -> Locator:
        """Scroll to the explorer in a cell's output, and find it."""
        found = self.show(cell).locator(EXPLORERS).first
        found.locator("canvas").first.wait_for()
        return found

    def save(self) -> Path:
        """Write the notebook with its outputs, and give its path."""
        self.command("docmanager:save")
        return self.path


def drag(slider: Locator, *shares: float, moves: int = 6, pause: float = 30) -> None:
    """Drag a range input with the mouse to each share (0…1) of its track, in `moves` moves with pauses (ms)."""
    slider.scroll_into_view_if_needed()
    mouse, box, thumb = slider.page.mouse, slider.bounding_box(), 16  # a thumb's width, nearly
    left, width, y = box["x"] + thumb / 2, box["width"] - thumb, box["y"] + box["height"] / 2
    x = left + width * slider.evaluate("e => (e.value - e.min) / Math.max(e.max - e.min, 1e-9)")
    mouse.move(x, y)
    mouse.down()
    for share in shares:
        start, x = x, left + share * width
        for k in range(1, moves + 1):
            mouse.move(start + (x - start) * k / moves, y)
            slider.page.wait_for_timeout(pause)
    mouse.up()
