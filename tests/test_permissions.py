"""What may not be read or written is one sentence; a process tries it without the rights of root."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import write_tones

from vaelib.config import ROOT


def without_rights() -> list[str]:
    """What runs a command as somebody for whom a file's mode counts: of root, what goes beyond it is taken."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root may read everything here: setpriv (util-linux), which takes that away, is not installed")
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", f"--inh-caps={rights}", f"--bounding-set={rights}"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What was said, by case."""
    root = tmp_path_factory.mktemp("forbidden")
    write_tones(root / "music", 4, ("arabic", "spanish"), ("pop",))
    for name in ("a", "b"):
        (root / "tree" / name).mkdir(parents=True)
        (root / "tree" / name / "x.wav").write_bytes(b"x")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    given = [*without_rights(), sys.executable, str(ROOT / "tests" / "forbidding.py"), str(root)]
    done = subprocess.run(given, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("folder", "music"),
        ("manifest", "manifest.csv"),
        ("outputs", "cannot write"),
        ("config.json", "config.json"),
        ("done.json", "done.json"),
        ("best.safetensors", "best.safetensors cannot be read"),
        ("plan", "no plan can be read"),
        ("data", "cannot write"),
        ("report", "cannot write"),
    ],
)
def test_what_is_forbidden_is_one_sentence(found, case, says):
    kind, said = found[case]
    assert kind in ("InputError", "UnwritableError"), said
    assert says in said and "ermission denied" in said and "\n" not in said


def test_a_song_that_may_not_be_read_is_set_aside(found):
    assert found["song"][0] == ""
    header, row = found["rejected"][1].splitlines()
    assert header == "path,reason" and "00.flac" in row


@pytest.mark.parametrize("case", ["folder in a tree", "folder in a tree that can only be listed"])
def test_a_folder_that_may_not_be_entered_hides_no_other(found, case):
    assert found[case] == ["", "['a/x.wav']"]
