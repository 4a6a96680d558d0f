"""The command line: what is measured, where it is written."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from tqdm import tqdm

from vaelib.config import FRONT_ENDS, InputError, front_end, one_of, outputs_dir, write_atomic

from . import limits, memory, preprocessing, quality, report, training

PARTS = ("training", "preprocessing", "memory")
BATCH = {("cpu", "full"): 16}  # a step of 64 would take 5 s of two cores; elsewhere 64, pythae's default
RESIDENT = {("cpu", "full"): 64}  # clips on the device; elsewhere 1,024
PRECISION_EPOCHS, PRECISION_SEEDS = 24, (0, 1, 2)


def machine() -> dict:
    """Date, processor, cores, GPU, versions, and how busy the machine was in the minute before."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    processor = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.processor())
    return {
        "date": date.today().isoformat(),
        "processor": " ".join(processor.split()),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def measure(given: argparse.Namespace, show) -> dict:
    """Everything that `given` asks for."""
    device = torch.device(given.device)
    result: dict = {"machine": machine(), "command": given.command, "device": device.type, "rates": {},
                    "training": [], "preprocessing": [], "memory": {}, "skipped": []}  # fmt: skip
    if "training" in given.parts:
        show("asking the hardware")
        result["rates"] = {
            "matrix_fp32": limits.matrix_rate(device, torch.float32),
            "matrix_bf16": limits.matrix_rate(device, torch.bfloat16),
            "memory": limits.memory_rate(device),
        }
        for name in given.profiles:
            where = (device.type, name)
            rows, skipped = training.measure(
                front_end(name),
                given.models,
                device=device,
                rates=result["rates"],
                batch_size=given.batch_size or BATCH.get(where, 64),
                rounds=given.rounds,
                seconds=given.seconds,
                resident=given.resident or RESIDENT.get(where, 1024),
                precision=given.precision,
                show=lambda line: show(f"training, {line}"),
            )
            result["training"] += rows
            result["skipped"] += [s for s in skipped if s not in result["skipped"]]
    try:
        if "preprocessing" in given.parts:
            for name in given.profiles:
                fe = front_end(name)
                # a 30-s clip takes three times as long as a 10-s one
                clips = given.clips if fe.window_seconds < 20 else max(2, given.clips // 2)
                show(f"preprocessing, {name}: rendering clips")
                corpus = preprocessing.rendered(fe, clips)
                found = preprocessing.measure(fe, corpus, rounds=given.rounds,
                                              show=lambda line: show(f"preprocessing, {line}"))  # fmt: skip
                result["preprocessing"].append(found | {"seconds": preprocessing.SECONDS[name]})
        if "memory" in given.parts:
            result["memory"] = memory.measure(front_end("compact"), show=lambda line: show(f"memory, {line}"))
    except ModuleNotFoundError as e:  # a bare host
        result["skipped"].append(f"Preprocessing and memory were left out: {e.name} is not installed.")
    return result


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, checked.

    Raises:
        InputError: an unknown name, or a number out of range.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Training and preprocessing against baselines and the hardware."
    )
    parser.add_argument("--device", default="auto", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure (default: all)")
    parser.add_argument("--profiles", default=",".join(FRONT_ENDS), help="front ends (default: all)")
    parser.add_argument("--models", default=",".join(training.VARIANTS), help="trainings (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each candidate")
    parser.add_argument("--seconds", type=float, default=1.5, help="about how long a turn of a training takes")
    parser.add_argument("--batch-size", type=int, default=0, help="clips per step (default: 64; full on a CPU: 16)")
    parser.add_argument("--resident", type=int, default=0, help="clips on the device (default: 1,024, or 64 likewise)")
    parser.add_argument("--precision", default="auto", help="of our step (default: what training would take)")
    parser.add_argument("--clips", type=int, default=16, help="rendered clips per genre (of the full front end: half)")
    parser.add_argument("--precision-check", action="store_true", help="only compare bf16 with fp32")
    given = parser.parse_args(arguments)
    for key, valid in (("parts", PARTS), ("profiles", FRONT_ENDS), ("models", training.VARIANTS)):
        names = getattr(given, key).split(",")
        setattr(given, key, [one_of(key.removesuffix("s"), n, valid) for n in names])
    for key in ("rounds", "clips"):
        if getattr(given, key) < 1:
            raise InputError(f"--{key} must be at least 1, not {getattr(given, key)}")
    if given.device == "auto":
        given.device = "cuda" if torch.cuda.is_available() else "cpu"
    one_of("precision", given.precision, ("auto", "32-true", "bf16-mixed"))
    one_of("device", given.device, ("cpu", "cuda"))
    if given.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU here; leave it out, or look at nvidia-smi")
    given.command = shlex.join(["python", "-m", "benchmarks", *arguments])
    return given


def check_precision(given: argparse.Namespace, show) -> str:
    """bf16 against fp32: writes precision.json, returns Markdown."""
    fe = front_end("compact")
    try:
        corpus = preprocessing.rendered(fe, given.clips)
        found = quality.compare(corpus, fe, seeds=PRECISION_SEEDS, epochs=PRECISION_EPOCHS, show=show)
    except ModuleNotFoundError as e:
        raise InputError(f"--precision-check was left out: {e.name} is not installed; it needs `make setup`") from e
    result = {"machine": machine(), "command": given.command, **found}
    return f"{report.precision_markdown(result)}\n\n{_write('precision.json', result)}"


def _write(name: str, result: dict) -> Path:
    return write_atomic(outputs_dir() / "bench" / name, json.dumps(result, indent=1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print Markdown, write `outputs/bench/bench.json`; 2 when the input is bad."""
    try:
        given = parse(sys.argv[1:] if arguments is None else arguments)
        with tqdm(bar_format="bench: {desc}", leave=False) as bar:
            if given.precision_check:
                text = check_precision(given, bar.set_description_str)
            else:
                result = measure(given, bar.set_description_str)
                text = f"{report.markdown(result)}\n\n{_write('bench.json', result)}"
    except InputError as e:
        print(e, file=sys.stderr)
        return 2
    print(text)
    return 0
