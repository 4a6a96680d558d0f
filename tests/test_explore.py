"""Explorers: pure pictures, one bundle with a live widget and an offline player, callbacks from any thread."""

import base64
import io
import json
import re
import threading
import time

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from vaelib.audio import load
from vaelib.config import COMPACT, FULL, InputError
from vaelib.explore import (
    Choice,
    Extra,
    Slider,
    SpectrogramView,
    class_sampler,
    colour,
    component_view,
    interpolation,
    png,
    shrink,
    sound_bytes,
    strip,
    traversal,
)  # fmt: skip
from vaelib.explore.offline import MOST_BYTES, NO_PLAYERS
from vaelib.explore.picture import hz_ticks, tile
from vaelib.proofs import Meaning
from vaelib.runs import fit, plan

LIVE = "application/vnd.jupyter.widget-view+json"
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def ramp(values: dict) -> np.ndarray:
    """A picture whose brightness is the slider's value."""
    return np.full((16, 16), (values["a"] + 1) / 2, np.float32) * (1.0 if values["b"] == "whole" else 0.5)


@pytest.fixture
def view(store):
    controls = [Slider("a", HOSTILE, -1.0, 1.0, 0.05, 0.03, 9), Choice("b", "part", ("whole", HOSTILE), "whole")]
    return SpectrogramView(
        ramp, controls, TINY, store.fit_scaler(), f"title {HOSTILE}", caption=lambda v: f"at {v['a']} {HOSTILE}",
        sound=lambda v, tile: (np.full(4000, v["a"], np.float32), 22_050),
        extras=[Extra(f"walk {HOSTILE}", lambda v: (np.linspace(-1, 1, 4000, dtype=np.float32), 22_050), "a")],
    )  # fmt: skip


def two_scenes(store) -> SpectrogramView:
    """A view whose slider starts elsewhere in each of its scenes."""
    controls = [Choice("at", "start from", ("low", "high", "middle"), "low", scenes=2),
                Slider("a", "a: level", 0.0, 1.0, 0.1, 0.2, 5)]  # fmt: skip
    starts = {"low": 0.2, "high": 0.7, "middle": 0.5}
    return SpectrogramView(
        lambda v: np.full((16, 16), v["a"], np.float32), controls, TINY, store.fit_scaler(), "scenes",
        begin=lambda v: {"a": starts[v["at"]]}, sound=lambda v, tile: (np.full(4000, v["a"], np.float32), 22_050),
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(store, folders):
    """One quickly trained run of every kind that an explorer opens."""
    kinds = {"conv_vae": {}, "cvae": {"condition": "language"}, "vade": {"pretrain_epochs": 1}}
    small = {"latent": 8, "components": 4}
    return {
        name: fit(
            plan(store, name, epochs=1, seed=91, model_settings=small if name == "vade" else {"latent": 8}, **more),
            store,
            show=False,
        )
        for name, more in kinds.items()
    }


def wait_for(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def offline_data(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])


def frame_pixels(data: dict, scene: int, control: int) -> list[np.ndarray]:
    """The pictures of one control's positions."""
    frames = data["scenes"][scene]["controls"][control]["frames"]
    return [pixels(data["pictures"][f["picture"]]) for f in frames]


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("L"))


# --- pictures ---


def test_colour_puts_low_frequencies_at_the_bottom_and_loses_no_nan():
    x = np.zeros((8, 6), np.float32)
    x[0] = 1.0
    x[7, 0] = np.nan
    rgb = colour(x)
    assert rgb.shape == (8, 6, 3) and rgb.dtype == np.uint8
    assert rgb[-1].sum() > rgb[0].sum()
    np.testing.assert_array_equal(rgb[0, 0], rgb[0, 1])
    assert x[0, 0] == 1.0  # the input is left alone


def test_brightness_grows_with_level():
    """A perceptual map: luminance never falls."""
    luminance = colour(np.linspace(0, 1, 256)[None]).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance[0]) >= -0.75).all() and luminance[0, -1] > 200


