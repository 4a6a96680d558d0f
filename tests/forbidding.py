"""What happens where something may not be read or written; run by `test_permissions.py`, without the rights of root.

Prints one JSON object: name of the case → [what was raised or "", what was said or found].
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from conftest import TINY
from test_training import settings
from vaelib.planfile import read_plan

from vaelib.collection import read_corpus
from vaelib.config import write_atomic
from vaelib.runs import load_run
from vaelib.store import build_store, open_store
from vaelib.training import train


def tried(work: Callable[[], object]) -> list[str]:
    """Name and message of the exception, or "" and what came back."""
    try:
        return ["", str(work())]
    except Exception as e:
        return [type(e).__name__, str(e)]


def main(root: Path) -> None:
    """All cases; `root` has been filled by the test."""
    found, music = {}, root / "music"
    os.environ["VAELIB_DATA"], os.environ["VAELIB_OUTPUTS"] = str(root / "data"), str(root / "outputs")

    def forbidden(name: str, path: Path, work: Callable[[], object], mode: int = 0) -> None:
        before = path.stat().st_mode
        path.chmod(mode)
        found[name] = tried(work)
        path.chmod(before)

    forbidden("folder", music, lambda: read_corpus(music))
    forbidden("manifest", music / "manifest.csv", lambda: read_corpus(music))
    forbidden("folder in a tree", root / "tree" / "b", lambda: read_corpus(root / "tree").table["path"].tolist())
    listed = "folder in a tree that can only be listed"
    forbidden(listed, root / "tree" / "b", lambda: read_corpus(root / "tree").table["path"].tolist(), 0o444)
    song = next(music.rglob("00.flac"))
    forbidden("song", song, lambda: build_store(music, TINY))
    table = pd.read_csv(next((root / "data" / "stores").glob("*.rejected.csv")))
    found["rejected"] = ["", table.to_csv(index=False)]
    store = open_store(build_store(music, TINY))
    config = settings(store, "conv_vae", epochs=1)
    (root / "outputs").mkdir()
    forbidden("outputs", root / "outputs", lambda: train(config, store, show=False), 0o555)
    folder = train(config, store, show=False)
    for name in ("config.json", "done.json", "best.safetensors"):
        forbidden(name, folder / name, lambda: load_run(folder))
    (root / "plan.yaml").write_text("runs:\n  - model: conv_vae\n")
    forbidden("plan", root / "plan.yaml", lambda: read_plan(root / "plan.yaml"))
    os.environ["VAELIB_DATA"] = str(root / "sealed")
    (root / "sealed").mkdir()
    forbidden("data", root / "sealed", lambda: build_store(music, TINY), 0o555)
    forbidden("report", root / "sealed", lambda: write_atomic(root / "sealed" / "x.html", "x"), 0o555)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
