"""Clips in a list and in linked maps: what goes out, what a saved page keeps, callbacks from any thread."""

import base64
import io
import json
import re
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import TINY
from PIL import Image

from vaelib.collection import UNLABELLED
from vaelib.config import InputError
from vaelib.explore import ClipsView, clip_browser, latent_map
from vaelib.explore.clips import in_turns, short_names, that_fit
from vaelib.explore.fields import GREY, class_field, fields_of, genre_field, looks, matched, number_field, packed
from vaelib.explore.near import find_near, kin_of
from vaelib.explore.offline import as_json
from vaelib.runs import fit, plan

LIVE = "application/vnd.jupyter.widget-view+json"
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def wait_for(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def saved_data(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), f"<{kind}")


def file_in(uri: str) -> io.BytesIO:
    return io.BytesIO(base64.b64decode(uri.split(",")[1]))


@pytest.fixture
def browser(store):
    return clip_browser(store, store.fit_scaler())


@pytest.fixture(scope="module")
def runs(store, folders):
    """A VaDE and a plain run on the same clips."""
    small = {"latent": 8, "components": 4}
    vade = plan(store, "vade", epochs=1, pretrain_epochs=1, seed=92, model_settings=small)
    plain = plan(store, "conv_vae", epochs=1, seed=92, model_settings={"latent": 8})
    return [fit(config, store, show=False) for config in (plain, vade)]


@pytest.fixture(scope="module")
def flat(runs):
    """Two projections: onto two pairs of dimensions."""
    where = {"A": [0, 1], "B": [2, 3]}
    return {method: {r.name: r.embed("test").means[:, at] for r in runs} for method, at in where.items()}


# --- what clips are coloured by ---


def test_up_to_seven_classes_differ_in_hue_and_many_in_hue_and_marker():
    for n in (2, 7):
        colours, markers = looks(n)
        assert len(set(colours)) == n and set(markers) == {0}
    for n in (9, 45, 54):
        assert len(set(zip(*looks(n), strict=True))) == n


def test_a_genre_has_the_hue_of_its_family_and_its_own_marker():
    families = [f"f{i}" for i in range(9)]
    table = pd.DataFrame([{"genre": f"{x}_{f}", "family": f} for x in "abcde" for f in families])
    field = genre_field(table)
    assert len(set(zip(field.colours, field.markers, strict=True))) == 45
    hues = {f: {c for g, c in zip(field.classes, field.colours, strict=True) if g.endswith(f)} for f in families}
    assert all(len(h) == 1 for h in hues.values()) and len(set.union(*hues.values())) == 9
    assert "cannot all be told apart" in field.hint and "family" in field.hint


def test_genres_without_families_still_differ():
    field = genre_field(pd.DataFrame({"genre": [f"g{i:02}" for i in range(20)], "family": UNLABELLED}))
    assert len(set(zip(field.colours, field.markers, strict=True))) == 20 and GREY not in field.colours


def test_a_clip_without_a_label_has_no_class():
    field = class_field("language", ["b", UNLABELLED, "a", "b"])
    assert field.classes == ("a", "b") and field.values[0].tolist() == [1, -1, 0, 1]


def test_keys_are_pitch_classes_in_a_cyclic_palette():
    field = number_field("key", np.array([0.0, 11.0, np.nan, 5.0]))
    assert field.classes[:2] == ("C", "C♯") and field.values[0].tolist() == [0, 11, -1, 5]
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in field.colours])
    steps = np.abs(np.diff(rgb, axis=0, append=rgb[:1])).sum(1)
    assert len(set(field.colours)) == 12 and steps[-1] <= steps[:-1].max()  # from B to C no further than elsewhere
    assert number_field("key", np.array([0.5, 3.0])).classes == () == number_field("tempo", np.arange(12.0)).classes


def test_fields_are_labels_that_differ_then_factors_then_level(store):
    table = store.table.assign(artist=["x", "y"] * 18, title=[f"t{i}" for i in range(36)], mood="calm")
    names = [f.name for f in fields_of(table, store.factors)]
    assert names == ["language", "genre", "family", "artist", "split", "tempo", "energy", "level_db", "tilt_db"]


