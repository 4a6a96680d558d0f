"""What `vaelib batch` needs on a host with PyTorch and no internet, as wheels: `make wheelhouse` (docs/GPU_HOST.md)."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOST = ("torch", "torchaudio", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "pillow")
# What executing notebooks does without: the live front end, Git's drivers, Parquet, live playback, the debugger,
# completion, reading notebooks from the web, MIDI files, map tiles.
LEFT_OUT = ("jupyterlab", "jupyterlab-widgets", "widgetsnbextension", "nbdime", "nbstripout", "pyarrow",
            "pyaudio", "debugpy", "jedi", "aiohttp", "mido", "importlib-resources", "xyzservices")  # fmt: skip
GLIBC = (28, 27, 26, 24, 17, 12, 5)  # manylinux_2_N: the oldest system that is meant has glibc 2.28


def needed(python: str, machine: str, there: Iterable[str] = HOST) -> list[str]:
    """Names of the packages that a host lacks, as the packages installed here declare them."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine}
    extras = PROJECT["optional-dependencies"]
    roots = (*PROJECT["dependencies"], *extras["demo"], *extras["synth"], "setuptools")
    waiting = [Requirement(line) for line in roots]
    found, passed = set(), {*map(canonicalize_name, there), *LEFT_OUT}
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in passed | found:
            continue
        found.add(name)
        for child in map(Requirement, requires(name) or ()):
            cases = [environment | {"extra": extra} for extra in ("", *wanted.extras)]
            if child.marker is None or any(child.marker.evaluate(case) for case in cases):
                waiting.append(child)
    return sorted(found)


def collect(python: str, machine: str, there: Iterable[str], folder: Path) -> str:
    """Fill `folder` with wheels of the versions in constraints.txt; returns "", or a sentence that says why not."""
    if not re.fullmatch(r"3\.\d+", python) or python not in SpecifierSet(PROJECT["requires-python"]):
        return f"there is no wheelhouse for Python {python}: vaelib needs {PROJECT['requires-python']}"
    shutil.rmtree(folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    target = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    target += [f"--platform=manylinux_2_{n}_{machine}" for n in GLIBC]
    target += [f"--platform={old}_{machine}" for old in ("manylinux2014", "manylinux2010", "manylinux1")]
    tested = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    tested = {canonicalize_name(name): f"=={version}" for name, version in tested.items()}
    names = [name + tested.get(name, "") for name in needed(python, machine, there)]
    done = subprocess.run([*pip, "download", "--no-deps", *target, "-d", str(folder), *names],
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        missing = re.search(r"No matching distribution found for (\S+)", done.stderr)
        reason = f"there is no wheel of {missing[1]}" if missing else done.stderr.strip()[-300:]
        return f"no wheelhouse for Python {python} on Linux {machine}: {reason}"
    return ""


def main() -> int:
    """Collect, and print what came of it."""
    parser = argparse.ArgumentParser(prog="make wheelhouse", description=__doc__)
    parser.add_argument("--python", default="3.12", help="the host's Python, e.g. 3.12")
    parser.add_argument("--machine", default="x86_64", help="the host's processor, as `uname -m` says")
    parser.add_argument("--has", default="", help="further packages that the host has, e.g. 'numba llvmlite'")
    given = parser.parse_args()
    folder = ROOT / "wheelhouse"
    if error := collect(given.python, given.machine, (*HOST, *given.has.split()), folder):
        print(error, file=sys.stderr)
        return 2
    sizes = {path.name.split("-")[0]: path.stat().st_size / 1e6 for path in folder.iterdir()}
    largest = ", ".join(f"{name} {size:.1f}" for name, size in sorted(sizes.items(), key=lambda x: -x[1])[:4])
    print(f"{folder.name}/: {len(sizes)} wheels, {sum(sizes.values()):.0f} MB (largest: {largest}); docs/GPU_HOST.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
