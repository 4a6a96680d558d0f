"""The benchmark program: who takes turns, what is counted, what is written, what a bare host leaves out."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY
from torch import nn

import vaelib.bench.race as race_module
from vaelib import windows
from vaelib.bench import limits, memory, picture, preprocessing, program, quality, report, rivals, training
from vaelib.bench.race import Contestant, figures, race, ratio
from vaelib.config import FULL, ROOT, InputError

CPU = torch.device("cpu")
RATES = {"matrix_fp32": 1e11, "matrix_bf16": 2e11, "memory": 1e10}
TORCH_AND_ITS_NEEDS = ("torch", "torchgen", "functorch", "numpy", "triton", "sympy", "mpmath", "networkx", "jinja2",
                       "markupsafe", "filelock", "fsspec", "typing_extensions.py")  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """The hardware is asked with small questions."""
    monkeypatch.setattr(limits, "MATRIX", {"cpu": 64})
    monkeypatch.setattr(limits, "COPIED", {"cpu": 1 << 16})
    monkeypatch.setattr(limits, "SECONDS", 0.01)


# --- turns and figures ---


@pytest.fixture
def clock(monkeypatch):
    """A clock that only contestants move."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(race_module, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


def worker(name, rate, clock, log, clips_per_step=4):
    def run(steps):
        log.append((name, steps))
        clock.seconds += steps * clips_per_step / rate
        return steps * clips_per_step

    return Contestant(name, run)


def test_contestants_take_turns_and_their_own_time_counts(clock):
    log, told = [], []
    samples = race([worker(n, r, clock, log) for n, r in (("a", 8), ("b", 2), ("c", 1))], 3, told.append)
    assert [name for name, _ in log] == list("abc" * 3)
    assert samples == {"a": [8.0] * 3, "b": [2.0] * 3, "c": [1.0] * 3}
    assert told[0] == "round 1/3: a" and told[-1] == "round 3/3: c"


@pytest.mark.parametrize(("rate", "steps"), [(4000, 3000), (4, 3), (0.1, 1)])
def test_a_turn_has_the_length_that_was_asked_for_and_at_least_one_step(clock, rate, steps):
    log = []
    contestant = worker("a", rate, clock, log)
    contestant.calibrate(3.0)
    assert contestant.amount == steps and log[0] == ("a", 1)


def test_figures_and_ratios():
    assert figures([3.0, 1.0, 2.0]) == {"clips_per_s": 2.0, "lowest": 1.0, "highest": 3.0, "samples": [3.0, 1.0, 2.0]}
    assert ratio([2.0, 4.0, 6.0], [1.0, 4.0, 2.0]) == {"ratio": 2.0, "lowest": 1.0, "highest": 3.0}


# --- limits ---


def test_arithmetic_is_that_of_a_count_by_hand():
    n = 2
    convolution, dense = nn.Conv2d(1, 3, 4, stride=2, padding=1), nn.Linear(48, 5)
    back = nn.ConvTranspose2d(3, 1, 4, stride=2, padding=1)
    x = torch.rand(n, 1, 8, 8)

    def loss():
        h = convolution(x)
        return dense(h.flatten(1)).sum() + back(h).sum()

    per_output = 2 * 16 * 3 * 4 * 4  # a multiplication and an addition for each tap, channel and place
    # forward and the weights' gradient everywhere; the input's gradient not for x, which needs none
    assert limits.flops(loss) == n * (2 * per_output + 3 * 2 * 48 * 5 + 3 * per_output)


