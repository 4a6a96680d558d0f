"""Files of a run: tensors and JSON in one safetensors file, written whole or not at all and read without pickle."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
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
            claimed = build(config)
    except InputError:
        raise
    except Exception as e:
        raise InputError(f"no model has the sizes that the config beside {path} gives ({_one_line(e)})") from e
    _check_shapes(claimed, tensors, path)
    model = build(config).eval()
    model.load_state_dict(tensors)
    return model


def load_weights(model: VAE, tensors: dict[str, Tensor], path: Path) -> None:
    """Load the weights `model.…` of a training's last state; InputError if they are of a model of another shape."""
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    _check_shapes(model, weights, path)
    model.load_state_dict(weights)


def _check_shapes(model: VAE, tensors: dict[str, Tensor], path: Path) -> None:
    own = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    there = {k: tuple(v.shape) for k, v in tensors.items()}
    for name in sorted(own.keys() | there.keys()):
        if own.get(name) != there.get(name):
            raise InputError(
                f"checkpoint {path} is of another shape: {name} is {there.get(name, 'missing')} there and "
                f"{own.get(name, 'missing')} in model {model.config.name!r} for input {model.config.input_shape}; "
                "use the store it was trained on"
            )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def environment() -> dict[str, str]:
    """Command, commit, versions and machine of this process, for the run's record; no part of a run's identity."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue  # a bare GPU host
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
        "packages": ", ".join(found),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "device": device,
        "threads": str(torch.get_num_threads()),
    }
