"""Clips in a list and in linked maps: what goes out, what a saved page keeps, callbacks from any thread."""

import json
import re
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vaelib.collection import UNLABELLED
from vaelib.config import InputError
from vaelib.explore import Players, clip_browser, latent_map
from vaelib.explore.clips import in_turns, neighbours_of, short_names
from vaelib.explore.fields import class_field, fields_of, matched, number_field
from vaelib.plots import class_styles
from vaelib.runs import fit, plan

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def wait_for(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def data_of(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])


@pytest.fixture
def browser(store):
    return clip_browser(store, store.fit_scaler())


@pytest.fixture(scope="module")
def runs(store, folders):
    """A plain run and a VaDE on the same clips."""
    small = {"latent": 8, "components": 4}
    plain = plan(store, "conv_vae", epochs=1, seed=92, model_settings={"latent": 8})
    vade = plan(store, "vade", epochs=1, pretrain_epochs=1, seed=92, model_settings=small)
    return [fit(config, store, show=False) for config in (plain, vade)]


@pytest.fixture(scope="module")
def flat(runs):
    """Two projections: onto two pairs of dimensions."""
    where = {"A": [0, 1], "B": [2, 3]}
    return {method: {r.name: r.embed("test").means[:, at] for r in runs} for method, at in where.items()}


# --- what clips are coloured by ---


def test_a_class_has_the_colour_that_static_figures_give_it_and_none_is_grey():
    field = class_field("language", ["b", UNLABELLED, "a", "b"])
    assert field.classes == ("a", "b") and field.values[0].tolist() == [1, -1, 0, 1]
    styles = class_styles(["b", "a", UNLABELLED])
    assert field.colours == tuple(styles[c]["color"] for c in "ab")
    many = class_field("genre", [f"g{i:02}" for i in range(45)])
    assert len(set(zip(many.colours, many.symbols, strict=True))) == 45 and "cannot all be told apart" in many.hint


def test_keys_are_pitch_classes_and_numbers_have_units_and_gaps():
    field = number_field("key", np.array([0.0, 11.0, np.nan, 5.0]))
    assert field.classes[:2] == ("C", "C♯") and field.values[0].tolist() == [0, 11, -1, 5]
    assert len(set(field.colours)) == 12
    tempo = number_field("tempo", np.array([1.5, np.nan, -2.25]), "BPM")
    assert tempo.name == "tempo (BPM)" and tempo.packed(np.array([0, 1, 2]))["values"] == [[1.5, None, -2.25]]


def test_fields_are_labels_that_differ_then_factors_then_level(store):
    table = store.table.assign(artist=["x", "y"] * 18, title=[f"t{i}" for i in range(36)], mood="calm")
    names = [f.name.split(" (")[0] for f in fields_of(store, table, store.factors)]
    assert names == ["language", "genre", "family", "artist", "split", "tempo", "energy", "level_db", "tilt_db"]


def test_clusters_take_the_class_they_match_best_one_to_one():
    labels = np.array([0, 0, 0, 1, 1, 2, -1])
    assert matched(labels, np.array([5, 5, 5, 5, 7, 9, 9])).tolist() == [0, 0, 0, 0, 1, 2, 2]


# --- the list ---


def test_names_are_short_unless_two_are_the_same():
    assert short_names(["a/x.wav", "b/y.wav"]) == ["x.wav", "y.wav"]
    assert short_names(["a/x.wav", "b/x.wav"]) == ["a/x.wav", "b/x.wav"]


def test_every_class_keeps_its_first_clip_before_any_keeps_its_second():
    assert in_turns(np.array(["b", "a", "a", "b", "a"])).tolist() == [1, 0, 2, 3, 4]


