"""The command line: what is measured, where it is written."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from tqdm import tqdm

from vaelib.config import FRONT_ENDS, ROOT, InputError, front_end, one_of, outputs_dir, write_atomic

from . import limits, report, training

PARTS = ("training", "preprocessing", "growth", "batch", "explorers", "imports", "precision")
BATCH = {("cpu", "full"): 16}  # a step of 64 would take 5 s of two cores; elsewhere 64, pythae's default
RESIDENT = {("cpu", "full"): 64}  # clips on the device; elsewhere 1,024
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # of a processor, that decide how fast it trains
PAGE = ROOT / "docs" / "BENCHMARKS.md"


def machine() -> dict:
    """Date, commit, processor, cores, GPU, versions, and how busy the machine was in the minute before."""
    found = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names, flags = re.findall(r"model name\s*: (.*)", found), re.findall(r"flags\s*: (.*)", found)
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=7"]
    return {
        "date": date.today().isoformat(),
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown",
        "processor": names[0].strip() if names else platform.processor(),
        "flags": [f for f in FLAGS if flags and f in flags[0].split()],
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def measure(part: str, given: argparse.Namespace, show) -> tuple[object, str]:
    """Figures and table of a part. What only one part needs is imported there: a bare host lacks most of it."""
    device = torch.device(given.device)
    if part == "training":
        found = {"rates": limits.rates(device), "rows": [], "skipped": []}
        for name in given.profiles:
            where = (device.type, name)
            rows, found["skipped"] = training.measure(
                front_end(name), given.models, device=device, rates=found["rates"],
                batch_size=given.batch_size or BATCH.get(where, 64), rounds=given.rounds, seconds=given.seconds,
                resident=given.resident or RESIDENT.get(where, 1024), precision=given.precision, show=show,
            )  # fmt: skip
            found["rows"] += rows
        return found, report.training_tables(found)
    if part in ("preprocessing", "precision"):
        from . import preprocessing, quality

        if part == "precision":
            fe = front_end("compact")
            found = quality.compare(preprocessing.rendered(fe, given.clips), fe, epochs=given.epochs, show=show)
            return found, report.precision_table(found)
        found = []
        for fe in map(front_end, given.profiles):
            clips = (
                given.clips if fe.window_seconds < 20 else max(2, given.clips // 2)
            )  # each takes three times as long
            show(f"rendering clips for {fe.name}")
            found.append(preprocessing.measure(fe, preprocessing.rendered(fe, clips), rounds=given.rounds, show=show))
        return found, report.preprocessing_table(found)
    if part == "growth":
        from . import growth

        found = growth.measure(front_end("compact"), sizes=given.sizes, show=show)
        return found, report.growth_table(found)
    if part == "explorers":
        from . import explorers

        found = explorers.measure()
        return found, report.explorers_table(found)
    from . import waits

    if part == "batch":
        return (found := waits.batch()), report.batch_table(found)
    return (found := waits.imports(given.rounds)), report.table(["imported", "seconds"], found)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, checked; InputError: an unknown name, or a number out of range."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Training and preprocessing against baselines and the hardware."
    )
    parser.add_argument("--device", default="", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure (default: all)")
    parser.add_argument("--profiles", default=",".join(FRONT_ENDS), help="front ends (default: all)")
    parser.add_argument("--models", default=",".join(training.VARIANTS), help="trainings (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each candidate")
    parser.add_argument("--seconds", type=float, default=1.5, help="about how long a turn of a training takes")
    parser.add_argument("--batch-size", type=int, default=0, help="clips per step (default: 64; full on a CPU: 16)")
    parser.add_argument("--resident", type=int, default=0, help="clips on the device (default: 1,024, or 64 likewise)")
    parser.add_argument("--precision", default="auto", help="of our step (default: what training would take)")
    parser.add_argument("--clips", type=int, default=16, help="rendered clips per genre (of the full front end: half)")
    parser.add_argument("--epochs", type=int, default=24, help="of the trainings of the part precision")
    parser.add_argument("--sizes", default="500,2000,8000", help="clips of the part growth")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/BENCHMARKS.md")
    given = parser.parse_args(arguments)
    for key, valid in (("parts", PARTS), ("profiles", FRONT_ENDS), ("models", training.VARIANTS)):
        names = getattr(given, key).split(",")
        setattr(given, key, [one_of(key.removesuffix("s"), n, valid) for n in names])
    if not re.fullmatch(r"\d+(,\d+)*", given.sizes):
        raise InputError(f"--sizes must be whole numbers with commas between them, not {given.sizes!r}")
    given.sizes = [int(n) for n in given.sizes.split(",")]
    for key, value in {"rounds": given.rounds, "clips": given.clips, "epochs": given.epochs}.items():
        if value < 1:
            raise InputError(f"--{key} must be at least 1, not {value}")
    gpu = torch.cuda.is_available()
    given.device = given.device or ("cuda" if gpu else "cpu")
    one_of("precision", given.precision, ("auto", "32-true", "bf16-mixed"))
    if one_of("device", given.device, ("cpu", "cuda")) == "cuda" and not gpu:
        raise InputError("--device cuda: torch finds no GPU here; leave it out, or look at nvidia-smi")
    given.command = shlex.join(["python", "-m", "benchmarks", *arguments])
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, write `outputs/bench/PART.json` and, if asked, docs/BENCHMARKS.md; 2: bad input."""
    try:
        given = parse(sys.argv[1:] if arguments is None else arguments)
    except InputError as e:
        print(e, file=sys.stderr)
        return 2
    about = {"machine": machine(), "command": given.command}
    with tqdm(bar_format="bench: {desc}", leave=False) as bar:
        for part in given.parts:
            bar.set_description_str(part)
            try:
                found, text = measure(part, given, lambda line, part=part: bar.set_description_str(f"{part}, {line}"))
            except (ModuleNotFoundError, InputError) as e:  # a bare host, no browser, no batch yet
                tqdm.write(f"{part} was left out: {e}\n")
                continue
            name = f"{part} on {given.device}" if part == "training" else part
            text = f"{report.machine_line(about)}\n\n{text}"
            tqdm.write(f"## {name}\n\n{text}\n")
            path = outputs_dir() / "bench" / f"{name.replace(' ', '-')}.json"
            write_atomic(path, json.dumps(about | {"figures": found}, indent=1))
            if given.write:
                write_atomic(PAGE, report.replaced(PAGE.read_text(), name, text))
    return 0
