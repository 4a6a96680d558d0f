"""Sliders: pure pictures, one bundle with a live widget and a saved page, what the page is answered."""

import base64
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import TINY
from PIL import Image

from vaelib.audio import load
from vaelib.config import InputError
from vaelib.descriptors import Meaning
from vaelib.explore import class_sampler, component_view, interpolation, player, traversal
from vaelib.explore.page import NO_PLAYERS, frame_of, wave_player
from vaelib.explore.view import CLIPS, EVERY_CLASS, MEAN, SAMPLES, Control, Shown, sliders

LIVE = "application/vnd.jupyter.widget-view+json"
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def ramp(values: dict) -> Shown:
    """Two pictures; the brightness of the second is the slider's value."""
    level = (values["a"] + 1) / 2 * (1.0 if values["b"] == "low" else 0.5)
    x = np.stack([np.ones(TINY.shape), np.full(TINY.shape, level)])
    return Shown(x, rows=(0,), caption=f"{level:.2f} {HOSTILE}")


@pytest.fixture
def view(store, monkeypatch):
    monkeypatch.setattr("vaelib.explore.view.to_sound", lambda db, fe: np.linspace(-1, 1, 4000))
    part = Control(("low", "high", HOSTILE), "low", 2, scene=True)
    controls = {"b": part, "a": Control(np.linspace(-1, 1, 41).round(2).tolist(), 0.0)}
    begin = {"low": 0.05, "high": -0.5, HOSTILE: 0.0}
    run = SimpleNamespace(store=store, scaler=store.fit_scaler())
    return sliders(run, f"title {HOSTILE}", controls, ramp, lambda v: {"a": begin[v["b"]]}, first=1)


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("L")).astype(int)


def window_of(store, row: int) -> str:
    """What is heard of the window that a model is given."""
    start = TINY.hop * round((int(store.table.loc[row, "n_frames"]) - TINY.frames) / 2)
    wave = load(store.audio_path(row), TINY).numpy()[start : start + TINY.frames * TINY.hop]
    return wave_player(wave, TINY.sample_rate).src_attr()


def test_low_frequencies_are_at_the_bottom_tiles_below_each_other_and_nothing_is_lost_to_nan():
    x = np.zeros((2, 8, 6), np.float32)
    x[0, 0], x[0, 7, 0], x[1] = 1.0, np.nan, 0.5
    assert pixels(frame_of(np.repeat(x, 300, axis=-1), TINY, False)["picture"]).shape == (16, 640)  # no wider than seen
    shades = pixels(frame_of(x, TINY, False)["picture"])
    assert shades[7].tolist() == [255] * 6 and not shades[:7].any() and (shades[8:] == 128).all()


def test_a_sound_is_cut_and_can_be_read_back_and_a_player_holds_the_file(store):
    assert soundfile.info(io.BytesIO(player(store, int(store.rows("test")[0])).data)).duration > 6.5
    wave, rate = soundfile.read(io.BytesIO(wave_player(0.5 * np.sin(np.arange(66_150) / 9), 22_050, seconds=2.0).data))
    assert rate == 22_050 and abs(len(wave) / rate - 2.0) < 0.1 and np.abs(wave).max() > 0.3


def test_the_bundle_holds_widget_and_page_and_neither_where_nobody_watches(view, monkeypatch):
    bundle = view._repr_mimebundle_()
    assert bundle[LIVE]["model_id"] == view.model_id and bundle["text/html"] == view.offline
    monkeypatch.setenv(NO_PLAYERS, "1")
    assert set(view._repr_mimebundle_()) == {"text/plain"}


def test_a_saved_page_asks_for_nothing_and_its_sliders_move(view):
    html = view.offline
    assert not re.search(r"""(?:src|href)=["'](?!data:)|https?://|@import|url\(|import\s*\(""", html)
    assert html.count("</script>") == 2 and HOSTILE not in html  # nothing said can end a script or become markup
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])
    known = [(what, *given, json.loads(data["answers"][place])) for (what, *given), place in data["known"]]
    scenes = [scene["start"] for what, _, scene in (k for k in known if k[0] == "scene")]
    assert scenes == [{"b": "low", "a": 0.05}, {"b": HOSTILE, "a": 0.0}]  # two of three
    for start in scenes:
        frames = {v["a"]: frame for what, v, *_, frame in known if what == "frame" and v["b"] == start["b"]}
        levels = [pixels(frames[a]["picture"])[TINY.n_mels :].mean() for a in sorted(frames)]
        assert 15 <= len(levels) <= 16 and (np.diff(levels) > 2).all()
        heard = [(v["a"], *tile) for what, v, *tile, _ in known if what == "sound" and v["b"] == start["b"]]
        assert heard == [(start["a"], 0), (start["a"], 1), (-1.0, 1), (1.0, 1)]


def test_the_page_is_answered_with_starts_pictures_and_sounds(view, store):
    ask = lambda *given: view.ask([given], [])[0][0].get("answer")  # noqa: E731
    scene = ask("scene", {"b": "high"})
    assert scene["start"] == {"b": "high", "a": -0.5} and len(scene["values"]["a"]) == 41
    frame = ask("frame", {"b": "low", "a": 0.8})
    assert pixels(frame["picture"])[TINY.n_mels :].min() == round(0.9 * 255) and frame["caption"].startswith("0.90")
    known = {question[0]: json.loads(view.setup["answers"][place]) for question, place in view.setup["known"]}
    assert known == {"scene": ask("scene", {"b": "low"}), "frame": ask("frame", view.start)}  # without asking
    own, guessed = ask("sound", view.start, 0), ask("sound", view.start, 1)
    assert own != guessed and own == window_of(store, 0)


