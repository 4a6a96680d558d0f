"""The ledger's page and the pictures that compare: everything inside the page, nothing over anything else."""

import itertools

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import TINY
from matplotlib.colors import to_rgba
from matplotlib.text import Text
from scipy.cluster.hierarchy import linkage
from test_plots import FORMULA, ODD

from vaelib import plots
from vaelib.plots import ledger as page
from vaelib.plots.comparing import _spread

RNG = np.random.default_rng(0)
ROW = {
    "id": "B1", "claim": "Interpolation is smooth", "metric": "largest step / mean step", "expected": "smooth",
    "rung": "loops", "how": "value", "direction": "above", "threshold_low": 1.0, "threshold_high": 1.0, "value": 2.0,
    "low": 1.5, "high": 2.5, "baseline": 0.8, "null": 0.5, "n": 3, "verdict": "supported", "reason": "",
}  # fmt: skip
UNTESTED = {
    **ROW,
    **dict.fromkeys(("value", "low", "high", "baseline", "null"), np.nan),
    "n": 0,
    "verdict": "not tested",
}
SWEEP = pd.DataFrame({
    "beta": [1, 1, 4, 4], "seed": [0, 1, 0, 1], "mse": [1.0, 2, 3, 5], "mig": [0.1, 0.3, 0.2, 0.4],
    "mig_rotated": [0.1] * 4, "mig_null": [0.01] * 4, "live": [9, 7, 4, 2],
})  # fmt: skip


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def ledger(*changes: dict) -> pd.DataFrame:
    return pd.DataFrame([{**ROW, **c} for c in changes])


RUNGS = ("desk", "loops", "loops, full range")


def climbed(models=("a", "b"), rungs=RUNGS, baseline="b") -> pd.DataFrame:
    """Two seeds of every model on every rung; `ari` falls from rung to rung, `mig` does not."""
    rows = itertools.product(models, range(len(rungs)), (0, 1))
    return pd.DataFrame([
        {"model": m, "baseline": m == baseline, "rung": rungs[i], "seed": s, "ari": 1 - i / 4 + 0.1 * s, "mig": 0.1}
        for m, i, s in rows
    ])  # fmt: skip


def every(text: str) -> dict:
    """Each function, called with `text` wherever it takes words."""
    words = dict.fromkeys(("id", "claim", "metric", "expected", "reason"), text)
    clips = pd.DataFrame({"component": [0, 0, 1], "family": [text, "b", "b"], "genre": [text, text, "c"]})
    return {
        "claims": lambda: plots.claims(ledger(words, {**UNTESTED, **words, "verdict": text})),
        "sweep": lambda: plots.sweep(SWEEP),
        "ladder": lambda: plots.ladder(climbed((text, "b"), (text, "y")), {"ari": text}, {"ari": {text: 0.4}}),
        "kl_spectrum": lambda: plots.kl_spectrum({text: np.array([0.3, 0.0]), "b": np.zeros(2)}, 0.05),
        "dendrogram": lambda: plots.dendrogram(linkage([[0.0], [1], [5]]), [text, "b", "c"], [text, "y", text], text),
        "contents": lambda: plots.contents(clips, text),
        "error_map": lambda: plots.error_map({text: RNG.uniform(size=(16, 16)), "b": np.zeros((16, 16))}, TINY, text),
        "error_by_band": lambda: plots.error_by_band({text: RNG.uniform(size=16), "b": np.zeros(16)}, TINY),
    }


def texts(figure) -> list[str]:
    return [t.get_text().replace(r"\$", "$") for t in figure.findobj(Text) if t.get_text().strip()]


def boxes(figure) -> list:
    """Where the words of a picture are, in pixels; those over another, or outside, are mistakes."""
    figure.draw_without_rendering()
    hidden = set()  # labels of ticks beyond the axes' ends exist, but are not drawn
    for axis in [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        outside = [t for t in axis.get_major_ticks() if not low <= t.get_loc() <= high]
        hidden |= {label for t in outside for label in (t.label1, t.label2)}
    shown = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible() and t not in hidden]
    return [Text.get_window_extent(t) for t in shown]  # an annotation's own extent would include its arrow