def test_arithmetic_of_the_conv_vae_is_that_of_its_layers():
    found = training.arithmetic(training.VARIANTS["conv_vae"], (64, 64), low_precision=False)
    sizes, channels = (64, 32, 16, 8, 4), (1, 32, 64, 128, 256)
    layers = [2 * 16 * a * b * sizes[i + 1] ** 2 for i, (a, b) in enumerate(pairwise(channels))]
    dense = 2 * 3 * 4096 * 128  # two heads and the decoder's first layer
    assert found["flop_per_clip"] == 3 * (2 * sum(layers) + dense) - layers[0]
    assert found["parameters"] == pytest.approx(2.96e6, rel=0.01)
    assert found["bytes_per_step"] == found["parameters"] * 44
    low = training.arithmetic(training.VARIANTS["conv_vae"], (64, 64), low_precision=True)
    assert low["bytes_per_step"] == found["parameters"] * 40


def test_the_limit_is_the_slower_of_arithmetic_and_weights():
    assert limits.roofline(1e6, 1e6, 100, matrix=1e9, memory=1e9) == {"limit": 1000, "bound": "arithmetic"}
    assert limits.roofline(1e6, 1e9, 100, matrix=1e9, memory=1e9) == {"limit": 100, "bound": "weights"}


def test_rates_are_positive(small):
    rates = program.measure_rates(CPU)
    assert set(rates) == set(RATES) and all(rate > 0 for rate in rates.values())


# --- training ---


def measured(names, **settings):
    given = {"device": CPU, "rates": RATES, "batch_size": 4, "rounds": 2, "seconds": 1e-3, "resident": 8}
    return training.measure(TINY, names, **given | settings)


def test_every_training_is_timed_with_the_step_of_training(monkeypatch):
    seen = {}

    class Spy(training.Stepper):
        def __call__(self, x, y, weights, rate):
            seen.setdefault((self.model.config.name, len(self.model.config.classes), weights["mixture"]), (x, y))
            assert self.module.training
            return super().__call__(x, y, weights, rate)

    monkeypatch.setattr(training, "Stepper", Spy)
    monkeypatch.setattr(rivals, "available", lambda *_: ({}, ["no rivals"]))
    rows, skipped = measured(list(training.VARIANTS))
    assert [r["name"] for r in rows] == list(training.VARIANTS) and skipped == ["no rivals"]
    for row in rows:
        assert len(row["samples"]) == 2 and min(row["samples"]) > 0
        assert row["limit"] > 0 and row["flop_per_clip"] > 0
        assert row["share"] == pytest.approx(row["clips_per_s"] / row["limit"])
    assert set(seen) == {(v.model, v.classes, float(v.mixture)) for v in training.VARIANTS.values()}
    for (_, classes, mixture), (x, y) in seen.items():
        assert x.shape == (8 if mixture else 4, 1, 16, 16) and x.dtype == torch.float32 and 0 <= x.min() <= x.max() <= 1
        assert (y.min() >= 0 and y.max() < classes) if classes else (y == -1).all()


def test_conv_and_its_rivals_take_turns_at_the_same_batch(monkeypatch):
    told = []
    rows, skipped = measured(["conv_vae"], show=told.append)
    names = ["conv_vae", *(r["name"] for r in rows if "rival_of" in r)]
    assert "plain" in names and ("pythae" in names or "pythae" in skipped[0])
    turns = [line.split(": ")[1] for line in told if ", round" in line]
    assert turns == names * 2
    for row in rows[1:]:
        assert row["batch_size"] == 4 and row["conv_over_it"] == ratio(rows[0]["samples"], row["samples"])


def test_pythae_trains_the_same_network_with_its_own_trainer():
    trainers = pytest.importorskip("pythae.trainers")
    clips = training.random_clips(TINY, 8, CPU)
    runs = []
    original = trainers.BaseTrainer.train_step

    class Spied(trainers.BaseTrainer):
        def train_step(self, epoch):
            before = [p.detach().clone() for p in self.model.parameters()]
            loss = original(self, epoch)
            moved = sum(not torch.equal(a, b) for a, b in zip(before, self.model.parameters(), strict=True))
            runs.append((len(self.train_loader), self.train_loader.batch_size, self.optimizer, moved, loss))
            return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainers, "BaseTrainer", Spied)
        contestant = rivals.by_pythae(clips, 4, CPU)
        assert contestant.run(3) == 12 and contestant.run(1) == 4
    steps, batch, optimizer, moved, _ = runs[0]
    assert (steps, batch) == (3, 4) and runs[1][0] == 1 and type(optimizer) is torch.optim.Adam
    ours = training.make_model(training.VARIANTS["conv_vae"], TINY.shape)
    theirs = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert theirs == ours.parameter_count() - 1 and moved > 10  # ours learns σ too