def test_a_long_spectrogram_is_averaged_not_thinned():
    x = np.zeros((128, 1293), np.float32)
    x[:, 700] = 1.0
    small = shrink(x)
    assert small.shape == (128, 640)
    assert small.sum() > 0 and small.max() in (0.5, pytest.approx(1 / 3))
    assert shrink(x[:, :64]) is not None and shrink(x[:, :64]).shape == (128, 64)


@pytest.mark.parametrize(("n", "expected"), [(1, (1, 1)), (2, (1, 2)), (6, (2, 3)), (12, (3, 5)), (40, (7, 6))])
def test_tiles(n, expected):
    shades, tiles = tile(np.ones((n, 16, 16)))
    assert tiles == expected and tiles[0] * tiles[1] >= n
    assert shades.shape == (tiles[0] * 18 - 2, tiles[1] * 18 - 2)
    assert (shades == 255).sum() == n * 256


def test_files_can_be_read_back():
    import soundfile

    assert Image.open(io.BytesIO(png(np.ones((64, 64)), 256))).size == (256, 256)
    wave, rate = soundfile.read(io.BytesIO(sound_bytes(0.5 * np.sin(np.arange(66_150) / 9), 22_050, seconds=2.0)))
    assert rate == 22_050 and abs(len(wave) / rate - 2.0) < 0.1 and np.abs(wave).max() > 0.3


@pytest.mark.parametrize("fe", [TINY, COMPACT, FULL], ids=lambda fe: fe.name)
def test_frequency_ticks_rise_inside_the_picture(fe):
    at = [t for t, _ in hz_ticks(fe)]
    assert len(at) >= 4 and at == sorted(at) and at[0] > 0 and at[-1] < 1


def test_a_strip_needs_no_pyplot():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    fig, axes = strip([np.ones((16, 16)), np.zeros((16, 16))], ["$x", HOSTILE], TINY, "50 $ of")
    fig.savefig(io.BytesIO())
    assert len(axes) == 2 and plt.get_fignums() == before


# --- the bundle ---


def test_the_bundle_holds_the_live_widget_and_the_offline_player(view):
    bundle = view._repr_mimebundle_()
    assert bundle[LIVE]["model_id"] == view.live().box.model_id
    assert bundle["text/html"] == view._repr_mimebundle_()["text/html"]  # made once
    assert Image.open(io.BytesIO(view.strip())).width > 500


def test_where_nobody_looks_a_view_is_a_picture(view, monkeypatch):
    monkeypatch.setenv(NO_PLAYERS, "1")
    shown = view._repr_mimebundle_()
    assert set(shown) == {"text/plain", "text/html"} and "<img" in shown["text/html"]
    assert "<script" not in shown["text/html"]


def test_the_offline_player_asks_for_nothing_and_moves(view):
    html = view.offline()
    assert not re.search(r"""(?:src|href)=["'](?!data:)|https?://|@import|url\(|import\s*\(""", html)
    data = offline_data(html)
    levels = [p.mean() for p in frame_pixels(data, 0, 0)]
    assert 9 <= len(levels) <= 10 and (np.diff(levels) > 4).all()
    slider, choice = data["scenes"][0]["controls"]
    assert slider["values"][slider["start"]] == 0.05  # the start, on the grid, is one of the positions
    halves = [p.mean() for p in frame_pixels(data, 0, 1)]
    assert halves[0] == pytest.approx(2 * halves[1], abs=3) and not choice["slider"]
    sounds = data["scenes"][0]["sounds"]
    assert len(sounds) >= 3 and all(s["src"].startswith("data:audio/mpeg;base64,") for s in sounds)
    extra = data["scenes"][0]["extras"][0]
    assert extra["src"].startswith("data:audio/mpeg") and extra["control"] == 0


def test_every_kept_scene_has_its_own_start_and_frames(store):
    data = offline_data(two_scenes(store).offline())
    assert data["choices"][0]["options"] == ["low", "high"]  # two of three are kept, the start among them
    for scene, level in zip(data["scenes"], (0.2, 0.7), strict=True):
        control = scene["controls"][0]
        assert control["values"][control["start"]] == level
        start = pixels(data["pictures"][control["frames"][control["start"]]["picture"]])
        assert start.mean() == pytest.approx(255 * level, abs=3)
    assert len(data["pictures"]) < sum(len(s["controls"][0]["frames"]) for s in data["scenes"])  # each picture once