def assert_readable(figure) -> None:
    found = boxes(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for box in found:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    for a, b in itertools.combinations(found, 2):
        over = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(over) < 3, (a, b)  # glyphs need less than their line's height


def test_every_public_function_is_tried_here():
    public = {
        n for n in plots.__all__ if getattr(plots, n).__module__ in ("vaelib.plots.ledger", "vaelib.plots.comparing")
    }
    assert public - {"comparison"} == set(every("a"))  # tried in test_plots


@pytest.mark.parametrize("name", every("a"))
def test_a_picture_comes_back_and_can_be_saved(name, tmp_path):
    figure, axes = every("plain")[name]()
    assert all(a.figure is figure for a in np.ravel(axes))
    figure.savefig(tmp_path / "x.png", dpi=40)
    assert plt.imread(tmp_path / "x.png").std() > 0.01


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
@pytest.mark.parametrize("name", sorted(set(every("a")) - {"sweep"}))
def test_a_hostile_label_is_drawn_as_it_is(name):
    figure, _ = every(FORMULA)[name]()
    figure.draw_without_rendering()
    start = FORMULA[:15]  # a long label may be cut or continued
    drawn = [t for t in figure.findobj(Text) if start in t.get_text().replace(r"\$", "$")]
    assert drawn and not any(t._preprocess_math(t.get_text())[1] for t in drawn)  # read as text, not as a formula


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
@pytest.mark.parametrize("name", sorted(set(every("a")) - {"sweep"}))
@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_long_and_odd_labels_do_not_stop_a_picture(name, text):
    figure, _ = every(text)[name]()
    figure.draw_without_rendering()


# --- the page of claims ---


@pytest.mark.parametrize("text", [*ODD.values(), "W" * 200, "many words " * 30], ids=[*ODD, "wide", "words"])
def test_no_text_of_the_page_leaves_its_column(text):
    words = dict.fromkeys(("id", "claim", "metric", "expected", "reason"), text)
    large = {"value": -1234567.0, "low": -2345678.0, "high": 3456789.0, "null": -1e-30}
    figure, _ = plots.claims(ledger(words, {**words, **large, "id": "V1"}, {**UNTESTED, **words, "id": "Z"}))
    assert_readable(figure)


def test_rows_stand_under_their_model_and_repeat_no_claim():
    rows = ledger({"id": "G1", "claim": "last"}, {}, {"metric": "second metric"}, {"id": "?", "claim": "no model's"})
    figure, _ = plots.claims(rows)
    shown = texts(figure)
    order = [shown.index(s) for s in ("Basic VAE", ROW["claim"], "second metric", "VaDE", "last", "Other claims")]
    assert order == sorted(order) and shown.count(ROW["claim"]) == shown.count("B1") == 1
    assert shown.count("✓ supported") == 4 and "✓ 4 supported" in shown and "✗ 0 refuted" in shown
    assert shown.count("2.00 [1.50, 2.50]") == 4 and shown.count("baseline 0.800 · null 0.500") == 4
    assert shown.count("n = 3 · loops") == 4
    shown = texts(plots.claims(ledger({"how": "difference", "baseline": 90.0}))[0])
    assert "against 90.0 · null 0.500" in shown


def marks(ax) -> dict:
    """Of a page of one row: x of the threshold's lines, of interval, mean and null."""
    own = [line for line in ax.lines if line.get_color() != "#dddddd"]
    lines = [line.get_xdata() for line in own if line.get_marker() == "None"]
    return {
        "thresholds": sorted(x[0] for x in lines if x[0] == x[1]),
        "interval": [x for x in lines if x[0] != x[1]],
        "marks": {m.get_marker(): float(np.ravel(m.get_xdata())[0]) for m in own if m.get_marker() != "None"},
    }  # fmt: skip


def shade(ax) -> list[tuple[float, float]]:
    found = [p for p in ax.patches if p.get_facecolor() == to_rgba(page.SHADE)]
    return [(p.get_x(), p.get_x() + p.get_width()) for p in found]


LEFT, RIGHT = page.STRIP, page.EXPECTED - page.GAP


@pytest.mark.parametrize("direction", ["above", "below", "within"])
def test_the_strip_shows_threshold_interval_and_null_on_its_own_scale(direction):
    high = 3.0 if direction == "within" else 1.0
    _, ax = plots.claims(ledger({"direction": direction, "threshold_high": high}))
    at = marks(ax)
    first, last = at["thresholds"][0], at["thresholds"][-1]
    (interval,), dot, null = at["interval"], at["marks"]["o"], at["marks"]["D"]
    assert LEFT < null < at["marks"]["s"] < first < interval[0] < dot < interval[1] < RIGHT
    assert dot - first == pytest.approx(2 * (first - null)) and len(at["thresholds"]) == 1 + (direction == "within")
    (shaded,) = shade(ax)
    assert shaded == pytest.approx(
        {"above": (first, RIGHT), "below": (LEFT, first), "within": (first, last)}[direction]
    )


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_scale_of_a_row_follows_its_numbers(scale):
    _, ax = plots.claims(ledger({k: ROW[k] * scale for k in page.NUMBERS[:-1]}))
    _, plain = plots.claims(ledger({}))
    assert marks(ax)["marks"] == pytest.approx(marks(plain)["marks"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"value": np.inf, "high": np.inf}, {">": RIGHT}),
        ({"null": -np.inf}, {"<": LEFT}),
        ({"low": np.nan, "high": np.nan, "null": np.nan}, {"o": None}),
        ({"threshold_low": np.nan, "threshold_high": np.nan}, {"o": None}),
        ({"threshold_high": np.inf, "direction": "within"}, {"o": None}),
        (
            dict.fromkeys(page.NUMBERS[:-1], 0.0),
            {"o": (LEFT + RIGHT) / 2},
        ),
        ({"direction": "sideways"}, {"o": None}),
    ],
    ids=["infinite value", "infinite null", "one seed", "no threshold", "open range", "all the same", "no direction"],
)
def test_missing_and_infinite_numbers(change, expected):
    figure, ax = plots.claims(ledger(change))
    assert_readable(figure)
    found = marks(ax)["marks"]
    for marker, x in expected.items():
        assert marker in found and LEFT <= found[marker] <= RIGHT
        assert x is None or found[marker] == pytest.approx(x)
    assert not any("nan" in t for t in texts(figure))


