"""Clips in a list and in linked maps: what they are coloured by, what a page gets, keeps and asks for."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vaelib.collection import UNLABELLED
from vaelib.config import InputError
from vaelib.explore import clip_browser, latent_map
from vaelib.explore.clips import class_field, fields_of, matched, neighbours_of, number_field
from vaelib.plots import class_styles

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def data_of(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])


@pytest.fixture
def runs(tiny_runs):
    """A plain run and a VaDE on the same clips."""
    return [tiny_runs["conv_vae"], tiny_runs["vade"]]


@pytest.fixture
def flat(runs):
    """Two projections: onto two pairs of dimensions."""
    where = {"A": [0, 1], "B": [2, 3]}
    return {method: {r.name: r.embed("test").means[:, at] for r in runs} for method, at in where.items()}


def test_a_class_has_the_colour_that_static_figures_give_it_and_none_is_grey():
    field = class_field("language", ["b", UNLABELLED, "a", "b"])
    assert field["classes"] == ["a", "b"] and field["values"] == [[1, -1, 0, 1]]
    styles = class_styles(["b", "a", UNLABELLED])
    assert field["colours"] == [styles[c]["color"] for c in "ab"]


def test_numbers_are_bins_with_their_text_and_few_numbers_are_classes():
    tempo = number_field("tempo", np.append(np.linspace(60, 180, 80), np.nan))
    assert tempo["classes"][-1] == "165 to 180" and tempo["texts"][0][79] == "180"
    assert tempo["values"][0][-1] == -1 and np.bincount(tempo["values"][0][:-1]).tolist() == [10] * 8
    assert number_field("loops", np.array([[2, 4, 2], [4, 4, np.nan]]))["values"] == [[0, 1, 0], [1, 1, -1]]


def test_fields_are_labels_that_differ_then_factors_then_level(store):
    table = store.table.assign(artist=["x", "y"] * 18, title=[f"t{i}" for i in range(36)], mood="calm")
    table["key"] = [0.0, 11.0, np.nan] * 12  # shown as pitches
    fields = {f["name"].split(" (")[0]: f["classes"] for f in fields_of(store, table, [*store.factors, "key"])}
    differ = [name for name, classes in fields.items() if len(classes) > 1]
    labels, numbers = ["language", "genre", "family"], ["tempo", "energy", "level_db", "tilt_db"]
    assert differ == [*labels, "artist", "key", "split", *numbers]
    assert fields["key"] == ["B", "C"]


def test_clusters_take_the_class_they_match_best_one_to_one():
    labels = np.array([0, 0, 0, 1, 1, 2, -1])
    assert matched(labels, np.array([5, 5, 5, 5, 7, 9, 9])).tolist() == [0, 0, 0, 0, 1, 2, 2]


def test_a_saved_list_holds_pictures_sounds_and_the_rejected_files(store, monkeypatch):
    rejected = pd.DataFrame({"path": [HOSTILE], "reason": ["empty"], "size": [0]})
    monkeypatch.setattr("vaelib.explore.clips.MOST_PICTURES", 12)
    view = clip_browser(store, store.fit_scaler(), rejected)
    monkeypatch.setattr("vaelib.explore.page.SOUND_BYTES", 60_000)
    html = view.offline
    assert not re.search(r"""(?:src|href)=["'](?!data:)|https?://|@import|url\(""", html) and HOSTILE not in html
    data = data_of(html)
    assert len(data["names"]) == 36 and data["rejected"] == [f"{HOSTILE}: empty"]
    genre = next(f for f in data["fields"] if f["name"] == "genre")["values"][0]
    pictures, sounds = ([q[1] for q, _ in data["known"] if q[0] == what] for what in ("picture", "sound"))
    assert np.bincount([genre[i] for i in pictures]).tolist() == [2] * 6 and 0 < len(sounds) < 12  # evenly


def test_the_page_asks_and_the_kernel_answers_with_picture_sound_or_a_reason(store, monkeypatch):
    live = clip_browser(store, store.fit_scaler())
    (seen, heard), _ = live.ask([["picture", 3], ["sound", 3]], [])
    assert seen["answer"]["picture"].startswith("data:image/") and heard["answer"].startswith("data:audio/mpeg")

    def gone(self, row):
        raise OSError("is gone")

    monkeypatch.setattr(type(store), "load", gone)
    assert live.ask([["sound", 2]], [])[0] == [{"error": "is gone"}]


def test_maps_hold_clips_with_labels_clusters_and_margins_and_what_is_selected_is_rows_in_python(runs, flat):
    view, rows = latent_map(runs, projections=flat), runs[0].store.rows("test")
    data = data_of(view.offline)
    assert data["maps"] == ["conv_vae", "vade"] and list(data["methods"]) == ["A", "B"]
    np.testing.assert_allclose(data["methods"]["B"][1], flat["B"]["vade"].T, atol=1e-3)
    fields = {f["name"]: f["values"] for f in data["fields"]}
    assert [len(fields[n]) for n in ("language", "cluster", "margin (nats)")] == [1, 2, 2]
    assert set(fields["margin (nats)"][0]) == {-1} and len(fields["margin (nats)"][1]) == len(rows)
    assert len(data["answers"]) >= len(rows) and len(data["library"]) < 700_000
    np.testing.assert_array_equal(view.selected, rows)
    view.ask([["select", [0, 2]]], [])
    np.testing.assert_array_equal(view.selected, rows[[0, 2]])


def test_neighbours_are_those_of_the_space_and_never_of_the_same_artist():
    table = pd.DataFrame({"path": list("pqrs"), "artist": ["x", "x", "y", ""], "track": ["a", "b", "c", "d"]})
    found = neighbours_of([np.array([[0.0], [1.0], [3.0], [3.5]])], table, 2)
    assert found["near"] == [[[2, 3], [2, 3], [3, 1], [2, 1]]] and found["groups"] == [0, 0, 1, 2]


def test_maps_are_named_by_run_and_seed_and_what_does_not_belong_together_is_refused(runs, tiny_runs):
    found = data_of(latent_map([tiny_runs["conv_vae"], tiny_runs["seed1"]]).offline)
    assert found["maps"] == ["conv_vae, seed 0", "conv_vae, seed 1"]
    other = replace(runs[0], config=replace(runs[0].config, fingerprint="other"))
    for given in ([], [runs[0], other]):
        with pytest.raises(InputError):
            latent_map(given)