def test_rivals_run_with_the_defaults_of_pytorch():
    torch.set_float32_matmul_precision("high")
    try:
        with rivals.pytorch_as_it_comes():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_what_does_not_fit_together_runs_one_after_the_other():
    makers, opponents = dict.fromkeys(["basic_vae", "conv_vae", "beta_vae"]), dict.fromkeys(["pythae", "plain"])
    assert training._groups(makers, opponents, True) == [[*makers, *opponents]]
    one_by_one = [["conv_vae", "pythae", "plain"], ["basic_vae"], ["beta_vae"]]
    assert training._groups(makers, opponents, False) == one_by_one
    assert training._groups({"basic_vae": None}, {}, False) == [["basic_vae"]]


def test_models_that_run_alone_are_timed_too(monkeypatch):
    monkeypatch.setattr(training, "_free_bytes", lambda: 0)
    told = []
    rows, _ = measured(["basic_vae", "conv_vae"], show=told.append)
    turns = [line.split(": ")[1] for line in told if ", round" in line]
    assert turns[-2:] == ["basic_vae"] * 2 and {"basic_vae", "conv_vae"} <= {r["name"] for r in rows}


def test_clips_are_16_bit_and_longer_than_a_compact_window_only():
    compact, full = training.random_clips(TINY, 2, CPU), training.random_clips(FULL, 1, CPU)
    assert compact.mel.dtype == torch.float16 and compact.mel.shape[2] > TINY.frames
    assert full.mel.shape[1:] == FULL.shape


# --- preprocessing ---


def test_preprocessing_is_timed_on_the_whole_corpus_and_leaves_nothing(corpus, data, monkeypatch):
    told = []
    part = preprocessing.measure(TINY, corpus, rounds=2, show=told.append)
    assert part["clips"] == 36 and part["profile"] == "tiny"
    for name in preprocessing.TITLES:
        assert len(part[name]["samples"]) == 2 and min(part[name]["samples"]) > 0
    assert part["over_librosa"] == ratio(part["ours"]["samples"], part["librosa"]["samples"])
    assert part["over_decode"] == ratio(part["ours"]["samples"], part["decode"]["samples"])
    assert [line.split(": ")[1] for line in told if "round" in line] == ["ours", "librosa", "decode"] * 2
    assert not data.exists()


def test_an_empty_corpus_is_refused(tmp_path):
    with pytest.raises(InputError, match="no audio in"):
        preprocessing.measure(TINY, tmp_path, rounds=1)


# --- memory ---


@pytest.mark.slow
def test_the_peaks_of_fresh_processes_are_measured_and_told(outputs, capsys, tmp_path):
    arguments = ["--parts", "memory", "--memory-clips", "5,10", "--pool", "4", "--picture"]
    assert program.main([*arguments, str(tmp_path / "own.png")]) == 0
    found = json.loads((outputs / "bench" / "bench.json").read_text())["memory"]
    assert [row["clips"] for row in found["preprocessing"]] == [5, 10] and found["pool_bytes"] == 4 * 64 * 512 * 2
    assert [(row["pools"], row["clips"]) for row in found["training"]] == [(1, 4), (10, 40)]
    for row in found["preprocessing"]:  # torch alone has more than 100 MB; the tests' own process has other figures
        assert 1e8 < row["imports"] < row["threads"] < 5e9 and row["imports"] < row["driver"] < 5e9
        assert 1e8 < row["worker"] < 5e9
    assert all(1e8 < row["imports"] < row["peak"] < 5e9 for row in found["training"])
    assert not list(outputs.rglob("config.json"))  # the trainings left nothing
    told = capsys.readouterr().out
    assert "| 5 | " in told and "- Memory of preprocessing 2 times as many clips: driver with threads" in told
    assert "- Memory of training from 10 pools over that from 1: " in told