def test_what_was_not_tested_says_why_and_has_no_strip():
    rows = ledger({**UNTESTED, "reason": "no vade run"}, {**UNTESTED, "reason": np.nan, "metric": "x"})
    figure, ax = plots.claims(rows)
    assert {"no vade run", "no value", "– 2 not tested"} <= set(texts(figure)) and not marks(ax)["marks"]
    assert not any(t.startswith(("null ", "n = ")) for t in texts(figure))
    assert_readable(figure)
    assert_readable(plots.claims(rows.iloc[:0])[0])


def test_a_page_of_sixty_claims_is_portrait_and_readable():
    rows = [
        {"id": f"{m}{i}", "claim": f"claim {m}{i}", "verdict": v}
        for m in page.GROUPS for i, v in enumerate([*page.VERDICTS, "supported", "refuted"])
    ]  # fmt: skip
    figure, _ = plots.claims(ledger(*rows))
    width, height = figure.get_size_inches() * 110
    assert 1400 <= width <= 1800 and width < height < 2.2 * width
    assert_readable(figure)
    assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text()) >= 8


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.21, "0.210"),
        (-0.0018, "−0.0018"),
        (1484.4, "1,484"),
        (1e-7, "1e−07"),
        (np.inf, "∞"),
        (-np.inf, "−∞"),
    ],
)
def test_numbers_are_short(value, text):
    assert page._number(value) == text


def test_a_counted_quantity_has_no_interval_and_two_ends_share_their_decimals():
    assert page._measured({"value": 4.58, "low": 4.58, "high": 4.58}) == "4.58"
    assert page._measured({"value": 0.5, "low": np.nan, "high": np.nan}) == "0.500"
    assert page._measured({"value": 0.011, "low": -0.0001, "high": 0.02}) == "0.011 [−0.000, 0.020]"


# --- comparing ---


