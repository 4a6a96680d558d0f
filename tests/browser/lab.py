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
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:  # a test must be collected without playwright, to say why it is skipped
    from playwright.sync_api import Browser, Locator, Page, Playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Quiet and offline; sounds start as they do for a reader who has clicked the page.
FLAGS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--mute-audio", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
SETTINGS = {  # no pop-up over what is measured, no look-up of newer versions
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
}
VIEWPORT = {"width": 1400, "height": 1000}
EXPLORERS = ".vaelib-view, .vaelib-clips"

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
CELLS_WITH_WIDGETS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells].flatMap((c, i) =>
    c.type === "code" && c.outputs.toJSON().some((o) => "application/vnd.jupyter.widget-view+json" in (o.data ?? {}))
    ? [i] : [])"""
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


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: its address, its token and the folder that it serves."""

    base: str
    token: str
    root: Path

    def address(self, notebook: Path) -> str:
        return f"{self.base}/lab/tree/{quote(str(notebook.relative_to(self.root)))}?reset&token={self.token}"


@contextmanager
def jupyter_lab(root: Path, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Serve `root` on a free local port, with settings that are thrown away; kernels end with the server.

    Raises:
        RuntimeError: the server ended or did not answer within four minutes; with the end of its log.
    """
    root, token = root.resolve(), secrets.token_hex(24)
    with tempfile.TemporaryDirectory(prefix="vaelib-lab-", ignore_cleanup_errors=True) as scratch:
        folders = {
            name: f"{scratch}/{name}"
            for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR",
                         "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
        }  # fmt: skip
        _write_settings(Path(folders["JUPYTERLAB_SETTINGS_DIR"]))
        # The token goes through the environment: command lines are seen by everyone on the machine.
        secret = {"JUPYTER_TOKEN": token, "JUPYTER_PREFER_ENV_PATH": "1"}
        base, log = f"http://127.0.0.1:{_free_port()}", Path(scratch) / "server.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                _command(root, base), env=os.environ | folders | secret | dict(env or {}), stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        try:
            _wait_until_it_answers(process, base, token, log)
            yield Server(base, token, root)
        finally:
            _stop(process)


def _write_settings(folder: Path) -> None:
    for plugin, values in SETTINGS.items():
        path = folder / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _command(root: Path, base: str) -> list[str]:
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={base.rsplit(':', 1)[1]}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        # Should whoever started it be killed, it ends by itself.
        "--MappingKernelManager.cull_idle_timeout=600", "--ServerApp.shutdown_no_activity_timeout=900",
    ]  # fmt: skip
    return command + (["--allow-root"] if os.geteuid() == 0 else [])


def _wait_until_it_answers(process: subprocess.Popen, base: str, token: str, log: Path, seconds: float = 240) -> None:
    request = urllib.request.Request(f"{base}/api/status", headers={"Authorization": f"token {token}"})
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not answer; the end of its log: {log.read_text(errors='replace')[-1500:]}")


def _stop(process: subprocess.Popen) -> None:
    """Ask the server to end, which ends its kernels; after a while end it by force."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Notebook:
    """A notebook in JupyterLab, in a page of a browser.

    Args:
        page: The page; it stays on this notebook.
        timeout: Seconds that any step may take (a busy machine is slow).
    """

    def __init__(self, page: Page, server: Server, path: Path, timeout: float = 240) -> None:
        self.page, self.path, self.milliseconds = page, path, 1000 * timeout
        page.goto(server.address(path), timeout=self.milliseconds)
        page.locator(".jp-NotebookPanel:visible").wait_for(timeout=self.milliseconds)
        # The status bar says "idle" before the kernel is connected, and a command sent then is dropped in silence.
        page.wait_for_function(KERNEL_IS_READY, timeout=self.milliseconds, polling=100)

    def command(self, name: str, **arguments: str) -> None:
        """Run a command of JupyterLab and wait for its end."""
        self.page.evaluate("([name, given]) => window.jupyterapp.commands.execute(name, given)", [name, arguments])

    def run_all(self) -> Notebook:
        """Run all cells from the menu, as a reader does; `wait_until_run` waits for their end."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.locator("li[data-command='runmenu:run-all']").click()
        return self

    def wait_until_run(self) -> None:
        """Wait until every cell has run.

        Raises:
            AssertionError: a cell failed.
        """
        state = self.page.wait_for_function(HAS_RUN, timeout=self.milliseconds, polling=100).json_value()
        assert not state["errors"], f"{self.path.name}: {state['errors'][0]}"

    def explorers(self) -> list[int]:
        """Numbers of the cells that show a widget."""
        return self.page.evaluate(CELLS_WITH_WIDGETS)

    def show(self, cell: int) -> Locator:
        """Scroll to a cell, and find it."""
        self.page.evaluate(SCROLL_TO_CELL, cell)
        return self.page.locator(f"[data-vaelib-cell='{cell}']")

    def explorer(self, cell: int) -> Locator:
        """Scroll to the explorer in a cell's output, and find it."""
        found = self.show(cell).locator(EXPLORERS).first
        found.wait_for(timeout=self.milliseconds)
        found.locator("canvas").first.wait_for(timeout=self.milliseconds)
        return found

    def save(self) -> Path:
        """Write the notebook with its outputs, and give its path."""
        self.command("docmanager:save")
        return self.path


def centre(slider: Locator) -> tuple[float, float]:
    """Where a pointer takes hold of a range input, pixels."""
    (left, right), box = track(slider), slider.bounding_box()
    place = slider.evaluate("e => (e.value - e.min) / Math.max(e.max - e.min, 1e-9)")
    return left + place * (right - left), box["y"] + box["height"] / 2


def track(slider: Locator) -> tuple[float, float]:
    """Left and right end, in pixels, of what the middle of the thumb can reach."""
    box, thumb = slider.bounding_box(), 16  # a thumb's width, nearly
    return box["x"] + thumb / 2, box["x"] + box["width"] - thumb / 2


def drag(slider: Locator, *shares: float, moves: int = 6, pause: float = 30) -> None:
    """Drag a range input with the mouse to each share (0…1) of its track, in `moves` moves with pauses (ms)."""
    slider.scroll_into_view_if_needed()
    page, (x, y), (left, right) = slider.page, centre(slider), track(slider)
    page.mouse.move(x, y)
    page.mouse.down()
    for share in shares:
        start, x = x, left + share * (right - left)
        for k in range(1, moves + 1):
            page.mouse.move(start + (x - start) * k / moves, y)
            page.wait_for_timeout(pause)
    page.mouse.up()