def test_interpolation_goes_from_one_clip_to_the_other_between_the_two(tiny_runs):
    run = tiny_runs["conv_vae"]
    a, b, c = (int(r) for r in run.store.rows("test")[:3])
    v = interpolation(run, a, b)
    code, window = zip(*(run.encode_clip(row)[:2] for row in (a, b, c)), strict=True)
    decoded = [run.decode(z[None])[0] for z in code]
    for t in (0.0, 1.0):
        x = v.show(v.start | {"A → B": t}).x
        np.testing.assert_allclose(x[:3], [window[0], decoded[int(t)], window[1]], atol=1e-5)
        np.testing.assert_allclose(x[3][:, [0, -1]], np.stack([decoded[0][:, 0], decoded[1][:, -1]], 1), atol=1e-5)
    other = v.controls["clip B"].values[2]  # those given first, then the others of the split
    np.testing.assert_allclose(v.show(v.start | {"A → B": 1.0, "clip B": other}).x[1], decoded[2], atol=1e-5)
    for tile, row in ((0, a), (2, b)):
        assert v.answers["sound"](v.start, tile) == window_of(run.store, row)


def test_traversal_starts_at_the_clip_and_each_slider_moves_its_dimension(tiny_runs, monkeypatch):
    # three live dimensions; the second is a fader that falls when z rises
    found = {3: Meaning("energy"), 1: Meaning("drums", "dB", -6.0, -4.0), 0: Meaning()}
    monkeypatch.setattr("vaelib.explore.view.live_dimensions", lambda run: np.array(list(found)))
    monkeypatch.setattr("vaelib.explore.view.meanings", lambda run: found)
    run = tiny_runs["conv_vae"]
    row, other = (int(r) for r in run.store.rows("test")[:2])
    v = traversal(run, row)
    assert list(v.controls) == ["start from", "z3 · energy", "z1 · drums (dB)", "z0"]
    start, (code, window, _) = v.show(v.start).x, run.encode_clip(row)
    np.testing.assert_allclose(start, [window, run.decode(code[None])[0]], atol=1e-5)  # grid or not: its code
    clips = v.controls["start from"].values
    for name, c in list(v.controls.items())[1:]:
        assert not np.allclose(v.show(v.start | {name: c.values[-1]}).x[1], start[1])
    there = v.answers["scene"](v.start | {"start from": clips[1]})["start"]
    np.testing.assert_allclose(v.show(there).x[1], run.decode(run.encode_clip(other)[0][None])[0], atol=1e-5)
    assert v.answers["sound"](there, 0) == window_of(run.store, other)
    # the slider that is named after a fader stands on its scale
    fader = "z1 · drums (dB)"
    assert v.start[fader] == pytest.approx(-4 - 6 * code[1])
    code[1] -= 3 / 6  # dB
    louder = v.show(v.start | {fader: v.start[fader] + 3}).x[1]
    np.testing.assert_allclose(louder, run.decode(code[None])[0], atol=1e-5)
    monkeypatch.setattr("vaelib.explore.page.clip_name", lambda store, row: "track.mp3")
    assert len(set(traversal(run, row).controls["start from"].values)) == len(run.store.rows("test"))  # told apart


def test_class_sampler_draws_as_many_as_asked_and_repeats_a_seed(tiny_runs):
    v, run = class_sampler(tiny_runs["cvae"]), tiny_runs["cvae"]
    assert v.show(v.start | {"samples": 3}).x.shape == (3, *TINY.shape)
    np.testing.assert_array_equal(v.show(v.start).x, v.show(v.start).x)
    assert not np.allclose(v.show(v.start).x, v.show(v.start | {"seed": 1}).x)
    shown, names = v.show(v.start | {"show": EVERY_CLASS, "seed": 3}), run.config.model.classes
    assert list(shown.labels) == list(names)
    for c, sample in enumerate(shown.x):  # the same noise: each tile is that class's first sample of that seed
        np.testing.assert_allclose(sample, run.sample(1, [c], 1.0, 3)[0], rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="no classes"):
        class_sampler(tiny_runs["conv_vae"])


def test_component_view_shows_mean_samples_and_members(tiny_runs):
    run = tiny_runs["vade"]
    v = component_view(run, n=3)
    components, log_gamma, rows = (
        v.controls["component"].values,
        run.log_responsibilities("test"),
        run.store.rows("test"),
    )
    fullest = max(components, key=lambda o: int(re.search(r"(\d+) clips", o)[1]))
    inside = np.flatnonzero(log_gamma.argmax(1) == int(fullest.split(":")[0]))
    held = {show: v.show({"component": fullest, "show": show}) for show in (MEAN, *CLIPS, SAMPLES)}
    certain, uncertain, members = (set(held[show].rows) for show in CLIPS)
    assert certain and uncertain and not certain & uncertain and members == set(rows[inside])  # no clip is both
    margin = np.sort(log_gamma[inside], 1) @ np.array([0, 0, -1, 1])  # of four components
    assert held[CLIPS[0]].rows[0] == rows[inside[margin.argmax()]]
    assert len(held[MEAN].x) == 1 and len(held[SAMPLES].x) == 3
    assert sum(int(re.search(r"(\d+) clips", o)[1]) for o in components) == len(rows)
    with pytest.raises(InputError, match="no mixture"):
        component_view(tiny_runs["conv_vae"])
