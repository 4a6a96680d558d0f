"""SIGKILL at random moments, ten times: what is begun again ends as if nothing had happened."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_preprocess import content
from test_training import assert_equal, results

from vaelib.config import ROOT

pytestmark = pytest.mark.slow
KILLS = 10


def killed(what: str, folder: Path, corpus: Path) -> list[Path]:
    """What was made between kills; that made without any comes first."""
    given = [what, str(KILLS), "7", str(folder), str(corpus)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "killing.py"), *given],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths, "VAELIB_DATA": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    hits, rounds, _ = done.stdout.split()[-3:]
    assert int(hits) == KILLS  # each hit work that was under way
    return [folder / "whole", *(folder / str(i + 1) for i in range(int(rounds)))]


def test_ten_kills_of_preprocessing_end_with_the_same_bytes(tmp_path, corpus):
    whole, *others = (content(path) for path in killed("store", tmp_path, corpus))
    assert len([name for name in whole if "log_mel/c/" in name]) == 36
    for other in others:
        assert other == whole  # the whole folder: nothing is left beside the store


def test_ten_kills_of_training_end_with_the_same_weights(tmp_path, corpus):
    finished = [done.parent for path in killed("training", tmp_path, corpus) for done in path.rglob("done.json")]
    whole, *others = map(results, finished)
    assert others and len(whole[-1]) == 12
    for other in others:
        assert_equal(other, whole)
