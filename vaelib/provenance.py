"""Where a result comes from: command, state of the code in Git, versions of the packages, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from .config import ROOT

PACKAGES = (
    "vaelib", "torch", "torchaudio", "lightning-fabric", "safetensors", "numpy", "scipy", "pandas", "scikit-learn",
    "librosa", "soundfile", "xarray", "zarr", "matplotlib", "umap-learn", "papermill", "dask",
)  # fmt: skip
COMMAND = "VAELIB_COMMAND"  # the command that a person gave, told to the processes that it starts


def record() -> dict[str, str]:
    """What every run's folder and every report says about where it comes from."""
    return {
        "command": command(),
        "git": git(),
        "python": platform.python_version(),
        "packages": packages(),
        "platform": platform.platform(),
    }


def command() -> str:
    """The command line that led here; a notebook that a person runs has none."""
    if COMMAND in os.environ:
        return os.environ[COMMAND]
    if Path(sys.argv[0]).name == "ipykernel_launcher.py":
        return "a notebook, run by hand"
    return shlex.join([Path(sys.argv[0]).name or "python", *sys.argv[1:]])


@lru_cache(maxsize=1)
def packages() -> str:
    """Name and version of the packages that decide results; those that are not installed are left out."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue  # a bare GPU host
    return ", ".join(found)


@lru_cache(maxsize=1)
def git() -> str:
    """Commit of the code, and whether files differ from it; or why that is not known."""
    try:
        if Path(_ask("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return "no repository"  # installed below somebody else's
        changes = _ask("status", "--porcelain")
        return _ask("rev-parse", "HEAD") + (f", {len(changes.splitlines())} files changed" if changes else ", clean")
    except FileNotFoundError:
        return "unknown: git is not installed"
    except subprocess.CalledProcessError as e:
        said = (e.stderr.strip().splitlines() or ["git failed"])[0]
        return "no repository" if "not a git repository" in said else f"unknown: {said}"
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"unknown: {e}"


def _ask(*words: str) -> str:
    # no lock: several processes may ask at once, and an answer must not change the repository
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {"GIT_OPTIONAL_LOCKS": "0"}
    given = ["git", "-C", str(ROOT), *words]
    done = subprocess.run(given, capture_output=True, text=True, errors="replace", timeout=60, check=True,
                          env=environment)  # fmt: skip
    return done.stdout.strip()
