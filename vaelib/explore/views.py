"""The explorers of the notebooks: each a short function that puts a run behind a `SpectrogramView`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from IPython.display import Audio

from ..config import InputError
from ..factors import Meaning, label, live_dimensions, meanings
from ..metrics.mixture import margins
from ..runs import Run
from ..store import Store
from .controls import Choice, Extra, Slider, Values
from .picture import sound_bytes
from .view import SpectrogramView

Z_RANGE = 2.5  # a dimension is moved this many standard deviations of its aggregate posterior
Z_STEP = 0.05  # at least, in those of the prior


def clip_name(store: Store, row: int) -> str:
    """Genre (or language) and file name of a clip, as text; the label is left out where the file name says it."""
    t = store.table.loc[row]
    file = store.name(row).rsplit("/", 1)[-1]
    kinds = [str(t[c]) for c in ("genre", "language") if t[c] != "unlabelled"]
    return " · ".join([k for k in kinds[:1] if k not in file] + [file])


def own_sound(store: Store, row: int) -> tuple[np.ndarray, int]:
    """The wave (samples,) of a clip's file and its rate."""
    return store.load(row).numpy(), store.front_end.sample_rate


def window_sound(store: Store, row: int) -> tuple[np.ndarray, int]:
    """The wave (samples,) of a clip's middle window, which models are given, and its rate."""
    (wave, rate), fe = own_sound(store, row), store.front_end
    frames = min(int(store.table.loc[row, "n_frames"]), store.heard_frames)
    start = fe.hop * round((frames - fe.frames) / 2)
    return wave[start : start + fe.frames * fe.hop], rate


def player(store: Store, row: int) -> Audio:
    """A player of one clip: of the file, or of the segment that the row stands for."""
    return wave_player(*own_sound(store, row))


def wave_player(wave: np.ndarray, rate: int) -> Audio:
    """A player of a wave (samples,) in [-1, 1]."""
    shown = Audio(data=sound_bytes(wave, rate))
    shown.mimetype = "audio/mpeg"
    return shown


class _Start:
    """The clips that a view can start from, by name; the first one given leads."""

    def __init__(self, run: Run, split: str, *first: int) -> None:
        self.run = run
        self.rows: dict[str, int] = {}
        for r in dict.fromkeys([*map(int, first), *map(int, run.store.rows(split))]):
            name = clip_name(run.store, r)
            self.rows[name if name not in self.rows else f"{name} ({run.store.table.loc[r, 'path']})"] = r
        self.names = {r: name for name, r in self.rows.items()}
        self.encode = cache(lambda name: run.encode_clip(self.rows[name]))

    def choice(self, name: str, label: str, row: int, scenes: int = 3) -> Choice:
        return Choice(name, label, tuple(self.rows), self.names[row], scenes)

    def code(self, name: str) -> np.ndarray:
        return self.encode(name)[0]

    def tone(self, name: str) -> tuple[float, float]:
        t = self.run.store.table.loc[self.rows[name]]
        return float(t["level_db"]), float(t["tilt_db"])

    def own_sound(self, control: str) -> Callable[[Values], tuple[np.ndarray, int]]:
        """The sound of the window that is encoded."""
        return lambda v: window_sound(self.run.store, self.rows[v[control]])


def _class_choice(run: Run, index: int = 0) -> list[Choice]:
    """The class that a conditional run decodes with; nothing for the others."""
    names = run.config.model.classes
    return [Choice("class", run.config.model.condition, names, names[index])] if run.conditional else []


def _decode(run: Run, z: np.ndarray, values: Values) -> np.ndarray:
    y = [run.config.model.classes.index(values["class"])] if run.conditional else None
    return run.decode(z[None], y)[0]


def interpolation(run: Run, row_a: int, row_b: int, split: str = "test", steps: int = 33) -> SpectrogramView:
    """Slide on the straight line between the codes of two clips; hear the path, and the clips themselves.

    Args:
        row_a, row_b: Rows of the store to start with; any clip of the split can be chosen instead.
    """
    clips = _Start(run, split, row_a, row_b)

    def render(v: Values) -> np.ndarray:
        return _decode(run, (1 - v["t"]) * clips.code(v["a"]) + v["t"] * clips.code(v["b"]), v)

    def path(v: Values) -> tuple[np.ndarray, int]:
        """One window long: its first frame is clip A's, its last clip B's, and the walk lies between."""
        walk = np.stack([render(v | {"t": t}) for t in np.linspace(0, 1, steps)])  # (steps, F, T)
        at = np.linspace(0, steps - 1, walk.shape[-1]).round().astype(int)
        return view.to_sound(walk[at, :, np.arange(walk.shape[-1])].T, v)

    view = SpectrogramView(
        render,
        [
            clips.choice("a", "clip A", row_a, scenes=2),
            clips.choice("b", "clip B", row_b, scenes=2),
            Slider("t", "A → B", 0.0, 1.0, round(1 / (steps - 1), 6), 0.0, steps),
            *_class_choice(run, clips.encode(clips.names[row_a])[2]),
        ],
        run.store.front_end,
        run.scaler,
        f"{run.name}: from clip A to clip B",
        caption=lambda v: f"A: {v['a']}  →  B: {v['b']}",
        tone=lambda v: tuple((1 - v["t"]) * np.array(clips.tone(v["a"])) + v["t"] * np.array(clips.tone(v["b"]))),
        extras=[
            Extra("the path", path, "t"),
            Extra("clip A itself", clips.own_sound("a")),
            Extra("clip B itself", clips.own_sound("b")),
        ],
        offline_sounds=3,
    )
    return view


