"""Files of a run: tensors and JSON in one safetensors file, written whole or not at all and read without pickle."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .config import InputError, replacing
from .models import VAE


def write_tensors(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and a JSON state as one safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with replacing(path) as temporary:  # straight from the tensors: as bytes they would be in memory two more times
        save_file(plain, temporary, {"state": json.dumps(state)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote; no code is run (no pickle).

    Raises:
        InputError: missing or damaged file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as f:
            state = json.loads((f.metadata() or {}).get("state", "{}"))
            return {k: f.get_tensor(k) for k in f.keys()}, state  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as e:
        raise InputError(f"checkpoint {path} cannot be read ({e}); train that run again") from e


def load_weights(model: VAE, tensors: dict[str, Tensor], where: Path) -> None:
    """Load weights into a model.

    Raises:
        InputError: the checkpoint belongs to a model of another shape.
    """
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
    model.load_state_dict(tensors)


def environment() -> dict[str, str]:
    """Versions and machine of this process, for the run's record."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": device,
        "threads": str(torch.get_num_threads()),
        "platform": platform.platform(),
    }