def test_no_more_than_a_pool_is_read_at_a_time_and_all_is_read(outputs, tmp_path, monkeypatch):
    seen, real = [], windows.Clips.read.__func__

    def read(cls, store, scaler, rows, device="cpu"):
        seen.append(list(rows))
        return real(cls, store, scaler, rows, device)

    monkeypatch.setattr(windows.Clips, "read", classmethod(read))
    monkeypatch.setattr(memory, "CHUNK", 2)
    path = memory._store(tmp_path / "noise.zarr", TINY, 40)
    assert memory._train(path, 4).keys() == {"imports", "peak"}
    first, validation, *streamed = seen
    assert first == list(range(4)) and validation == list(range(40, 45))
    assert max(map(len, streamed)) == 4 and sorted(row for rows in streamed for row in rows) == list(range(40))


def test_clips_to_preprocess_are_short_and_nearly_all_the_same_files(tmp_path):
    corpora = [memory._corpus(tmp_path, n, TINY) for n in (5, 31)]
    files = [list(corpus.iterdir()) for corpus in corpora]
    assert [len(f) for f in files] == [5, 31] and len({f.stat().st_ino for f in files[1]}) == memory.FILES
    assert {f.stat().st_ino for f in files[0]} < {f.stat().st_ino for f in files[1]}


def test_a_process_that_dies_is_a_sentence():
    with pytest.raises(InputError, match="whose memory was measured died"):
        memory._apart(os._exit, 1)


def test_growth_is_told_as_a_share():
    row = {"imports": 4e8, "threads": 5e8, "driver": 5e8, "worker": 5e8}
    rows = [row | {"clips": 500}, row | {"clips": 8000, "threads": 6e8, "driver": 5.05e8}]
    trained = [{"pools": n, "clips": 1024 * n, "imports": 4e8, "peak": p} for n, p in ((1, 6e8), (10, 7e8))]
    found = {"preprocessing": rows, "training": trained, "workers": 2, "pool": 1024, "pool_bytes": 67_108_864}
    text = report.memory_tables(found | {"profile": "compact"})
    assert (
        "16 times as many clips: driver with threads +20.0%, driver with processes +1.0%, each process +0.0%." in text
    )
    assert "from 10 pools over that from 1: +100 MB, where a pool has 67 MB." in text
    assert "| 8,000 | 600 MB | 505 MB | 500 MB | 400 MB |" in text and "| 10,240 | 10 | 700 MB | 400 MB |" in text


# --- precision ---


def runs(fp32, bf16):
    return [
        {"precision": p, "seed": i, "validation_nll": v, "validation_mse": v / 100}
        for p, values in zip(quality.PRECISIONS, (fp32, bf16), strict=True)
        for i, v in enumerate(values)
    ]


def test_precisions_are_equal_if_their_means_are_no_further_apart_than_seeds():
    near = quality.summary(runs([1.0, 2.0, 3.0], [1.5, 2.5, 3.5]))["validation_nll"]
    assert near["mean"] == {"32-true": 2.0, "bf16-mixed": 2.5} and near["sd"]["32-true"] == 1.0
    assert near["difference"] == 0.5 and near["within_seed_noise"]
    assert not quality.summary(runs([1.0, 2.0, 3.0], [3.5, 4.5, 5.5]))["validation_nll"]["within_seed_noise"]


def test_both_precisions_are_trained_on_the_same_seeds(corpus, outputs):
    found = quality.compare(corpus, TINY, seeds=(0, 1), epochs=1)
    assert [(r["seed"], r["precision"]) for r in found["runs"]] == [(s, p) for s in (0, 1) for p in quality.PRECISIONS]
    first = {r["precision"]: r["validation_nll"] for r in found["runs"] if r["seed"] == 0}
    assert first["32-true"] != first["bf16-mixed"]  # they were two trainings indeed
    text = report.precision_markdown(found)
    assert "2 seeds" in text and text.count("seed noise") == 2 and not outputs.exists()


