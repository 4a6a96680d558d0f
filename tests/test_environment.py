"""One list of dependencies: pyproject.toml; everything else points at it."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement

from vaelib.config import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
PINS = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in PINS.items()}


def test_every_dependency_is_pinned_within_its_range():
    extras = [r for group in PROJECT["optional-dependencies"].values() for r in group]
    for requirement in map(Requirement, PROJECT["dependencies"] + extras):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert PINS[name] in requirement.specifier, name


def test_conda_environment_installs_the_same_list():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-c constraints.txt", "-e .[synth,dev]"]
    named = [d for d in environment["dependencies"] if isinstance(d, str)]
    assert {"python=3.12", "pip", "make", "pyaudio"} == set(named)


def test_python_range():
    assert PROJECT["requires-python"] == ">=3.11,<3.13"
