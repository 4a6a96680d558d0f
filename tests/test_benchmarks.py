"""The benchmark program: turns, ratios, limits, and the whole program at tiny sizes."""

import json
import sys

import pytest
import torch
from conftest import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import limits, program, report, training
from benchmarks.turns import Candidate, alternate, figures, ratio
from tools import wheelhouse
from vaelib.config import COMPACT


def test_candidates_take_turns_and_keep_every_sample():
    turns = []
    found = alternate([Candidate(n, lambda k, n=n: turns.append((n, k)) or 10 * k, 3) for n in "ab"], rounds=2)
    assert turns == [("a", 3), ("b", 3)] * 2 and {len(v) for v in found.values()} == {2}


def test_a_ratio_is_of_the_medians_and_its_range_of_the_rounds():
    assert figures([3.0, 1.0, 2.0]) == {"clips_per_s": 2.0, "lowest": 1.0, "highest": 3.0, "samples": [3.0, 1.0, 2.0]}
    assert ratio([4.0, 9.0, 6.0], [2.0, 3.0, 4.0]) == {"ratio": 2.0, "lowest": 1.5, "highest": 3.0}


def test_arithmetic_is_counted_and_bounds_the_speed():
    layer, x = torch.nn.Linear(100, 10), torch.rand(7, 100)
    assert limits.flops(lambda: layer(x).sum()) == 2 * (2 * 7 * 100 * 10)  # forward, and the weights' gradient
    conv = training.arithmetic(training.VARIANTS["conv_vae"], COMPACT.shape, low_precision=False)
    assert conv["parameters"] == 2_955_202 and 3.0e8 < conv["flop_per_clip"] < 3.4e8
    assert limits.roofline(1e9, 1e3, 1e6, 10, matrix=1e12, memory=1e12) == {"limit": 1000.0, "bound": "arithmetic"}
    assert limits.roofline(1.0, 1e8, 1e9, 10, matrix=1e12, memory=1e10) == {"limit": 50.0, "bound": "memory"}


def test_the_program_measures_and_writes(outputs, capsys):
    given = "--parts training --profiles compact --models conv_vae,vade-joint --rounds 1 --seconds 0.01 --resident 8"
    assert program.main([*given.split(), "--batch-size", "4", "--device", "cpu"]) == 0
    rows = json.loads((outputs / "bench" / "training-on-cpu.json").read_text())["figures"]["rows"]
    assert {"conv_vae", "vade-joint", "plain"} <= {r["name"] for r in rows}
    assert all(r["clips_per_s"] > 0 for r in rows)
    assert "| Conv, plain loop | compact | 4 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "trainin"], "did you mean 'training'"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--sizes", "500, many"], "--sizes must be whole numbers"),
    ],
)
def test_bad_input_is_a_sentence(arguments, message, capsys):
    assert program.main(arguments) == 2 and message in capsys.readouterr().err


def test_what_surrounds_a_batch_is_measured_and_what_lacks_is_left_out(outputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAELIB_PAPERMILL", str(tmp_path))
    monkeypatch.setattr(program, "PAGE", tmp_path / "page.md")
    assert program.main(["--parts", "batch"]) == 0 and "batch was left out: no notebook" in capsys.readouterr().out
    (tmp_path / "summary.csv").write_text("run,state,seconds,around\n02,done,90,9\n03,failed,5,5\n04,done,10,1\n")
    program.PAGE.write_text("before\n<!-- batch -->\nold\n<!-- / -->\nafter\n")
    assert program.main(["--parts", "batch", "--write"]) == 0
    page = program.PAGE.read_text()
    assert "| all | 100 | 10.0 | 10% |" in page and "old" not in page and page.endswith("<!-- / -->\nafter\n")


def test_the_page_has_a_place_for_every_part():
    page = program.PAGE.read_text()
    names = {*program.PARTS} - {"training"} | {"training on cpu", "training on cuda"}
    assert {name for name in names if report.replaced(page, name, "new") == page} == set()


def test_a_wheelhouse_has_what_a_host_with_torch_lacks():
    names = wheelhouse.needed("3.12", "x86_64", (*wheelhouse.HOST, "numba", "llvmlite"))
    assert {"ipykernel", "papermill", "librosa", "zarr", "distributed", "tinysoundfont", "setuptools"} <= {*names}
    assert not {"torch", "numpy", "numba", "llvmlite", "jupyterlab", "playwright", "triton"} & {*names}


@pytest.mark.parametrize(
    ("python", "machine", "message"),
    [("3.13", "x86_64", "for Python 3.13: vaelib needs"), ("3.12", "sparc", "on Linux sparc: there is no wheel of")],
)
def test_a_wheelhouse_that_cannot_be_is_a_sentence(python, machine, message, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert message in wheelhouse.collect(python, machine, wheelhouse.HOST, tmp_path / "wheelhouse")