def test_numbers_reach_the_page_bit_by_bit_with_gaps():
    field = number_field("tempo", np.array([1.5, np.nan, -2.25], np.float32)).packed(np.array([0, 1, 2]))
    assert (field["low"], field["high"]) == (-2.25, 1.5)
    np.testing.assert_array_equal(unpacked(field["values"][0], "f4"), np.array([1.5, np.nan, -2.25], np.float32))
    assert unpacked(packed(np.array([3, -1]), "i2"), "i2").tolist() == [3, -1]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/x.flac", "b/y.flac"], ["x.flac", "y.flac"]),
        (["m/a/1.mp3", "m/b/1.mp3"], ["a/1.mp3", "b/1.mp3"]),
        (["only.wav"], ["only.wav"]),
    ],
)
def test_names_are_as_short_as_they_can_be(paths, expected):
    assert short_names(paths) == expected


def test_clusters_take_the_class_they_match_best():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, -1])
    clusters = np.array([7, 7, 7, 3, 3, 5, 9, 3])
    assert matched(labels, clusters).tolist() == [0, 0, 0, 1, 1, 2, -1, 1]  # 9 is left over
    assert matched(labels, np.zeros(8, int)).tolist() == [0] * 8


# --- what a saved page keeps ---


def test_clips_are_kept_evenly_from_the_classes():
    groups = np.array(list("aaaaabbbc"))
    order = in_turns(groups)
    assert sorted(order) == list(range(9))
    assert "".join(groups[order]) == "abcababaa"
    assert order[:3].tolist() == [0, 5, 8]


def test_what_does_not_fit_is_not_made():
    made = []

    def make():
        for k in range(9):
            made.append(k)
            yield "x" * 10

    assert that_fit(make(), 35) == ["x" * 10] * 3 and made == [0, 1, 2, 3]
    assert that_fit(make(), 0) == []


def test_a_small_page_shows_few_clips_of_every_class(browser):
    whole = browser.saved()
    assert len(whole["names"]) == whole["total"] == 36 and len(whole["saved"]["pictures"]) == 36
    room = len(as_json(browser.payload())) + 12_000
    small = browser.saved(room)
    assert 6 <= len(small["names"]) < 36 and small["total"] == 36
    assert len(as_json(small)) < room
    genre = next(f for f in small["fields"] if f["name"] == "genre")
    counts = np.bincount(unpacked(genre["values"][0], "i2"), minlength=6)
    assert counts.max() - counts.min() <= 1
    for k, name in enumerate(small["names"]):  # the picture of a clip stands at the clip's place
        at = browser.names.index(name)
        shades = np.asarray(Image.open(file_in(small["saved"]["pictures"][k])).convert("L")).astype(float)
        assert np.abs(shades - browser.frame(at)["shades"]).mean() < 8


def test_large_pictures_are_kept_smaller(browser, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (128, 640), np.uint8)
    shapes = []

    def frame(clip, width=640):
        shapes.append(min(width, 640))
        return {"shades": noise[:, :width], "tiles": (1, 1), "seconds": 30.0, "caption": ""}

    monkeypatch.setattr(browser, "frame", frame)
    html = browser.offline()
    data = saved_data(html)
    assert len(html) < 2_500_000 and min(shapes) < 640
    assert len(data["names"]) == 36 and data["saved"]["sounds"]  # a picture of every clip, and sounds still