def traversal(run: Run, row: int, most: int = 8, split: str = "test") -> SpectrogramView:
    """One slider per live dimension, from the code of any clip; the original can be seen and heard beside it.

    Sliders are named as in the proofs (`proofs.meanings`), the most informative first. Each moves over mean ± 2.5
    standard deviations of the dimension's aggregate posterior on the test clips; where it starts, the picture is that
    of the clip's own code. A slider that is named after a factor, and follows it in a straight line, stands on the
    factor's scale (a fader in dB), the others on that of the code (standard deviations of the prior).

    Args:
        row: Row of the store to start with; any clip of the split can be chosen instead.
        most: Sliders at most.
    """
    clips = _Start(run, split, row)
    seen, live, found = run.embed(split), live_dimensions(run), meanings(run)
    centre, spread = seen.means.mean(0), np.sqrt(seen.means.var(0) + np.exp(seen.logvars).mean(0))
    first = clips.code(clips.names[row])
    low, high = np.minimum(centre - Z_RANGE * spread, first), np.maximum(centre + Z_RANGE * spread, first)
    dials = {int(d): _Dial.of(int(d), found[int(d)]) for d in live[:most]}
    sliders = {d: dial.slider(low[d], high[d], first[d]) for d, dial in dials.items()}

    def stands(code: np.ndarray, d: int) -> float:
        return sliders[d].snap(dials[d].reading(code[d]))

    def render(v: Values) -> np.ndarray:
        code = clips.code(v["clip"])
        z = code.copy()
        for d, s in sliders.items():  # the slider stands on a grid, the code does not: move by the difference
            z[d] = code[d] + (v[s.name] - stands(code, d)) / dials[d].slope
        return _decode(run, z, v)

    def begin(v: Values) -> Values:
        code, _, label = clips.encode(v["clip"])
        classes = {"class": run.config.model.classes[label]} if run.conditional else {}
        return {s.name: stands(code, d) for d, s in sliders.items()} | classes

    return SpectrogramView(
        render,
        [clips.choice("clip", "start from", row), *sliders.values(),
         *_class_choice(run, clips.encode(clips.names[row])[2])],
        run.store.front_end,
        run.scaler,
        f"{run.name}: move one dimension at a time ({len(sliders)} of {len(live)} live ones)",
        caption=lambda v: f"start: {v['clip']}",
        tone=lambda v: clips.tone(v["clip"]),
        begin=begin,
        extras=[Extra("the original", clips.own_sound("clip"), shows=lambda v: clips.encode(v["clip"])[1])],
        offline_sounds=1 + 2 * len(sliders),
    )  # fmt: skip


class _Dial(NamedTuple):
    """The scale of a slider: its reading is `slope · z + offset`."""

    name: str
    label: str
    slope: float
    offset: float

    @classmethod
    def of(cls, d: int, meaning: Meaning) -> _Dial:
        on_factor = meaning.slope != 0
        unit = f" ({meaning.unit})" if on_factor and meaning.unit else ""
        line = (meaning.slope, meaning.offset) if on_factor else (1.0, 0.0)
        return cls(f"z{d}", label(d, {d: meaning}) + unit, *line)

    def reading(self, z: float) -> float:
        return self.slope * float(z) + self.offset

    def slider(self, low: float, high: float, start: float) -> Slider:
        ends = sorted((self.reading(low), self.reading(high)))
        least = Z_STEP * abs(self.slope)
        step = 10.0 ** math.floor(math.log10(least))
        step = round(next(step * k for k in (1, 2, 5, 10) if step * k >= least * 0.999), 8)
        ends = math.floor(ends[0] / step) * step, math.ceil(ends[1] / step) * step
        return Slider(self.name, self.label, round(ends[0], 4), round(ends[1], 4), step, self.reading(start))


ONE_CLASS, EVERY_CLASS = "one class, several samples", "every class, the same z"


