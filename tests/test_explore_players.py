"""Players of a few rows: words are text, sounds are inside, what cannot be read is said."""

import base64
import io
import re

import pytest
import soundfile

from vaelib.explore.players import Players

EVIL = "<img src=x onerror=alert(1)>&\udcff"


def test_every_row_has_its_words_and_its_sound(store):
    rows = store.rows()[[3, 0]]
    page = Players(store, {int(r): f"{EVIL} {i}" for i, r in enumerate(rows)}, seconds=2)._repr_html_()
    assert "<img" not in page and page.count("&lt;img src=x onerror=alert(1)&gt;&amp;?") == 2
    assert page.index(store.table.loc[rows[0], "path"]) < page.index(store.table.loc[rows[1], "path"])  # as given
    sounds = re.findall(r'<audio controls preload="none" src="data:audio/mpeg;base64,([^"]+)"', page)
    for text in sounds:
        wave, rate = soundfile.read(io.BytesIO(base64.b64decode(text)))
        assert len(wave) / rate == pytest.approx(2, abs=0.15)
    assert len(sounds) == 2 and "http" not in page


def test_a_file_that_is_gone_is_said_in_its_line(store, tmp_path, monkeypatch):
    monkeypatch.setitem(store.attrs, "corpus_root", str(tmp_path))
    page = Players(store, {int(store.rows()[0]): "gone"})._repr_html_()
    assert "no sound: is not there" in page and "<audio" not in page


def test_no_rows_are_a_sentence(store):
    none = Players(store, {}, nothing="all <well>")
    assert none._repr_html_() == "<p>all &lt;well&gt;</p>" and repr(none) == "all <well>"
    assert repr(Players(store, {0: "a"})) == "players of 1 clips"
