"""The progress line in a log file, in a terminal and in a notebook."""

import sys
import types

import pytest

from vaelib.progress import Progress, clock


def test_a_log_file_gets_the_last_state_only(capsys):
    progress = Progress("rendering", 3, "clips")
    for _ in range(3):
        progress.step()
    progress.close()
    err = capsys.readouterr().err
    assert err.count("rendering") == 1 and err.endswith("\n") and "3 clips in" in err


def test_a_terminal_line_is_rewritten_and_wiped(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress("x", 100)
    progress.show("a long state", force=True)
    progress.show("short", force=True)
    progress.show("too soon after the last one")
    lines = capsys.readouterr().err.split("\r")[1:]
    assert [s.strip() for s in lines] == ["x: a long state", "x: short"] and len(lines[0]) == len(lines[1])


def test_steps_say_count_rate_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress("x", 40, "clips")
    progress.started -= 10
    progress.step(10)
    err = capsys.readouterr().err
    assert "10/40 clips, 1.0 clips/s, 30 s left" in err


def test_a_notebook_keeps_one_display(monkeypatch):
    shown = []
    handle = types.SimpleNamespace(update=lambda bundle, raw: shown.append(bundle["text/plain"]))
    fake = types.ModuleType("IPython")
    fake.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    fake.display = types.ModuleType("IPython.display")
    made = []
    fake.display.display = lambda bundle, raw, display_id: made.append(bundle) or handle
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setitem(sys.modules, "IPython.display", fake.display)
    progress = Progress("training")
    progress.show("epoch 1", force=True)
    progress.show("epoch 2", force=True)
    progress.close("done")
    assert len(made) == 1 and shown == ["training: epoch 2", "training: done"]


@pytest.mark.parametrize(("seconds", "text"), [(4.21, "4.2 s"), (42, "42 s"), (75, "1:15 min"), (3600, "60:00 min")])
def test_clock(seconds, text):
    assert clock(seconds) == text