def test_hostile_labels_are_text(view):
    html = view.offline()
    data = offline_data(html)
    outside = html.replace(re.search(r'<script type="application/json">.*?</script>', html, re.S)[0], "")
    assert "<img src=x" not in html and "<script>alert" not in html
    assert "&lt;img src=x" in outside
    assert data["scenes"][0]["controls"][0]["label"] == HOSTILE and HOSTILE in data["setup"]["title"]
    assert "innerHTML" not in html
    for widget in view.live().inputs.values():
        assert not widget.description_allow_html


def test_a_view_that_would_be_too_large_is_thinned(store):
    rng = np.random.default_rng(0)
    noise, asked = rng.random((48, 128, 640)).astype(np.float32), set()
    big = SpectrogramView(
        lambda v: asked.add(v["a"]) or noise[int(v["a"])],
        [Slider("a", "a", 0, 47, 1, 5, 48)], TINY, store.fit_scaler(), "noise",
        sound=lambda v, tile: (rng.normal(size=22_050 * 60).astype(np.float32) / 5, 22_050), offline_sounds=50,
    )  # fmt: skip
    data = offline_data(big.offline())
    assert len(big.offline()) < 1.05 * MOST_BYTES
    values = data["scenes"][0]["controls"][0]["values"]
    assert 5 in values and {0, 47} <= set(values) and len(values) < 48
    assert set(values) <= asked and len(asked) < 48  # what would be left out is not even made


# --- live ---


def test_a_move_from_another_thread_changes_the_picture(view):
    live = view.live()
    before = live.figure.frame
    thread = threading.Thread(target=lambda: setattr(live.inputs["a"], "value", 0.8))
    thread.start()
    thread.join()
    assert live.figure.frame["shades"] != before["shades"]
    assert len(live.figure.frame["shades"]) == np.prod(live.figure.frame["shape"])
    assert "0.8" in live.figure.frame["caption"]


