"""Files of a run: tensors and JSON in one safetensors file, written whole or not at all and read without pickle."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import ROOT, InputError, ModelConfig, write_atomic
from .models import VAE, build

# Packages that decide results
PACKAGES = ("lightning-fabric", "librosa", "numpy", "scikit-learn", "soundfile", "torch", "umap-learn", "zarr")


def write_tensors(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and a JSON state as one safetensors file, whole or not at all."""
    from safetensors.torch import save

    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    write_atomic(path, save(plain, {"state": json.dumps(state)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote; InputError if the file is missing or damaged."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as f:
            return {k: f.get_tensor(k) for k in f.keys()}, json.loads(f.metadata()["state"])  # noqa: SIM118
    except Exception as e:  # whatever is wrong with it, it is the file's fault
        raise InputError(f"checkpoint {path} cannot be read ({e}); train that run again") from e


def read_model(config: ModelConfig, path: Path) -> VAE:
    """The model with the weights of a checkpoint, in evaluation mode; InputError if the file is not of that model."""
    with torch.device("meta"):  # no weights are drawn that are then replaced
        model = build(config).eval()
    load_weights(model, read_tensors(path)[0], path, assign=True)
    return model


def load_weights(model: VAE, tensors: dict[str, Tensor], path: Path, assign: bool = False) -> None:
    """Copy (or assign) weights to a model; InputError if they are of a model of another shape."""
    try:
        model.load_state_dict(tensors, assign=assign)
    except RuntimeError as e:
        reason = " ".join(str(e).split())[:300]
        raise InputError(f"checkpoint {path} is of another shape than its config says ({reason})") from e


def environment() -> dict[str, str]:
    """Command, commit, versions and machine of this process, for the run's record; no part of a run's identity."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = "no repository"
    return {
        # the command that a person gave, which started the kernel of this notebook
        "command": os.environ.get("VAELIB_COMMAND") or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git": commit,
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": str(torch.get_num_threads()),
    }
