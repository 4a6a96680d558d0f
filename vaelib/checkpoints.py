"""Files of a run: tensors and JSON in one safetensors file, written whole or not at all and read without pickle."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import ROOT, InputError, ModelConfig, replacing
from .models import VAE, build

# Packages that decide results
PACKAGES = (
    "vaelib",
    "torch",
    "lightning-fabric",
    "numpy",
    "scikit-learn",
    "librosa",
    "soundfile",
    "zarr",
    "umap-learn",
)


def write_tensors(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and a JSON state as one safetensors file, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with replacing(path) as temporary:  # straight from the tensors: as bytes they would be in memory two more times
        try:
            save_file(plain, temporary, {"state": json.dumps(state)})
        except SafetensorError as e:  # a full disk, mostly: its kind stands in the words alone
            number = re.search(r"os error (\d+)", str(e))
            raise (OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(e))) from e


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote; no code is run (no pickle).

    Raises:
        InputError: missing or damaged file.
    """
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework="pt") as f:
            state = json.loads((f.metadata() or {}).get("state", "{}"))
            return {k: f.get_tensor(k) for k in f.keys()}, dict(state)  # noqa: SIM118
    except Exception as e:  # anyone may have written it: whatever is wrong with it, it is the file's fault
        raise InputError(f"checkpoint {path} cannot be read ({_one_line(e)}); train that run again") from e


def read_model(config: ModelConfig, path: Path) -> VAE:
    """The model that `config` describes with the weights of a checkpoint, in evaluation mode.

    Raises:
        InputError: missing or damaged file, sizes that cannot be, or a checkpoint of another model.
    """
    tensors, _ = read_tensors(path)
    try:
        with torch.device("meta"):  # takes no memory: a config may claim any size, the checkpoint has what it has
            model = build(config).eval()
    except (RuntimeError, TypeError) as e:
        raise InputError(f"no model has the sizes that the config beside {path} gives ({_one_line(e)})") from e
    load_weights(model, tensors, path, assign=True)
    return model


def load_weights(model: VAE, tensors: dict[str, Tensor], path: Path, assign: bool = False) -> None:
    """Copy (or assign) weights to a model; InputError if they are of a model of another shape."""
    try:
        model.load_state_dict(tensors, assign=assign)
    except RuntimeError as e:
        raise InputError(
            f"checkpoint {path} is of another shape than model {model.config.name!r} for input "
            f"{model.config.input_shape} ({_one_line(e)}); use the store it was trained on"
        ) from e


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def environment() -> dict[str, str]:
    """Command, commit, versions and machine of this process, for the run's record; no part of a run's identity."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = "no repository"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        # the command that a person gave, which started the kernel of this notebook
        "command": os.environ.get("VAELIB_COMMAND") or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git": commit,
        "python": platform.python_version(),
        "packages": ", ".join(sorted(f"{d.name} {d.version}" for d in distributions() if d.name in PACKAGES)),
        "platform": platform.platform(),
        "device": device,
        "threads": str(torch.get_num_threads()),
    }