# --- what is told and written ---


def result(device="cpu", pythae=2.0, librosa=3.0, decode=0.4, share=0.45):
    """As the program writes it."""
    timed = {"lowest": 90.0, "highest": 110.0, "clips_per_s": 100.0, "samples": [90.0, 100.0, 110.0]}
    rows = []
    for profile in ("compact", "full"):
        for name, variant in training.VARIANTS.items():
            rows.append({"profile": profile, "name": name, "title": variant.title, "batch_size": 64, "share": share,
                         "windows": variant.windows, "precision": "32-true", "flop_per_clip": 3e8,
                         "limit": 100 / share, "bound": "arithmetic"} | timed)  # fmt: skip
        for name, (title, precision) in rivals.TITLES.items():
            over = {"ratio": pythae, "lowest": pythae - 0.1, "highest": pythae + 0.1}
            rows.append({"profile": profile, "name": name, "title": title, "batch_size": 64, "precision": precision,
                         "rival_of": "conv_vae", "conv_over_it": over} | timed)  # fmt: skip
    parts = [
        {"profile": p, "corpus": "demo", "clips": 360, "cores": 2, "seconds": s,
         **{n: {"title": t} | timed for n, t in preprocessing.TITLES.items()},
         "over_librosa": {"ratio": librosa, "lowest": librosa, "highest": librosa},
         "over_decode": {"ratio": decode, "lowest": decode, "highest": decode}}
        for p, s in preprocessing.SECONDS.items()
    ]  # fmt: skip
    found = {"machine": program.machine(), "command": "python -m vaelib.bench", "device": device, "rates": RATES,
             "training": rows, "preprocessing": parts, "memory": {}, "skipped": []}  # fmt: skip
    return found | {"goals": report.goals(found)}


def test_every_goal_of_a_cpu_is_a_sentence():
    goals = {g["goal"]: g for g in result()["goals"]}
    words = ("pythae", "compact front end, 2 cores, against a librosa", "decoding")
    pythae, librosa, decode = [next(g for name, g in goals.items() if word in name) for word in words]
    assert len(goals) == 5 and all(g["sentence"].startswith(name) for name, g in goals.items())
    assert pythae["reached"] and pythae["sentence"].endswith(
        "2.00 (1.90 to 2.10) where at least 1.7 is the goal; reached."
    )
    assert librosa["reached"] and librosa["aim"] == 2.2
    assert decode["reached"] is False and decode["sentence"].endswith("at least 0.5 is the goal; not reached.")


def test_goals_of_cuda_are_those_of_the_full_size():
    goals = result("cuda")["goals"]
    assert [(g["aim"], g["reached"]) for g in goals[:2]] == [(5.0, False), (0.4, True)]
    assert all("full" in g["goal"] for g in goals[:2])
    assert result("cuda", share=0.2)["goals"][1]["reached"] is False


def test_a_goal_without_a_figure_is_not_measured():
    found = result() | {"training": [], "preprocessing": []}
    for goal in report.goals(found):
        assert goal["reached"] is None and goal["sentence"].endswith("not measured in this run.")


def test_tables_put_rivals_below_conv():
    found = result()
    titles = [line.split(" | ")[0].strip("| ") for line in report.training_table(found["training"]).splitlines()[2:]]
    assert titles[1:5] == ["Conv", "Conv, trained by pythae", "Conv, plain loop", "Beta"] and titles[9] == "Basic"
    text = report.markdown(found | {"skipped": ["Nothing."]})
    assert "| 100 / 200 GFLOP/s |" in text and "| 10.0 GB/s |" in text and "- Nothing." in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "0.0123"), (4.0, "4.00"), (13.44, "13.4"), (99.97, "100"), (12345.6, "12,346")]
)
def test_numbers_are_short(value, text):
    assert report.number(value) == text


