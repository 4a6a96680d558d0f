"""One list of dependencies: pyproject.toml; everything else points at it."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import yaml
from packaging.requirements import Requirement

from vaelib.cli import app
from vaelib.config import ROOT

CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
PINS = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in PINS.items()}


def test_every_dependency_is_pinned_within_its_range():
    extras = [r for group in PROJECT["optional-dependencies"].values() for r in group]
    for requirement in map(Requirement, PROJECT["dependencies"] + extras):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert PINS[name] in requirement.specifier, name


def test_conda_environment_installs_the_same_list():
    pip = next(d["pip"] for d in CONDA["dependencies"] if isinstance(d, dict))
    assert pip == ["-c constraints.txt", "-e .[synth,dev]"]
    named = [d for d in CONDA["dependencies"] if isinstance(d, str)]
    assert CONDA["channels"] == ["conda-forge"]
    assert {"python=3.12", "pip", "make", "pyaudio"} == set(named)


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", Requirement(requirement).name).lower()


def test_conda_environment_resolves_to_the_pins():
    """What `-e .[synth,dev]` asks for is installed here in the very versions of `-c constraints.txt`."""
    pip = next(d["pip"] for d in CONDA["dependencies"] if isinstance(d, dict))
    wanted, extras = set(map(name_of, PROJECT["dependencies"])), re.fullmatch(r"-e \.\[(.+)\]", pip[1])[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    for extra in extras:
        wanted |= set(map(name_of, PROJECT["optional-dependencies"][extra]))
    waiting, seen = sorted(wanted), set()
    while waiting:  # what they ask for in turn is pinned too
        name = waiting.pop()
        if name in seen or name == "pyaudio":  # conda brings that
            continue
        seen.add(name)
        assert name in PINS, f"{name} is installed by environment.yml without a pin"
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # of an extra that is not installed here
        assert found.version.split("+")[0] == PINS[name], name
        asked = [Requirement(r) for r in found.requires or []]
        waiting += [name_of(r.name) for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]
    assert wanted <= seen and len(seen) > len(wanted) + 50


def test_every_pin_stands_once_and_is_exact():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)
    assert len(lines) == len(PINS)


def test_the_steps_for_conda_are_right():
    """README, CONTRIBUTING and the file itself name the environment, files and commands that are there."""
    targets = set(re.findall(r"^([\w.%/-]+(?: [\w-]+)*):", (ROOT / "Makefile").read_text(), re.M))
    targets = {word for line in targets for word in line.split()}
    commands = {c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands}
    said = [(ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "environment.yml")]
    steps = re.findall(r"conda env create[^`\n]*", "\n".join(said))
    assert len(steps) >= 2 and len(set(steps)) == 1
    create, activate, run = (step.strip().split() for step in steps[0].split("&&"))
    assert create == ["conda", "env", "create", "-f", "environment.yml"]
    assert activate == ["conda", "activate", CONDA["name"]]
    assert run[0] in PROJECT["scripts"] and run[1] in commands
    made = re.search(r"`make -o (\S+) (\S+) BIN=\"\$CONDA_PREFIX/bin\"`", said[1])
    assert {made[1], made[2]} <= targets


def test_python_range():
    assert PROJECT["requires-python"] == ">=3.11,<3.13"
