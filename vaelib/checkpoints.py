"""Files of a run: tensors and JSON in one safetensors file, written whole or not at all and read without pickle."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import provenance
from .config import InputError, ModelConfig, replacing
from .models import VAE, build


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
        open(path, "rb").close()  # safetensors calls a file that may not be read a missing one
        with safe_open(str(path), framework="pt") as f:
            state = json.loads((f.metadata() or {}).get("state", "{}"))
            if not isinstance(state, dict):
                raise ValueError("its state is no JSON object")
            return {k: f.get_tensor(k) for k in f.keys()}, state  # noqa: SIM118
    except Exception as e:  # anyone may have written it: whatever is wrong with it, it is the file's fault
        raise InputError(f"checkpoint {path} cannot be read ({_one_line(e)}); train that run again") from e


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


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
    _check_shapes(claimed, tensors, path.parent)
    model = build(config).eval()
    model.load_state_dict(tensors)
    return model


def load_weights(model: VAE, tensors: dict[str, Tensor], where: Path) -> None:
    """Load weights into a model.

    Raises:
        InputError: the checkpoint belongs to a model of another shape.
    """
    _check_shapes(model, tensors, where)
    model.load_state_dict(tensors)


def _check_shapes(model: VAE, tensors: dict[str, Tensor], where: Path) -> None:
    own = model.state_dict()
    # Absent tensors first, then by name: the same two checkpoints always give the same sentence.
    for name in sorted(own.keys() | tensors.keys(), key=lambda n: (n in own and n in tensors, n)):
        have, want = tensors.get(name), own.get(name)
        if have is None or want is None or have.shape != want.shape:
            shapes = [tuple(t.shape) if t is not None else "missing" for t in (have, want)]
            raise InputError(
                f"checkpoint in {where} is of another shape: {name} is {shapes[0]} there and {shapes[1]} in model "
                f"{model.config.name!r} for input {model.config.input_shape}; use the store it was trained on"
            )


def environment() -> dict[str, str]:
    """Command, code, versions and machine of this process, for the run's record; no part of a run's identity."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return provenance.record() | {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": device,
        "threads": str(torch.get_num_threads()),
    }
