"""Sliders: pure pictures, one bundle with a live widget and a saved page, callbacks from any thread."""

import base64
import io
import json
import re
import time

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from vaelib.audio import load
from vaelib.config import COMPACT, FULL, InputError
from vaelib.explore import (
    Choice,
    Slider,
    SpectrogramView,
    class_sampler,
    component_view,
    interpolation,
    player,
    traversal,
)
from vaelib.explore.offline import NO_PLAYERS
from vaelib.explore.picture import hz_ticks, shrink, sound_bytes, tile
from vaelib.explore.views import CERTAIN, EVERY_CLASS, MEAN, SAMPLES, UNCERTAIN
from vaelib.factors import Meaning
from vaelib.runs import fit, plan

LIVE = "application/vnd.jupyter.widget-view+json"
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def ramp(values: dict) -> np.ndarray:
    """Two pictures; the brightness of the second is the slider's value."""
    level = (values["a"] + 1) / 2 * (1.0 if values["b"] == "low" else 0.5)
    return np.stack([np.ones((16, 16)), np.full((16, 16), level)])


@pytest.fixture
def view(store):
    controls = [Choice("b", "part", ("low", "high", HOSTILE), "low", scenes=2),
                Slider("a", HOSTILE, -1.0, 1.0, 0.05, 0.03, 9)]  # fmt: skip
    return SpectrogramView(
        ramp, controls, TINY, store.fit_scaler(), f"title {HOSTILE}", caption=lambda v: f"at {v['a']} {HOSTILE}",
        sound=lambda v, tile: (np.full(4000, v["a"] * tile, np.float32), 22_050),
        begin=lambda v: {"a": -0.5 if v["b"] == "high" else 0.05}, first=1,
        extras={f"walk {HOSTILE}": lambda v: (np.linspace(-1, 1, 4000, dtype=np.float32), 22_050)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(store, folders):
    """One quickly trained run of every kind that sliders open."""
    kinds = {"conv_vae": {}, "cvae": {"condition": "language"}, "vade": {"pretrain_epochs": 1}}
    small = {"vade": {"latent": 8, "components": 4}}
    plans = [plan(store, name, epochs=1, seed=91, model_settings=small.get(name, {"latent": 8}), **more)
             for name, more in kinds.items()]  # fmt: skip
    return dict(zip(kinds, (fit(p, store, show=False) for p in plans), strict=True))


@pytest.fixture
def named(monkeypatch):
    """Three live dimensions; the second is a fader that falls when z rises."""
    found = {3: Meaning("energy", 0.5), 1: Meaning("drums", 0.6, "dB", -6.0, -4.0), 0: Meaning("", 0.1)}
    monkeypatch.setattr("vaelib.explore.views.live_dimensions", lambda run: np.array(list(found)))
    monkeypatch.setattr("vaelib.explore.views.meanings", lambda run: found)


def data_of(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("L")).astype(int)


def wait_for(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def middle_sound(run, row: int) -> np.ndarray:
    """What is heard of the window that a model is given."""
    start = TINY.hop * round((int(run.store.table.loc[row, "n_frames"]) - TINY.frames) / 2)
    return load(run.store.audio_path(row), TINY).numpy()[start : start + TINY.frames * TINY.hop]


# --- pictures and sounds ---


def test_low_frequencies_are_at_the_bottom_and_nothing_is_lost_to_nan():
    x = np.zeros((8, 6), np.float32)
    x[0], x[7, 0] = 1.0, np.nan
    shades, tiles = tile(x)
    assert tiles == (1, 1) and shades[-1].tolist() == [255] * 6 and not shades[:-1].any()


def test_a_long_spectrogram_is_averaged_not_thinned():
    x = np.zeros((128, 1293), np.float32)
    x[:, 700] = 1.0
    assert shrink(x).shape == (128, 640) and shrink(x).max() in (0.5, pytest.approx(1 / 3))


@pytest.mark.parametrize(("n", "expected"), [(1, (1, 1)), (2, (1, 2)), (6, (2, 3)), (12, (3, 5)), (40, (7, 6))])
def test_tiles(n, expected):
    shades, tiles = tile(np.ones((n, 16, 16)))
    assert tiles == expected and shades.shape == (tiles[0] * 18 - 2, tiles[1] * 18 - 2)
    assert (shades == 255).sum() == n * 256


def test_a_sound_is_cut_and_can_be_read_back():
    import soundfile

    wave, rate = soundfile.read(io.BytesIO(sound_bytes(0.5 * np.sin(np.arange(66_150) / 9), 22_050, seconds=2.0)))
    assert rate == 22_050 and abs(len(wave) / rate - 2.0) < 0.1 and np.abs(wave).max() > 0.3


@pytest.mark.parametrize("fe", [TINY, COMPACT, FULL], ids=lambda fe: fe.name)
def test_frequency_ticks_rise_inside_the_picture(fe):
    at = [t for t, _ in hz_ticks(fe)]
    assert len(at) >= 4 and at == sorted(at) and at[0] > 0 and at[-1] < 1


# --- the saved page ---


def test_the_bundle_holds_the_live_widget_and_the_saved_page(view, tmp_path):
    bundle = view._repr_mimebundle_()
    assert bundle[LIVE]["model_id"] == view.live().model_id and bundle["text/html"] == view.offline()
    assert Image.open(view.save(tmp_path, "strip") and tmp_path / "strip.png").width > 500


def test_where_nobody_watches_a_view_is_a_picture(view, monkeypatch):
    monkeypatch.setenv(NO_PLAYERS, "1")
    shown = view._repr_mimebundle_()
    assert set(shown) == {"text/plain", "text/html"} and "<img" in shown["text/html"]
    assert "<script" not in shown["text/html"]


def test_a_saved_page_asks_for_nothing_and_its_sliders_move(view):
    html = view.offline()
    assert not re.search(r"""(?:src|href)=["'](?!data:)|https?://|@import|url\(|import\s*\(""", html)
    assert html.count("</script>") == 2 and HOSTILE not in html  # nothing said can end a script or become markup
    data = data_of(html)
    assert [s["start"]["b"] for s in data["scenes"]] == ["low", "high"]  # two of three are kept, the start among them
    for scene, start in zip(data["scenes"], (0.05, -0.5), strict=True):
        assert scene["start"]["a"] == start
        frames = sorted(scene["frames"], key=lambda f: f["values"]["a"])
        levels = [pixels(data["pictures"][f["picture"]])[:, 18:].mean() for f in frames]
        assert 9 <= len(levels) <= 10 and (np.diff(levels) > 2).all()
        kept = {(s["values"]["a"], s["tile"]) for s in scene["sounds"]}
        assert kept == {(start, 1), (start, 0), (start, -1), (-1.0, 1), (1.0, 1)}


# --- live ---


@pytest.fixture
def live(view):
    """Its widget, whose messages to the page are kept in `sent`."""
    live = view.live()
    live.sent = []
    live.send = lambda content, buffers=None: live.sent.append((content, buffers))
    return live


def test_a_move_draws_and_a_new_scene_sets_its_start(view, live):
    assert live.setup["controls"][1]["values"] == [round(-1 + 0.05 * k, 4) for k in range(41)]
    live.values = live.values | {"a": 0.8}
    assert np.frombuffer(live.frame["shades"], np.uint8).reshape(16, 34)[0, -1] == round(0.9 * 255)
    live.go_to_start(live.values | {"b": "high"})
    assert live.values == {"b": "high", "a": -0.5} and live.reference["caption"].startswith("at -0.5")
    assert live.frame["values"] == live.values


def test_frames_of_all_positions_are_sent_ahead(view, live):
    live.send_ahead("a", live.values)
    frames = [f for content, _ in live.sent for f in content["frames"]]
    shades = [s for _, buffers in live.sent for s in buffers]
    places = [f["values"]["a"] for f in frames]
    assert places[0] == live.values["a"] and sorted(places) == live.setup["controls"][1]["values"]
    live.values = live.values | {"a": places[20]}
    assert shades[20] == live.frame["shades"]  # the kernel's own


def test_a_tile_and_a_button_sound_and_a_broken_file_is_named(view, live):
    for number in (0, -1):
        live._on_message(None, {"do": "sound", "tile": number, "values": live.values}, [])
    assert wait_for(lambda: len(live.sent) == 2) and not live.note
    first, second = (buffers[0] for _, buffers in live.sent)
    assert first and second and first != second

    def broken(values, tile):
        raise OSError("gone")

    view.sound = broken
    live.make_sound(1, live.values | {"a": -0.9})
    assert "no sound: gone" in live.note and live.sent[-1][1] == [b""]


# --- the sliders of the notebooks ---


def test_interpolation_goes_from_one_clip_to_the_other_between_the_two(runs):
    run = runs["conv_vae"]
    a, b, c = (int(r) for r in run.store.rows("test")[:3])
    v = interpolation(run, a, b, steps=5)
    code, window = zip(*(run.encode_clip(row)[:2] for row in (a, b, c)), strict=True)
    decoded = [run.decode(z[None])[0] for z in code]
    for t in (0, 1):
        np.testing.assert_allclose(v.render(v.start | {"t": float(t)}), [window[0], decoded[t], window[1]], atol=1e-5)
    other = v.controls[1].options[2]  # those given first, then the others of the split
    np.testing.assert_allclose(v.render(v.start | {"t": 1.0, "b": other})[1], decoded[2], atol=1e-5)
    for at, row in ((0, a), (2, b)):
        np.testing.assert_array_equal(v.sound(v.start, at)[0], middle_sound(run, row))
    inverted = []
    v.to_sound = lambda x, values: inverted.append(x) or (np.zeros(10, np.float32), 22_050)
    v.extras["the path"](v.start)
    np.testing.assert_allclose(inverted[0][:, [0, -1]], np.stack([decoded[0][:, 0], decoded[1][:, -1]], 1), atol=1e-5)


def test_traversal_starts_at_the_clip_and_each_slider_moves_its_dimension(runs, named):
    run = runs["conv_vae"]
    row, other = (int(r) for r in run.store.rows("test")[:2])
    v = traversal(run, row, most=2)
    assert [c.label for c in v.controls] == ["start from", "z3 · energy", "z1 · drums (dB)"]
    assert v.title == "conv_vae: move one dimension at a time (2 of 3 live ones)"
    start = v.render(v.start)
    code, window, _ = run.encode_clip(row)
    np.testing.assert_allclose(start, [window, run.decode(code[None])[0]], atol=1e-5)  # grid or not: its code
    for c in v.controls[1:]:
        assert not np.allclose(v.render(v.start | {c.name: c.snap(c.high)})[1], start[1])
    there = v.start_of(v.start | {"clip": v.controls[0].options[1]})
    np.testing.assert_allclose(v.render(there)[1], run.decode(run.encode_clip(other)[0][None])[0], atol=1e-5)
    np.testing.assert_array_equal(v.sound(there, 0)[0], middle_sound(run, other))


def test_a_slider_named_after_a_fader_stands_on_its_scale(runs, named):
    run = runs["conv_vae"]
    row = int(run.store.rows("test")[0])
    v = traversal(run, row)
    fader, code = v.controls[2], run.encode_clip(row)[0]
    assert fader.step == 0.5 and abs(v.start["z1"] - (-4 - 6 * code[1])) <= 0.25
    code[1] -= 3 / 6  # dB
    found = v.render(v.start | {"z1": v.start["z1"] + 3})[1]
    np.testing.assert_allclose(found, run.decode(code[None])[0], atol=1e-5)


def test_clips_of_the_same_file_name_are_told_apart(runs, monkeypatch):
    run = runs["conv_vae"]
    monkeypatch.setattr("vaelib.explore.views.clip_name", lambda store, row: "track.mp3")
    options = traversal(run, int(run.store.rows("test")[0])).controls[0].options
    assert len(set(options)) == len(run.store.rows("test"))


def test_class_sampler_draws_as_many_as_asked_and_repeats_a_seed(runs):
    v, run = class_sampler(runs["cvae"], n=8), runs["cvae"]
    assert v.render(v.start | {"n": 3}).shape == (3, *TINY.shape)
    np.testing.assert_array_equal(v.render(v.start), v.render(v.start))
    assert not np.allclose(v.render(v.start), v.render(v.start | {"seed": 1}))
    every = v.start | {"show": EVERY_CLASS, "seed": 3}
    x, names = v.render(every), run.config.model.classes
    assert v.frame(every)["labels"] == list(names)
    for c, sample in enumerate(x):  # the same z: each tile is that class's first sample of that seed
        np.testing.assert_allclose(sample, run.sample(1, [c], 1.0, 3)[0], rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="no classes"):
        class_sampler(runs["conv_vae"])


def test_component_view_shows_mean_samples_and_members(runs):
    run = runs["vade"]
    v = component_view(run, n=3, most=5)
    components, log_gamma, rows = v.controls[0].options, run.log_responsibilities("test"), run.store.rows("test")
    for option in components:
        for show in v.controls[1].options:
            f = v.frame({"component": option, "show": show})
            assert f["count"] == max(1, len(f["labels"])) or show in (SAMPLES, MEAN)
    assert sum(int(re.search(r"(\d+) clips", o)[1]) for o in components) == len(rows)
    fullest = max(components, key=lambda o: int(re.search(r"(\d+) clips", o)[1]))
    inside = np.flatnonzero(log_gamma.argmax(1) == int(fullest.split(":")[0]))
    margin = np.sort(log_gamma[inside], 1) @ np.array([0, 0, -1, 1])  # of four components
    surest = rows[inside[margin.argmax()]]
    values = {"component": fullest, "show": CERTAIN}
    np.testing.assert_array_equal(v.sound(values, 0)[0], middle_sound(run, surest))
    assert run.store.table.loc[surest, "path"].rsplit("/", 1)[-1] in v.caption(values)
    most, least = (set(re.findall(r"\S+\.flac", v.caption(values | {"show": w}))) for w in (CERTAIN, UNCERTAIN))
    assert most and least and not most & least  # no clip is both
    with pytest.raises(InputError, match="no mixture"):
        component_view(runs["conv_vae"])


def test_a_player_holds_the_file_or_the_window(runs):
    import soundfile

    store, row = runs["conv_vae"].store, int(runs["conv_vae"].store.rows("test")[0])
    whole, window = (soundfile.info(io.BytesIO(player(store, row, w).data)).duration for w in (False, True))
    assert whole > 6.5 and abs(window - TINY.frames * TINY.hop / TINY.sample_rate) < 0.1