@pytest.mark.parametrize("keep", ["training", "preprocessing", "both"])
def test_nothing_in_the_picture_is_cut_off(keep):
    found = result()
    emptied = {"training": {"preprocessing": []}, "preprocessing": {"training": []}, "both": {}}[keep]
    figure = picture.draw(found | emptied)
    assert len(figure.axes) == (2 if keep == "both" else 1)
    figure.draw_without_rendering()
    needed, there = figure.get_tightbbox(), figure.bbox_inches
    assert min(needed.x0, needed.y0) >= 0 and needed.x1 <= there.x1 and needed.y1 <= there.y1
    texts = {t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text"))}
    if keep != "preprocessing":
        assert {v.title for v in training.VARIANTS.values()} <= texts and "hardware limit" in texts
    if keep != "training":
        assert set(preprocessing.TITLES.values()) <= texts


def test_the_program_writes_json_and_picture(small, outputs, capsys, tmp_path):
    settings = "--device cpu --parts training --profiles compact --models conv_vae --rounds 2 --seconds 0.001"
    arguments = [*settings.split(), "--batch-size", "2", "--resident", "2", "--picture", str(tmp_path / "own.png")]
    assert program.main(arguments) == 0
    told = capsys.readouterr().out
    found = json.loads((outputs / "bench" / "bench.json").read_text())
    assert found["command"] == "python -m vaelib.bench " + " ".join(arguments)
    assert {"date", "processor", "cores", "gpu", "load", "torch", "threads"} <= set(found["machine"])
    conv = found["training"][0]
    assert conv["name"] == "conv_vae" and len(conv["samples"]) == 2 and conv["limit"] > 0
    assert all(g["sentence"] in told for g in found["goals"]) and str(tmp_path / "own.png") in told
    assert (tmp_path / "own.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--models convvae", "did you mean 'conv_vae'"),
        ("--rounds 0", "--rounds must be at least 1"),
        ("--clips 1", "--clips must be at least 2"),
        ("--memory-clips 3", "--memory-clips must be at least 4, not 3"),
        ("--memory-clips 9,many", "--memory-clips must be numbers with commas, not '9,many'"),
        ("--pool 0", "--pool must be at least 4"),
        ("--parts trainings", "did you mean 'training'"),
        ("--precision bf16", "unknown precision"),
        ("--device gpu", "unknown device"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, capsys):
    assert program.main(arguments.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(capsys):
    assert program.main(["--device", "cuda"]) == 2
    assert "torch finds no GPU" in capsys.readouterr().err


def test_a_bare_host_trains_and_says_what_it_leaves_out(outputs, tmp_path):
    installed, bare = Path(torch.__file__).parents[1], tmp_path / "packages"
    bare.mkdir()
    for name in TORCH_AND_ITS_NEEDS:
        (bare / name).symlink_to(installed / name)
    script = """
import sys, torch
torch.set_num_threads(1)
from vaelib.bench import limits, program
limits.MATRIX, limits.COPIED, limits.SECONDS = {"cpu": 64}, {"cpu": 1 << 16}, 0.01
settings = "--profiles compact --models conv_vae --rounds 1 --seconds 0.001 --batch-size 2 --resident 2 --device cpu"
sys.exit(program.main(settings.split()))
"""
    environment = os.environ | {"PYTHONPATH": f"{bare}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-S", "-c", script]  # -S: no packages but those linked above
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads((outputs / "bench" / "bench.json").read_text())
    assert [r["name"] for r in found["training"]] == ["conv_vae", "plain"]
    for part in ("pythae's trainer", "Preprocessing", "Memory", "The picture"):
        assert any(s.startswith(f"{part} was left out:") and "is not installed" in s for s in found["skipped"]), part
    assert len(found["skipped"]) == 4 and all(s in done.stdout for s in found["skipped"])
