"""Tensors and JSON in one file: round trip, damage, another shape, no pickle."""

import pickle

import pytest
import torch
from conftest import model_config

from vaelib.checkpoints import environment, load_weights, read_tensors, write_tensors
from vaelib.config import InputError
from vaelib.models import build


def test_round_trip_of_tensors_and_state(tmp_path):
    tensors = {
        "a": torch.randn(3, 4).to(memory_format=torch.contiguous_format),
        "b": torch.arange(6).view(2, 3).T,  # not contiguous
        "c": torch.tensor(True),
        "d": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    state = {"epoch": 3, "loss": float("inf"), "history": [{"x": 0.1 + 0.2}], "name": "β"}
    write_tensors(tmp_path / "x.safetensors", tensors, state)
    found, again = read_tensors(tmp_path / "x.safetensors")
    assert again == state and found.keys() == tensors.keys()
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in tensors.items())


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "scrambled", "pickle"])
def test_damaged_files_are_a_sentence(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.randn(100)}, {"epoch": 1})
    data = path.read_bytes()
    content = {"empty": b"", "cut": data[:-50], "scrambled": data[:3] + b"\xff" * 40 + data[43:]}
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content.get(damage, pickle.dumps({"a": 1})))
    with pytest.raises(InputError, match=r"x.safetensors cannot be read .* train that run again"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"shape": (32, 16)}, "is .* there and"),
        ({"latent": 9}, "9"),
        ({"name": "basic_vae"}, "missing"),
        ({"name": "vade"}, "mixture"),
    ],
)
def test_a_checkpoint_of_another_shape_is_refused_whole(tmp_path, other, named):
    model = build(model_config("conv_vae"))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(InputError, match=f"of another shape: .*{named}.*conv_vae"):
        load_weights(model, build(model_config(**{"name": "conv_vae"} | other)).state_dict(), tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_environment_names_versions_and_machine():
    found = environment()
    assert found["torch"] == torch.__version__ and {"python", "numpy", "device", "threads", "platform"} <= set(found)
    assert all(isinstance(v, str) and v for v in found.values())
