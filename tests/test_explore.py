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

from vaelib.config import COMPACT, FULL, InputError
from vaelib.explore import (
    Choice,
    Slider,
    SpectrogramView,
    class_sampler,
    clip_browser,
    colour,
    component_view,
    interpolation,
    png,
    shrink,
    sound_bytes,
    strip,
    traversal,
)  # fmt: skip
from vaelib.explore.offline import MOST_BYTES
from vaelib.explore.picture import hz_ticks, tile
from vaelib.runs import fit, plan

LIVE = "application/vnd.jupyter.widget-view+json"
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def ramp(values: dict) -> np.ndarray:
    """A picture whose brightness is the slider's value."""
    return np.full((16, 16), (values["a"] + 1) / 2, np.float32) * (1.0 if values["b"] == "whole" else 0.5)


@pytest.fixture
def view(store):
    controls = [Slider("a", HOSTILE, -1.0, 1.0, 9, 0.03), Choice("b", "part", ("whole", HOSTILE), "whole")]
    return SpectrogramView(
        ramp, controls, TINY, store.fit_scaler(), f"title {HOSTILE}", caption=lambda v: f"at {v['a']} {HOSTILE}",
        sound=lambda v, tile: (np.full(4000, v["a"], np.float32), 22_050),
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


def wait_for(condition, seconds: float = 8.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def offline_data(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])


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
    assert Image.open(io.BytesIO(view.strip().data)).width > 500


def test_the_offline_player_asks_for_nothing_and_moves(view):
    html = view.offline()
    assert not re.search(r"""(?:src|href)=["'](?!data:)|https?://|@import|url\(|import\s*\(""", html)
    data = offline_data(html)
    levels = [pixels(f["src"]).mean() for f in data["controls"][0]["frames"]]
    assert len(levels) == 9 and (np.diff(levels) > 10).all()
    assert data["controls"][0]["values"][data["controls"][0]["start"]] == 0.03  # the start is one of the positions
    halves = [pixels(f["src"]).mean() for f in data["controls"][1]["frames"]]
    assert halves[0] == pytest.approx(2 * halves[1], abs=3)
    assert len(data["sounds"]) >= 3 and all(s["src"].startswith("data:audio/mpeg;base64,") for s in data["sounds"])


def test_hostile_labels_are_text(view):
    html = view.offline()
    data = offline_data(html)
    outside = html.replace(re.search(r'<script type="application/json">.*?</script>', html, re.S)[0], "")
    assert "<img src=x" not in html and "<script>alert" not in html
    assert "&lt;img src=x" in outside
    assert data["controls"][0]["label"] == HOSTILE and HOSTILE in data["setup"]["title"]
    assert "innerHTML" not in html
    for widget in view.live().inputs.values():
        assert not widget.description_allow_html


def test_a_view_that_would_be_too_large_is_thinned(store):
    rng = np.random.default_rng(0)
    noise = rng.random((24, 128, 640)).astype(np.float32)
    big = SpectrogramView(
        lambda v: noise[int(v["a"])], [Slider("a", "a", 0, 23, 24, 5)], TINY, store.fit_scaler(), "noise",
        sound=lambda v, tile: (rng.normal(size=22_050 * 60).astype(np.float32) / 5, 22_050), offline_sounds=50,
    )  # fmt: skip
    data = offline_data(big.offline())
    assert len(big.offline()) < 1.05 * MOST_BYTES
    assert 5 in data["controls"][0]["values"] and {0, 23} <= set(data["controls"][0]["values"])


# --- live ---


def test_a_move_from_another_thread_changes_the_picture(view):
    live = view.live()
    before = live.figure.frame
    thread = threading.Thread(target=lambda: setattr(live.inputs["a"], "value", 0.78))
    thread.start()
    thread.join()
    assert live.figure.frame["shades"] != before["shades"]
    assert len(live.figure.frame["shades"]) == np.prod(live.figure.frame["shape"])
    assert "0.78" in live.figure.frame["caption"]


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
    live.inputs["a"].value = 0.53
    time.sleep(0.4)
    assert not live.figure.sound  # still under the finger
    live.figure.held = False
    assert wait_for(lambda: live.figure.sound.get("data"))
    assert live.figure.sound["aloud"]


def test_keys_sound_after_a_pause_and_only_when_asked(view):
    live = view.live()
    live.inputs["a"].value = -0.47
    assert wait_for(lambda: live.figure.sound.get("data"))
    first = live.figure.sound
    live.play.value = False
    live.inputs["a"].value = 0.53
    time.sleep(0.5)
    assert live.figure.sound is first


def test_reset_returns_to_the_start(view):
    live = view.live()
    start = live.figure.frame["shades"]
    live.inputs["a"].value, live.inputs["b"].value = 0.53, HOSTILE
    live._on_reset(None)
    assert live.values == view.start and live.figure.frame["shades"] == start


def test_a_sound_that_cannot_be_made_is_said(view):
    def fail(values, tile):
        raise InputError("is not there; correct the manifest")

    view.sound = fail
    view.live().inputs["a"].value = 0.53
    assert wait_for(lambda: "is not there" in view.live().figure.note)
    assert offline_data(view.offline())["sounds"] == []


# --- the explorers ---


def test_interpolation_goes_from_one_clip_to_the_other(runs):
    run = runs["conv_vae"]
    a, b = (int(r) for r in run.store.rows("test")[:2])
    v = interpolation(run, a, b, steps=5)
    for t, row in ((0.0, a), (1.0, b)):
        np.testing.assert_allclose(v.render({"t": t}), run.decode(run.encode_clip(row)[0][None])[0], atol=1e-5)
    np.testing.assert_array_equal(v.render({"t": 0.25}), v.render({"t": 0.25}))


def test_traversal_starts_at_the_clip_and_each_slider_moves_its_dimension(runs):
    run = runs["conv_vae"]
    row = int(run.store.rows("test")[0])
    v = traversal(run, row, [3, 1], {3: "energy"}, steps=7)
    assert [c.label for c in v.controls] == ["z3: energy", "z1"]
    start = v.render(v.start)
    np.testing.assert_allclose(start, run.decode(run.encode_clip(row)[0][None])[0], atol=1e-3)
    for c in v.controls:
        assert not np.allclose(v.render(v.start | {c.name: c.high}), start)
    np.testing.assert_array_equal(v.render(v.start), start)  # no trace of the moves before


def test_a_conditional_run_decodes_with_a_chosen_class(runs):
    row = int(runs["cvae"].store.rows("test")[0])
    v = traversal(runs["cvae"], row, [0], steps=3)
    names = v.controls[-1].options
    assert not np.allclose(v.render(v.start | {"class": names[0]}), v.render(v.start | {"class": names[1]}))


def test_class_sampler_draws_as_many_as_asked_and_repeats_a_seed(runs):
    v = class_sampler(runs["cvae"], n=8)
    assert v.render(v.start | {"n": 3}).shape == (3, *TINY.shape)
    np.testing.assert_array_equal(v.render(v.start), v.render(v.start))
    assert not np.allclose(v.render(v.start), v.render(v.start | {"seed": 1}))
    with pytest.raises(InputError, match="no classes"):
        class_sampler(runs["conv_vae"])


def test_component_view_shows_mean_samples_and_members(runs):
    v = component_view(runs["vade"], n=3)
    heaviest = v.controls[0].options
    for c in heaviest:
        for show in v.controls[1].options:
            x = v.render({"component": c, "show": show})
            assert x.shape[-2:] == TINY.shape and np.isfinite(x).all()
    assert sum(int(re.search(r"(\d+) clips", o)[1]) for o in heaviest) == len(runs["vade"].store.rows("test"))
    with pytest.raises(InputError, match="no mixture"):
        component_view(runs["conv_vae"])


def test_clip_browser_plays_the_clip_itself(store):
    v = clip_browser(store, store.fit_scaler(), most=12)
    assert len(v.controls[0].positions()) == 6 and len(v.controls[1].positions()) == 2
    wave, rate = v.sound(v.start, 0)
    assert rate == TINY.sample_rate and 6.9 < len(wave) / rate < 8
    assert ".flac" in v.caption(v.start)
    assert v.render(v.start).shape[0] == TINY.n_mels