def test_a_sweep_has_a_mean_line_over_its_seeds_for_every_control():
    _, axes = plots.sweep(SWEEP)
    assert [len(a.lines) for a in axes] == [2, 6, 2]
    assert axes[0].lines[0].get_ydata().tolist() == [1, 2, 3, 5] and axes[0].lines[1].get_ydata().tolist() == [1.5, 4]
    assert axes[0].lines[1].get_xdata().tolist() == [1, 4] and axes[0].get_xscale() == "log"
    means = axes[1].lines[1::2]
    assert len({(line.get_linestyle(), line.get_marker(), line.get_color()) for line in means}) == 3
    assert len({line.get_linestyle() for line in means}) == len({line.get_marker() for line in means}) == 3
    assert [t.get_text() for t in axes[2].get_xticklabels()] == ["1", "4"]


def test_a_sweep_without_controls_or_with_zero_leaves_no_empty_panel():
    figure, axes = plots.sweep(SWEEP.drop(columns=["live", "mig_null"]).assign(beta=[0, 0, 2, 2], mig=np.nan))
    assert len(axes) == 2 and axes[0].get_xscale() == "symlog"
    figure.draw_without_rendering()


@pytest.mark.parametrize("n", [1, 4, 9, 16])
def test_lines_of_the_ladder_are_named_without_overlap(n):
    table = climbed([f"a rather long model {i}" for i in range(n)])  # all end at the same height
    figure, axes = plots.ladder(table.assign(r2=np.nan), {"ari": "ARI", "r2": "R²", "mig": "MIG"})
    figure.draw_without_rendering()
    assert axes.size == 2  # no panel without a value
    for ax in axes.flat:
        found = sorted((Text.get_window_extent(t) for t in ax.texts), key=lambda b: b.y0)
        assert len(found) == n and all(b.y0 - a.y1 > -3 for a, b in itertools.pairwise(found))
        assert found[0].y0 >= 0 and found[-1].y1 <= figure.bbox.height and max(b.x1 for b in found) <= figure.bbox.width