def test_a_saved_list_holds_pictures_sounds_and_the_rejected_files(store, browser, monkeypatch):
    rejected = pd.DataFrame({"path": [HOSTILE], "reason": ["empty"], "size": [0]})
    view = clip_browser(store, store.fit_scaler(), rejected)
    monkeypatch.setattr("vaelib.explore.clips.SOUND_BYTES", 60_000)
    monkeypatch.setattr("vaelib.explore.clips.MOST_CLIPS", 12)
    html = view.offline()
    assert not re.search(r"""(?:src|href)=["'](?!data:)|https?://|@import|url\(""", html) and HOSTILE not in html
    data = data_of(html)
    assert data["total"] == 36 and len(data["names"]) == 12 == len(data["saved"]["pictures"])
    assert 0 < len(data["saved"]["sounds"]) < 12 and data["rejected"] == [[HOSTILE, "empty"]]
    genres = next(f for f in data["fields"] if f["name"] == "genre")
    assert np.bincount(genres["values"][0]).tolist() == [2] * 6  # evenly


def test_the_page_asks_and_the_kernel_answers_with_picture_and_sound(browser):
    widget = browser.live().widget
    widget.clip = 3
    assert widget.frame["clip"] == 3 and len(widget.frame["shades"]) == np.prod(widget.frame["shape"])
    widget.heard = {"clip": 3, "turn": 1}
    assert wait_for(lambda: widget.sound.get("clip") == 3 and widget.sound["data"])


def test_a_missing_file_is_named(store, browser, monkeypatch):
    def gone(row):
        raise OSError("is gone")

    monkeypatch.setattr(type(store), "load", lambda self, row: gone(row))
    browser.live().widget.heard = {"clip": 2, "turn": 1}
    assert wait_for(lambda: "no sound" in browser.live().widget.note.get("text", ""))


# --- the maps ---


def test_maps_hold_every_clip_with_labels_clusters_margins_and_the_library(runs, flat):
    view = latent_map(runs, projections=flat)
    data, count = data_of(view.offline()), len(runs[0].store.rows("test"))
    assert data["maps"] == ["conv_vae", "vade"] and list(data["methods"]) == ["A", "B"]
    np.testing.assert_allclose(data["methods"]["B"][1], flat["B"]["vade"].T, rtol=1e-3)
    fields = {f["name"]: f["values"] for f in data["fields"]}
    assert [len(fields[n]) for n in ("language", "cluster", "margin (nats)")] == [1, 2, 2]
    assert fields["margin (nats)"][0] is None and len(fields["margin (nats)"][1]) == count
    assert len(data["saved"]["pictures"]) == count and len(data["library"]) < 700_000
    assert view.strip()[:4] == b"\x89PNG"


def test_what_is_selected_in_the_page_is_rows_in_python(runs, flat):
    view = latent_map(runs, projections=flat)
    rows = runs[0].store.rows("test")
    np.testing.assert_array_equal(view.selected, rows)
    view.live().widget.selected = [0, 2]
    np.testing.assert_array_equal(view.selected, rows[[0, 2]])


def test_neighbours_are_those_of_the_space_and_never_the_clip_itself():
    codes = np.array([[0.0], [1.0], [3.0], [3.5]])
    table = pd.DataFrame({"artist": ["x", "x", "y", ""], "track": ["a", "b", "c", "d"]})
    found = neighbours_of([codes], table, 2)
    assert found["every"] == [[[1, 2], [0, 2], [3, 1], [2, 1]]] and found["related"] == "artist"
    assert found["others"] == [[[2, 3], [2, 3], [3, 1], [2, 1]]]
    assert neighbours_of([codes], table[["track"]], 2)["related"] == ""


@pytest.mark.parametrize("wrong", ["none", "stores", "shape"])
def test_maps_of_what_does_not_belong_together_are_refused(runs, flat, wrong):
    other = replace(runs[0], config=replace(runs[0].config, fingerprint="other"))
    given = {"none": ([], {}), "stores": ([runs[0], other], {}), 
             "shape": (runs, {"projections": {"A": {r.name: np.zeros((2, 2)) for r in runs}}})}[wrong]  # fmt: skip
    with pytest.raises(InputError):
        latent_map(given[0], **({"projections": flat} | given[1]))


def test_players_show_notes_as_text_and_say_what_is_missing(store):
    html = Players(store, {0: HOSTILE})._repr_html_()
    assert "audio/mpeg" in html and "<img" not in html and "<script" not in html
    assert Players(store, {}, nothing="no file")._repr_html_() == "<p>no file</p>"