def test_many_threads_leave_the_last_values_on_screen(view):
    live = view.live()
    threads = [
        threading.Thread(target=lambda v=v: setattr(live.inputs["a"], "value", v)) for v in view.controls[0].positions()
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert live.figure.frame["shades"] == view.frame(live.values)["shades"].tobytes()


def test_the_sound_comes_when_the_pointer_lets_go(view):
    live = view.live()
    live.figure.held = True
    live.inputs["a"].value = 0.55
    time.sleep(0.4)
    assert not live.figure.sound  # still under the finger
    live.figure.held = False
    assert wait_for(lambda: live.figure.sound.get("data"))
    assert live.figure.sound["aloud"]


def test_keys_sound_after_a_pause_and_only_when_asked(view):
    live = view.live()
    live.inputs["a"].value = -0.45
    assert wait_for(lambda: live.figure.sound.get("data"))
    first = live.figure.sound
    live.play.value = False
    live.inputs["a"].value = 0.55
    time.sleep(0.5)
    assert live.figure.sound is first


def test_frames_are_sent_ahead_the_nearest_first(view, monkeypatch):
    live, sent = view.live(), []
    monkeypatch.setattr(live.figure, "send", lambda content, buffers: sent.append((content, buffers)))
    press(live, do="ahead", slider="a")
    assert wait_for(lambda: sum(len(content["frames"]) for content, _ in sent) == 41)
    frames = [f for content, _ in sent for f in content["frames"]]
    at = [f["values"]["a"] for f in frames]
    assert sorted(at) == pytest.approx(np.arange(-1, 1.01, 0.05)) and at[0] == live.values["a"]
    assert np.all(np.diff(np.abs(np.array(at) - at[0])) > -1e-9)
    assert {f["values"]["b"] for f in frames} == {"whole"} and {f["gap"] for f in frames} == {0.05}
    shades = [b for _, buffers in sent for b in buffers]
    for v, data in zip(at, shades, strict=True):
        assert data == view.frame({"a": v, "b": "whole"})["shades"].tobytes()


def test_nothing_is_sent_ahead_once_another_input_has_moved(view, monkeypatch):
    live, sent = view.live(), []
    monkeypatch.setattr(live.figure, "send", lambda content, buffers: sent.append(content))

    def frames(name, values):
        live.inputs["b"].value = HOSTILE
        yield view.frame(values)

    monkeypatch.setattr(view, "ahead", frames)
    live._send_ahead("a")
    assert sent == [{"ahead": "a", "frames": []}]  # so that the page may ask again


def test_few_positions_of_a_large_picture_are_sent_ahead(store, monkeypatch):
    monkeypatch.setattr("vaelib.explore.view.AHEAD_BYTES", 16 * 16 * 7)
    slider = Slider("a", "a", 0.0, 1.0, 0.01, 0.5)
    large = SpectrogramView(lambda v: np.full((16, 16), v["a"]), [slider], TINY, store.fit_scaler(), "large")
    at = [f["values"]["a"] for f in large.ahead("a", {"a": 0.5})]
    assert 5 <= len(at) <= 7 and at[0] == 0.5 and np.diff(sorted(at)) == pytest.approx(np.diff(sorted(at))[0])


def press(live, **message) -> None:
    """What the page sends when a button is pressed."""
    live._on_button(live.figure, {"values": None, **message}, [])


def test_reset_returns_to_the_start(view):
    live = view.live()
    start = live.figure.frame["shades"]
    live.inputs["a"].value, live.inputs["b"].value = 0.55, HOSTILE
    press(live, do="go")
    assert live.values == view.start and live.figure.frame["shades"] == start


def test_a_pinned_setting_comes_back_with_its_picture_and_sound(view):
    live = view.live()
    live.inputs["a"].value = 0.55
    pinned, shades = dict(live.figure.frame["values"]), live.figure.frame["shades"]
    assert "0.55" in live.figure.frame["said"]
    live.inputs["a"].value, live.inputs["b"].value = -0.45, HOSTILE
    assert wait_for(lambda: live.figure.sound.get("data"))
    before = live.figure.sound["data"]
    press(live, do="go", values=pinned)
    assert live.values == pinned and live.figure.frame["shades"] == shades
    assert wait_for(lambda: live.figure.sound["data"] != before)


def test_a_new_scene_moves_the_slider_to_its_start_and_the_reference_with_it(store):
    live = two_scenes(store).live()
    live.inputs["a"].value = 1.0
    first = live.figure.reference["shades"]
    live.inputs["at"].value = "high"
    assert live.inputs["a"].value == 0.7
    assert live.figure.reference["shades"] == live.figure.frame["shades"] != first
    press(live, do="go", values={"at": "low", "a": 0.9})  # a pin of the other scene: not its start, the pinned value
    assert live.values == {"at": "low", "a": 0.9} and live.figure.reference["shades"] == first


def test_an_extra_sends_its_sound_and_the_frames_of_its_walk(view, monkeypatch):
    sent = []
    monkeypatch.setattr(view.live().figure, "send", lambda content, buffers: sent.append((content, buffers)))
    press(view.live(), do="extra", index=0)
    assert wait_for(lambda: sent)
    (content, (sound, frames)), n = sent[0], len(view.controls[0].positions())
    assert content["shape"] == [n, 16, 16] and len(frames) == n * 256 and len(sound) > 500
    levels = np.frombuffer(frames, np.uint8).reshape(n, -1).mean(1)
    assert (np.diff(levels) > 0).all()


def test_the_strip_is_left_as_a_picture(view, tmp_path):
    assert view.save(tmp_path, "slider") is view
    assert Image.open(tmp_path / "slider.png").width > 500


def test_a_sound_that_cannot_be_made_is_said(view):
    def fail(values, tile):
        raise InputError("is not there; correct the manifest")

    view.sound = fail
    view.live().inputs["a"].value = 0.55
    assert wait_for(lambda: "is not there" in view.live().figure.note)
    assert offline_data(view.offline())["scenes"][0]["sounds"] == []


# --- the explorers ---


def test_interpolation_goes_from_one_clip_to_the_other(runs):
    run = runs["conv_vae"]
    a, b, c = (int(r) for r in run.store.rows("test")[:3])
    v = interpolation(run, a, b, steps=5)
    decoded = {row: run.decode(run.encode_clip(row)[0][None])[0] for row in (a, b, c)}
    for t, row in ((0.0, a), (1.0, b)):
        np.testing.assert_allclose(v.render(v.start | {"t": t}), decoded[row], atol=1e-5)
    other = v.controls[1].options[2]  # those given first, then the others of the split
    np.testing.assert_allclose(v.render(v.start | {"t": 1.0, "b": other}), decoded[c], atol=1e-5)
    np.testing.assert_array_equal(v.render(v.start | {"t": 0.25}), v.render(v.start | {"t": 0.25}))


def test_the_path_begins_as_one_clip_and_ends_as_the_other(runs, monkeypatch):
    run = runs["conv_vae"]
    a, b = (int(r) for r in run.store.rows("test")[:2])
    v = interpolation(run, a, b, steps=5)
    inverted = []
    monkeypatch.setattr(v, "to_sound", lambda x, values: inverted.append(x) or (np.zeros(10, np.float32), 22_050))
    v.extras[0].sound(v.start)
    np.testing.assert_allclose(inverted[0][:, 0], v.render(v.start | {"t": 0.0})[:, 0], atol=1e-6)
    np.testing.assert_allclose(inverted[0][:, -1], v.render(v.start | {"t": 1.0})[:, -1], atol=1e-6)
    for extra, row in zip(v.extras[1:], (a, b), strict=True):
        wave, rate = extra.sound(v.start)
        np.testing.assert_array_equal(wave, middle_sound(run, row))
        assert rate == TINY.sample_rate


def middle_sound(run, row: int) -> np.ndarray:
    """What is heard of the window that a model is given."""
    start = TINY.hop * round((int(run.store.table.loc[row, "n_frames"]) - TINY.frames) / 2)
    return load(run.store.audio_path(row), TINY).numpy()[start : start + TINY.frames * TINY.hop]


@pytest.fixture
def named(monkeypatch):
    """Three live dimensions; the second is a fader that falls when z rises."""
    found = {3: Meaning("energy", 0.5), 1: Meaning("drums", 0.6, "dB", -6.0, -4.0), 0: Meaning("", 0.1)}
    monkeypatch.setattr("vaelib.explore.views.live_dimensions", lambda run: np.array(list(found)))
    monkeypatch.setattr("vaelib.explore.views.meanings", lambda run: found)


def test_traversal_starts_at_the_clip_and_each_slider_moves_its_dimension(runs, named):
    run = runs["conv_vae"]
    row, other = (int(r) for r in run.store.rows("test")[:2])
    v = traversal(run, row, most=2)
    assert [c.label for c in v.controls] == ["start from", "z3 · energy", "z1 · drums (dB)"]
    assert v.title == "conv_vae: move one dimension at a time (2 of 3 live ones)"
    start = v.render(v.start)
    np.testing.assert_allclose(start, run.decode(run.encode_clip(row)[0][None])[0], atol=1e-5)  # grid or not: its code
    for c in v.controls[1:]:
        assert not np.allclose(v.render(v.start | {c.name: c.snap(c.high)}), start)
    np.testing.assert_array_equal(v.render(v.start), start)  # no trace of the moves before
    there = v.start_of(v.start | {"clip": v.controls[0].options[1]})
    np.testing.assert_allclose(v.render(there), run.decode(run.encode_clip(other)[0][None])[0], atol=1e-5)


def test_a_slider_named_after_a_fader_stands_on_its_scale(runs, named):
    run = runs["conv_vae"]
    row = int(run.store.rows("test")[0])
    v = traversal(run, row)
    fader, code = v.controls[2], run.encode_clip(row)[0]
    assert fader.step == 0.5 and abs(v.start["z1"] - (-4 - 6 * code[1])) <= 0.25
    up = code.copy()
    up[1] -= 3 / 6  # dB
    found = v.render(v.start | {"z1": v.start["z1"] + 3})
    np.testing.assert_allclose(found, run.decode(up[None])[0], atol=1e-5)


def test_the_original_is_seen_and_heard_beside_its_decoding(runs, named):
    run = runs["conv_vae"]
    row, other = (int(r) for r in run.store.rows("test")[:2])
    v = traversal(run, row)
    there = v.start_of(v.start | {"clip": v.controls[0].options[1]})
    wave, _ = v.extras[0].sound(there)
    np.testing.assert_array_equal(wave, middle_sound(run, other))
    np.testing.assert_array_equal(v.path(0, there)[0], tile(run.encode_clip(other)[1])[0])
    v.sound = lambda values, tile: (np.zeros(4000, np.float32), 22_050)  # so few frames cannot be inverted
    data = offline_data(v.offline())
    kept = data["scenes"][0]["extras"][0]
    own = pixels(data["pictures"][kept["picture"]]).astype(int)
    assert np.abs(own - tile(run.encode_clip(row)[1])[0].astype(int)).mean() < 8  # WebP


def test_clips_of_the_same_file_name_are_told_apart(runs, monkeypatch):
    run = runs["conv_vae"]
    monkeypatch.setattr("vaelib.explore.views.clip_name", lambda store, row: "track.mp3")
    options = traversal(run, int(run.store.rows("test")[0])).controls[0].options
    assert len(set(options)) == len(run.store.rows("test"))


def test_a_conditional_run_decodes_with_a_chosen_class(runs):
    row = int(runs["cvae"].store.rows("test")[0])
    v = traversal(runs["cvae"], row)
    names = v.controls[-1].options
    assert not np.allclose(v.render(v.start | {"class": names[0]}), v.render(v.start | {"class": names[1]}))


def test_class_sampler_draws_as_many_as_asked_and_repeats_a_seed(runs):
    v = class_sampler(runs["cvae"], n=8)
    assert v.render(v.start | {"n": 3}).shape == (3, *TINY.shape)
    np.testing.assert_array_equal(v.render(v.start), v.render(v.start))
    assert not np.allclose(v.render(v.start), v.render(v.start | {"seed": 1}))
    from vaelib.explore.views import EVERY_CLASS

    every = v.start | {"show": EVERY_CLASS, "seed": 3}
    x, names = v.render(every), runs["cvae"].config.model.classes
    assert len(x) == len(names) and v.frame(every)["labels"] == list(names)
    for c in range(len(names)):  # the same z: each tile is that class's first sample of that seed
        np.testing.assert_allclose(x[c], runs["cvae"].sample(1, [c], 1.0, 3)[0], rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="no classes"):
        class_sampler(runs["conv_vae"])


def test_component_view_shows_mean_samples_and_members(runs):
    run = runs["vade"]
    v = component_view(run, n=3, most=5)
    heaviest, log_gamma = v.controls[0].options, run.log_responsibilities("test")
    for option in heaviest:
        for show in v.controls[1].options:
            f = v.frame({"component": option, "show": show})
            assert f["count"] == max(1, len(f["labels"])) or show in ("samples", "mean, decoded")
    assert sum(int(re.search(r"(\d+) clips", o)[1]) for o in heaviest) == len(run.store.rows("test"))
    fullest = max(heaviest, key=lambda o: int(re.search(r"(\d+) clips", o)[1]))
    c = int(fullest.split(":")[0])
    inside = np.flatnonzero(log_gamma.argmax(1) == c)
    margin = np.sort(log_gamma[inside], 1) @ np.array([0, 0, -1, 1])  # of four components
    surest = run.store.rows("test")[inside[margin.argmax()]]
    values = {"component": fullest, "show": "most certain clips"}
    wave, _ = v.sound(values, 0)
    np.testing.assert_array_equal(wave, load(run.store.audio_path(surest), run.store.front_end).numpy())
    assert run.store.table.loc[surest, "path"].rsplit("/", 1)[-1] in v.caption(values)
    most, least = (v.caption({"component": fullest, "show": f"{which} certain clips"}) for which in ("most", "least"))
    most, least = (set(re.findall(r"\S+\.flac", words)) for words in (most, least))
    assert most and least and not most & least  # no clip is both
    with pytest.raises(InputError, match="no mixture"):
        component_view(runs["conv_vae"])