def class_sampler(run: Run, n: int = 12) -> SpectrogramView:
    """Samples of a conditional run: class, how many (up to `n`), temperature, seed; or one z in every class.

    Same seed, same z in every class.

    Raises:
        InputError: the run has no classes.
    """
    if not run.conditional:
        raise InputError(f"{run.name} has no classes to sample from: open a cvae run")
    names = run.config.model.classes
    middle = run.store.table[["level_db", "tilt_db"]].median()

    @lru_cache(maxsize=1)  # the controls that move nothing there need no new ones
    def of_every_class(temperature: float, seed: int) -> np.ndarray:
        return run.sample(len(names), range(len(names)), temperature, seed, shared=True)

    def render(v: Values) -> np.ndarray:
        how = float(v["temperature"]), int(v["seed"])
        if v["show"] == EVERY_CLASS:
            return of_every_class(*how)
        k = int(v["n"])
        return run.sample(k, [names.index(v["class"])] * k, *how)

    return SpectrogramView(
        render,
        [
            Choice("show", "show", (ONE_CLASS, EVERY_CLASS), ONE_CLASS, scenes=2),
            *_class_choice(run),
            Slider("n", "samples", 1, n, 1, min(n, 6)),
            Slider("temperature", "temperature", 0.0, 1.5, 0.1, 1.0),
            Slider("seed", "seed", 0, 20, 1, 0),
        ],
        run.store.front_end,
        run.scaler,
        f"{run.name}: samples of {'languages' if run.config.model.condition == 'language' else 'genres'}",
        caption="Same seed, same z: change the class to hear what the class alone changes.",
        tone=lambda v: (float(middle["level_db"]), float(middle["tilt_db"])),
        tiles=lambda v: names if v["show"] == EVERY_CLASS else (),
    )


SHOWN = ("mean, decoded", "most certain clips", "least certain clips", "members", "samples")


def component_view(run: Run, split: str = "test", n: int = 6, most: int = 18) -> SpectrogramView:
    """The components of a VaDE run, the heaviest first: mean, samples, members, clips it is most and least sure of.

    Clips are ranked by their log-odds against the second likeliest component, which tell them apart where all
    probabilities are rounded to 1; no clip is among the most and among the least certain ones.

    Args:
        n: How many samples, and how many of the most and least certain clips.
        most: How many members, evenly from the most to the least certain.

    Raises:
        InputError: the run has no mixture.
    """
    log_gamma = run.log_responsibilities(split)  # (clip, K); raises for a run without a mixture
    margin = margins(log_gamma)
    store, rows, model = run.store, run.store.rows(split), run.model
    weights = model.log_weights().exp().detach().numpy()
    members = [np.flatnonzero(log_gamma.argmax(1) == c) for c in range(len(weights))]
    members = [m[np.argsort(-margin[m], kind="stable")] for m in members]  # the most certain first
    heaviest = np.argsort(-weights, kind="stable")
    options = tuple(f"{c}: weight {weights[c]:.1%}, {len(members[c])} clips" for c in heaviest)
    means = model.mixture["means"].detach().numpy()

    @cache
    def window(row: int) -> np.ndarray:
        return store.spectrogram(row, run.scaler)[:, : store.front_end.frames]

    def component(v: Values) -> int:
        return int(v["component"].split(":")[0])

    def clips(v: Values) -> np.ndarray:
        found = rows[members[component(v)]]
        if v["show"] == SHOWN[3]:
            return found[np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)]
        sure = -(-len(found) // 2)
        return {SHOWN[1]: found[:sure][:n], SHOWN[2]: found[sure:][::-1][:n]}.get(v["show"], found[:0])

    def render(v: Values) -> np.ndarray:
        if v["show"] == SHOWN[0]:
            return run.decode(means[component(v)][None])[0]
        if v["show"] == SHOWN[4]:
            return run.sample(n, [component(v)] * n, seed=0)
        found = [window(int(r)) for r in clips(v)]
        return np.stack(found) if found else np.zeros(store.front_end.shape, np.float32)

    def sound(v: Values, tile: int) -> tuple[np.ndarray, int]:
        found = clips(v)
        return own_sound(store, found[min(tile, len(found) - 1)]) if len(found) else view._inverted(v, tile)

    def words(v: Values) -> str:
        """What the component holds, and the clips that are shown."""
        inside = members[component(v)]
        genres = store.table.loc[rows[inside], "genre"].value_counts()
        held = ", ".join(f"{g} {k}" for g, k in genres.head(4).items()) or "no clip"
        others = f", {len(genres) - 4} more" if len(genres) > 4 else ""
        sure = dict(zip(rows[inside], margin[inside], strict=True))
        named = "; ".join(f"{clip_name(store, r)} ({sure[r]:.3g})" for r in clips(v)[:n])
        return f"holds {held}{others}" + (f". Log-odds against the second component, nats: {named}" if named else "")

    view = SpectrogramView(
        render,
        [Choice("component", "component", options, options[0], len(options)), Choice("show", "show", SHOWN, SHOWN[0])],
        store.front_end,
        run.scaler,
        f"{run.name}: one component of the mixture",
        sound=sound,
        caption=words,
        tiles=lambda v: [str(g) for g in store.table.loc[clips(v), "genre"]],
        offline_sounds=2,
    )
    return view
