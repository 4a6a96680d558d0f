"""JupyterLab (`make lab`) in this repository: explorers are prompt, its HTML export is that of `vaelib report`, and
running is no change.

Linked into .venv/etc/jupyter by `make setup`; else `jupyter lab --config jupyter_server_config.py`.
"""

import asyncio
import subprocess
from pathlib import Path

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

c = get_config()  # noqa: F821  Jupyter's loader defines both
load_subconfig("jupyter_nbconvert_config.py", str(Path(__file__).resolve().parent))  # noqa: F821


def forget_outputs(model: dict, os_path: str, **_: object) -> subprocess.Popen | None:
    """Let `git status` see that a saved notebook differs from the committed one in nothing but its outputs.

    Git takes a file of another size for changed without asking nbstripout. `git add` makes it ask, and stages nothing
    here: it is reached only when the stripped content is what is staged already. Saving does not wait for it.
    """
    if model["type"] != "notebook":
        return None
    look = 'git diff --quiet --no-ext-diff -- "$1" && git add --update -- "$1"'
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(["sh", "-c", look, "sh", os_path], cwd=Path(os_path).parent, **quiet)


c.FileContentsManager.post_save_hook = forget_outputs


class PromptConnection(ZMQChannelsWebsocketConnection):
    """A kernel's messages leave at once.

    A moved slider is answered by several small messages, the picture among them. By default the socket holds each back
    until the browser has acknowledged the one before (Nagle's algorithm), which browsers put off for up to 40 ms.
    """

    def connect(self) -> asyncio.Future | None:
        self.websocket_handler.set_nodelay(True)
        return super().connect()


c.ServerApp.kernel_websocket_connection_class = PromptConnection