def test_the_ladder_shows_seeds_means_and_the_expected_score_rung_by_rung():
    table = climbed(("a", "b", "early"))
    table.loc[(table["model"] == "early") & (table["rung"] != "desk"), "ari"] = np.nan
    _, axes = plots.ladder(table, {"ari": "ARI", "mig": "MIG"}, {"ari": {"a": 0.71, "absent": 0.1}})
    ax = axes.flat[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["desk", "loops", "loops,\nfull range"]
    dots, mean, expected = ax.lines[:3]
    assert len(dots.get_xdata()) == 6 and mean.get_ydata() == pytest.approx([1.05, 0.8, 0.55])
    assert expected.get_ydata() == [0.71, 0.71] and expected.get_linestyle() == "--"
    assert {t.get_text() for t in ax.texts} == {"a, 0.71 expected", "b", "early"}
    early = next(t for t in ax.texts if t.get_text() == "early")
    assert early.xy[0] == 0 and early.arrow_patch is None  # named where it ends: no pointer that looks like data
    grey, colour = ({line.get_color() for line in ax.lines if line.get_label() == name} for name in "ba")
    assert len(set(to_rgba(grey.pop())[:3])) == 1 != len(set(to_rgba(colour.pop())[:3]))
    assert len(axes.flat[1].lines) == 6


def test_baselines_of_the_ladder_are_told_apart_where_their_ends_meet():
    table = climbed(("a", *"pqrs"))
    _, axes = plots.ladder(table.assign(baseline=table["model"] != "a"), {"ari": "ARI"})
    lines = {line.get_label(): line for line in axes.flat[0].lines if line.get_label() in tuple("apqrs")}
    assert len({str(line._dash_pattern) for line in lines.values()}) == len(lines) == 5
    named = [t.get_text() for t in axes.flat[0].texts]
    assert sorted(named) == sorted(["a", *"pqrs" * 2])  # at both ends


@pytest.mark.parametrize(
    ("heights", "gap", "expected"),
    [
        ([0.1, 0.9], 0.2, [0.1, 0.9]), ([0.5, 0.5], 0.2, [0.4, 0.6]), ([0.0, 0.0, 0.0], 0.1, [0, 0.1, 0.2]),
        ([1.0, 0.99], 0.1, [1, 0.9]), ([], 0.1, []),
    ],
)  # fmt: skip
def test_names_are_moved_apart_in_their_order(heights, gap, expected):
    assert _spread(np.array(heights), gap) == pytest.approx(expected)


def test_the_spectrum_is_sorted_and_counts_what_lives():
    figure, ax = plots.kl_spectrum({"a": np.array([0.0, 2.0, 0.06, -1e-9]), "b": np.array([np.nan])}, 0.05)
    assert ax.lines[0].get_ydata().tolist() == [2.0, 0.06, 0.0005, 0.0005] and ax.get_yscale() == "log"
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["a: 2 of 4 live", "b: 0 of 1 live", "live above 0.05 nats"]
    assert ax.lines[-1].get_ydata() == [0.05, 0.05] and ax.lines[-1].get_linestyle() == ":"


def test_leaves_and_pure_branches_have_the_colour_of_their_family():
    tree = linkage(np.array([[0.0], [0.1], [5], [5.3], [20]]))
    families = ["folk", "folk", "pop", "folk", "pop"]
    figure, ax = plots.dendrogram(tree, list("abcde"), families, "tree")
    colours = {t.get_text(): t.get_color() for t in ax.get_yticklabels()}
    assert colours["a"] == colours["b"] == colours["d"] != colours["c"] == colours["e"]
    branches = [line for c in ax.collections for line in [tuple(map(tuple, c.get_colors()))]]
    assert (to_rgba(colours["a"]),) in branches  # a and b, both folk; the mixed ones are grey
    assert_readable(figure)


@pytest.mark.parametrize("n", [1, 2, 45])
def test_trees_of_any_size(n):
    tree = linkage(RNG.normal(size=(n, 3))) if n > 1 else np.zeros((0, 4))
    figure, ax = plots.dendrogram(
        tree, [f"english_power_ballad_{i}" for i in range(n)], [f"f{i % 9}" for i in range(n)]
    )
    assert len(ax.get_yticklabels()) == n
    assert_readable(figure)


def test_contents_are_shares_that_fill_the_bar():
    clips = pd.DataFrame({
        "component": [7] * 4 + [2] + [5] * 2, "family": ["pop"] * 3 + ["folk"] + ["pop"] + ["folk", None],
        "genre": ["a", "b", "b", "c", "a", "c", None],
    })  # fmt: skip
    _, ax = plots.contents(clips)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["5  (2)", "2  (1)", "7  (4)"]  # folk, pop; the purest first
    widths = np.reshape([p.get_width() for p in ax.patches], (3, 3))  # family, cluster
    assert widths.tolist() == [[0.5, 0, 0.25], [0, 1, 0.75], [0.5, 0, 0]]
    assert [t.get_text() for t in ax.texts] == ["c 50%", "a 100%", "b 50%"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["folk", "pop", "unknown"]


def test_the_contents_of_fifty_clusters_are_readable():
    n = 360
    clips = pd.DataFrame({"component": RNG.integers(0, 50, n), "family": [f"family {i % 9}" for i in range(n)]})
    assert_readable(plots.contents(clips.assign(genre="english_power_ballad"), "title")[0])


def test_error_maps_share_their_scale():
    low = RNG.uniform(size=(16, 16))
    figure, axes = plots.error_map({"a": low, "b": 3 * low, "c": np.full((16, 16), np.nan)}, TINY, "title")
    assert {a.images[0].get_clim() for a in axes} == {(0, 3 * low.max())}
    assert [a.get_title() for a in axes] == ["a", "b", "c"] and figure.get_suptitle() == "title"
    _, ax = plots.error_map(low, TINY, "one")
    assert ax.get_title() == "one" and np.array_equal(ax.images[0].get_array(), low)


def test_the_error_by_band_is_in_hertz():
    _, ax = plots.error_by_band({"a": np.arange(16.0), "b": np.ones(16)}, TINY)
    x = ax.lines[0].get_xdata()
    assert x[0] > 50 and 8000 < x[-1] < 11025 and (np.diff(x) > 0).all() and ax.get_ylim()[0] == 0
    assert ax.lines[0].get_ydata().tolist() == list(range(16))
    assert "1k" in [t.get_text() for t in ax.get_xticklabels()]