def test_kept_sounds_are_the_clips_own_and_short(browser):
    data = browser.saved()
    k, uri = next(iter(data["saved"]["sounds"].items()))
    wave, rate = soundfile.read(file_in(uri))
    own, own_rate = soundfile.read(browser.store.audio_path(int(browser.rows[browser.names.index(data["names"][k])])))
    assert rate == own_rate and abs(len(wave) / rate - data["saved"]["seconds"]) < 0.1
    n = rate  # an encoder may shift by a few hundred samples: compare spectra, not samples
    a, b = (np.abs(np.fft.rfft(w[rate // 2 : rate // 2 + n])) for w in (wave, own))
    assert np.corrcoef(a, b)[0, 1] > 0.9


def test_a_file_that_is_gone_is_passed_over_in_a_saved_page(store, monkeypatch):
    view = clip_browser(store, store.fit_scaler())
    gone = int(view.rows[view.turns()[0]])
    real = type(store).audio_path
    monkeypatch.setattr(type(store), "audio_path", lambda s, row: s.path / "no.flac" if row == gone else real(s, row))
    data = view.saved()
    assert len(data["saved"]["pictures"]) == 36 and 0 < len(data["saved"]["sounds"]) < 36
    assert data["names"].index(view.names[view.turns()[0]]) not in data["saved"]["sounds"]


# --- the page ---


def test_the_bundle_holds_the_live_widget_and_the_page(browser):
    bundle = browser._repr_mimebundle_()
    assert bundle[LIVE]["model_id"] == browser.live().box.model_id
    assert bundle["text/html"] is browser.offline() and bundle["text/plain"] == browser.title


def test_the_page_asks_for_nothing_and_has_a_poster(browser):
    html = browser.offline()
    outside = html.replace(re.search(r'<script type="application/json">.*?</script>', html, re.S)[0], "")
    assert not re.search(r"""(?:src|href)=["'](?!data:)|https?://|@import|url\(|import\s*\(""", html)
    assert "innerHTML" not in html
    poster = re.search(r'<img src="([^"]+)"', outside)[1]
    assert Image.open(file_in(poster)).width > 500
    assert len(html) < 2_500_000


def test_hostile_labels_are_text(store):
    table = store.table.assign(artist=[HOSTILE, "b"] * 18)
    names = [f for f in fields_of(table, [])]
    rejected = pd.DataFrame({"path": [HOSTILE], "reason": [HOSTILE]})
    view = ClipsView(store, store.fit_scaler(), store.rows(), names, HOSTILE, rejected=rejected)
    html = view.offline()
    assert "<img src=x" not in html and "<script>alert" not in html and html.count("</script>") == 2
    data = saved_data(html)
    assert data["title"] == HOSTILE and data["rejected"] == [[HOSTILE, HOSTILE]]
    assert HOSTILE in next(f for f in data["fields"] if f["name"] == "artist")["classes"]


def test_the_rejected_list_beside_the_store_is_shown(store, tmp_path):
    view = clip_browser(store, store.fit_scaler())
    assert view.payload()["rejected"] == []  # there is one, and it is empty
    beside = store.path.with_suffix(".rejected.csv")
    before = beside.read_text()
    try:
        beside.write_text("path,reason\na/b.mp3,is silent\n007,NA\n")
        assert clip_browser(store, view.scaler).payload()["rejected"] == [["a/b.mp3", "is silent"], ["007", "NA"]]
        beside.unlink()
        assert clip_browser(store, view.scaler).payload()["rejected"] is None
    finally:
        beside.write_text(before)
    given = clip_browser(store, view.scaler, pd.DataFrame({"path": ["x"], "reason": ["y"]}))
    assert given.payload()["rejected"] == [["x", "y"]]


def test_a_strip_needs_no_pyplot(browser, runs, flat):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    for view in (browser, latent_map(runs, projections=flat)):
        assert Image.open(io.BytesIO(view.strip())).width > 400
    assert plt.get_fignums() == before


# --- maps ---


def test_points_are_sent_once_and_exactly(runs, flat):
    data = latent_map(runs, projections=flat).payload()
    names = [r.name for r in runs]
    assert data["maps"] == names and list(data["methods"]) == ["A", "B"]
    for method in data["methods"]:
        for name, xy in zip(names, data["methods"][method], strict=True):
            np.testing.assert_array_equal(unpacked(xy, "f4").reshape(-1, 2), flat[method][name].astype(np.float32))
    assert len(data["names"]) == len(runs[0].store.rows("test"))
    assert [f["name"] for f in data["fields"]][:5] == ["language", "family", "genre", "cluster", "margin (nats)"]


def test_a_model_says_its_clusters_and_how_sure_it_is(runs, flat):
    fields = {f.name: f for f in latent_map(runs, projections=flat).fields}
    share, sure = runs[1].log_responsibilities("test"), fields["margin (nats)"].values
    assert sure[0] is None
    np.testing.assert_allclose(sure[1], np.sort(share, 1)[:, -1] - np.sort(share, 1)[:, -2], rtol=1e-5)
    sent = fields["margin (nats)"].packed(np.arange(len(share)))
    assert sent["values"][0] is None and sent["high"] == pytest.approx(sure[1].max())
    codes, own = fields["cluster"].values[1], share.argmax(1)
    assert all(len(set(codes[own == c])) == 1 for c in set(own))  # a cluster keeps together


def test_a_saved_map_keeps_every_clip(runs, flat):
    view = latent_map(runs, projections=flat)
    data = view.saved(len(as_json(view.payload())) + 3000)
    n = len(view.rows)
    assert len(data["names"]) == n > len(data["saved"]["pictures"]) >= 1
    assert len(unpacked(data["methods"]["A"][0], "f4")) == 2 * n


def test_projections_are_made_where_none_are_given(runs):
    data = latent_map(runs[:1]).payload()
    assert list(data["methods"]) == ["UMAP"] and np.isfinite(unpacked(data["methods"]["UMAP"][0], "f4")).all()


def test_a_map_of_other_clips_is_refused(runs, flat):
    with pytest.raises(InputError, match="0 runs"):
        latent_map([])
    with pytest.raises(InputError, match="project the train clips"):
        latent_map(runs, "train", flat)
    with pytest.raises(InputError, match="project the test clips"):
        latent_map(runs, projections={"UMAP": {}})


# --- more like this ---


def near_of(data: dict, which: str = "every") -> list[np.ndarray]:
    """(clip, k) neighbours of each model, as a page reads them."""
    return [unpacked(t, "i4").reshape(len(data["names"]), data["near"]["k"]) for t in data["near"][which]]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_are_those_of_the_models_own_space(runs, flat, metric):
    data = latent_map(runs, projections=flat, neighbours=3, metric=metric).payload()
    assert data["near"]["metric"] == metric and data["near"]["k"] == 3
    for run, near in zip(runs, near_of(data), strict=True):
        z = run.embed("test").means
        scale = np.ones(len(z)) if metric == "euclidean" else np.linalg.norm(z, axis=1)
        far = np.linalg.norm(z[:, None] / scale[:, None, None] - z[None] / scale[None, :, None], axis=2)
        np.fill_diagonal(far, np.inf)
        assert np.array_equal(near, np.argsort(far, 1)[:, :3])
    flat_far = np.linalg.norm(flat["A"][runs[0].name][:, None] - flat["A"][runs[0].name][None], axis=2)
    np.fill_diagonal(flat_far, np.inf)
    assert not np.array_equal(near_of(data)[0], np.argsort(flat_far, 1)[:, :3])  # the map would say something else


def test_the_same_artist_can_be_left_out(runs):
    run = runs[0]
    rows, named = run.store.rows("train"), run.store.table.copy()
    named.loc[rows, "artist"] = [f"a{i // 4}" for i in range(len(rows))]
    near = find_near([replace(run, store=replace(run.store, table=named))], "train", 5)
    artist = np.arange(len(rows)) // 4
    assert near.kin == "artist" and (near.every[0] != np.arange(len(rows))[:, None]).all()
    assert (artist[near.every[0]] == artist[:, None]).any()
    assert (artist[near.others[0]] != artist[:, None]).all() and (near.others[0] >= 0).all()
    sent = near.packed()
    assert len(set(unpacked(sent["groups"], "i4"))) == len(set(artist)) and len(sent["others"]) == 1


@pytest.mark.parametrize(
    ("columns", "word", "groups"),
    [
        ({}, "", [0, 1, 2, 3]),
        ({"artist": ["x", "y", "z", ""]}, "", [0, 1, 2, 3]),
        ({"artist": ["x", "", "x", ""], "track": ["1", "1", "2", "1"]}, "artist", [0, 1, 0, 1]),
        ({"track": ["1", "1", None, None]}, "track", [0, 0, 1, 2]),
        ({"artist": ["a", "b", "c", "d"], "track": ["1"] * 4}, "", [0, 1, 2, 3]),
    ],
)
def test_clips_are_related_by_artist_else_by_track(columns, word, groups):
    found, numbers = kin_of(pd.DataFrame({"path": list("abcd"), **columns}))
    assert found == word and numbers.tolist() == groups


def test_a_small_page_keeps_fewer_neighbours(runs, flat):
    view = latent_map(runs, projections=flat)
    n, k = len(view.rows), 8
    whole = view.payload()["near"]
    assert whole["k"] == min(k, n) or whole["k"] == k
    small = view.saved(5 * 100 * len(runs))["near"]
    assert 1 <= small["k"] < whole["k"]
    first = unpacked(whole["every"][0], "i4").reshape(n, -1)[:, : small["k"]]
    assert np.array_equal(unpacked(small["every"][0], "i4").reshape(n, -1), first)


def test_neighbours_can_be_left_away(runs, flat, browser):
    assert latent_map(runs, projections=flat, neighbours=0).payload()["near"] is None
    assert browser.payload()["near"] is None
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        latent_map(runs, projections=flat, metric="cosin")


# --- live ---


def test_a_choice_from_another_thread_changes_the_picture(browser):
    player = browser.live().player
    assert player.frame["clip"] == 0  # one to begin with
    thread = threading.Thread(target=lambda: setattr(player, "clip", 20))
    thread.start()
    thread.join()
    assert player.frame["clip"] == 20
    assert player.frame["shades"] == browser.frame(20)["shades"].tobytes()
    assert np.prod(player.frame["shape"]) == len(player.frame["shades"])


def test_many_threads_leave_the_last_clip_on_screen(browser):
    player = browser.live().player
    threads = [threading.Thread(target=lambda i=i: setattr(player, "clip", i)) for i in range(1, 30)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert player.frame["clip"] == player.clip
    assert player.frame["shades"] == browser.frame(player.clip)["shades"].tobytes()


def test_the_sound_asked_for_is_the_clips_own(browser):
    player = browser.live().player
    player.heard = {"clip": 7, "turn": 1}
    assert wait_for(lambda: player.sound.get("clip") == 7)
    wave, rate = soundfile.read(io.BytesIO(player.sound["data"]))
    assert rate == TINY.sample_rate and 6.9 < len(wave) / rate < 8


def test_a_slow_sound_holds_up_no_picture_and_gives_way_to_a_newer_one(browser):
    start, free, made = threading.Event(), threading.Event(), []

    def slow(clip, seconds=None):
        made.append(clip)
        start.set()
        assert free.wait(8)
        return b"sound"

    browser.sound_file = slow
    player = browser.live().player
    player.heard = {"clip": 1, "turn": 1}
    assert start.wait(8)
    player.clip = 9
    assert player.frame["clip"] == 9  # drawn while the sound is being made
    for turn, clip in enumerate((2, 3, 4), start=2):
        player.heard = {"clip": clip, "turn": turn}
    free.set()
    assert wait_for(lambda: player.sound.get("clip") == 4)
    assert made == [1, 4]  # nobody waits for 2 and 3 any more


def test_a_sound_that_cannot_be_read_is_said(store, monkeypatch, tmp_path):
    view = clip_browser(store, store.fit_scaler())
    broken = tmp_path / "broken.flac"
    broken.write_bytes(b"no audio")
    monkeypatch.setattr(type(store), "audio_path", lambda s, row: broken)
    player = view.live().player
    player.heard = {"clip": 3, "turn": 1}
    assert wait_for(lambda: player.note)
    assert player.note["clip"] == 3 and "cannot be decoded" in player.note["text"]
    assert view.names[3] in player.note["text"] and not player.sound


def test_a_picture_that_cannot_be_read_is_said(browser, monkeypatch):
    player = browser.live().player

    def fail(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(browser, "frame", fail)
    player.clip = 5
    assert player.note["clip"] == 5 and "the disk is gone" in player.note["text"] and player.frame["clip"] == 0


def test_a_clip_that_is_not_there_is_ignored(browser):
    player = browser.live().player
    player.clip = 10_000
    player.heard = {"clip": -3, "turn": 1}
    time.sleep(0.1)
    assert player.frame["clip"] == 0 and not player.sound and not player.note
