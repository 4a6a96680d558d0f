"""The sliders of the notebooks: each a short function that puts a run behind a `SpectrogramView`."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from IPython.display import Audio

from ..config import InputError
from ..factors import Meaning, label, live_dimensions, meanings
from ..metrics.mixture import margins
from ..runs import Run
from ..store import Store
from .picture import sound_bytes
from .view import Choice, Slider, Sound, SpectrogramView, Values

Z_RANGE = 2.5  # a dimension is moved this many standard deviations of its aggregate posterior
Z_STEP = 0.05  # at least, in standard deviations of the prior


def clip_name(store: Store, row: int) -> str:
    """Genre (or language) and file name of a clip, as text; the label is left out where the file name says it."""
    clip = store.table.loc[row]
    file = store.name(row).rsplit("/", 1)[-1]
    kinds = [str(clip[c]) for c in ("genre", "language") if clip[c] != "unlabelled"]
    return " · ".join([k for k in kinds[:1] if k not in file] + [file])


def own_sound(store: Store, row: int) -> Sound:
    """The wave (samples,) of a clip's file and its rate."""
    return store.load(row).numpy(), store.front_end.sample_rate


def window_sound(store: Store, row: int) -> Sound:
    """The wave (samples,) of a clip's middle window, which models are given, and its rate."""
    (wave, rate), fe = own_sound(store, row), store.front_end
    frames = min(int(store.table.loc[row, "n_frames"]), store.heard_frames)
    start = fe.hop * round((frames - fe.frames) / 2)
    return wave[start : start + fe.frames * fe.hop], rate


def player(store: Store, row: int, window: bool = False) -> Audio:
    """A player of one clip: of its whole file, or of the middle `window` that models are given."""
    return wave_player(*(window_sound if window else own_sound)(store, row))


def wave_player(wave: np.ndarray, rate: int) -> Audio:
    """A player of a wave (samples,) in [-1, 1]."""
    shown = Audio(data=sound_bytes(wave, rate))
    shown.mimetype = "audio/mpeg"
    return shown


class _Start:
    """The clips that a view can start from, by name; the first one given leads."""

    def __init__(self, run: Run, *first: int) -> None:
        self.run, self.rows = run, {}
        for r in dict.fromkeys([*map(int, first), *map(int, run.store.rows("test"))]):
            name = clip_name(run.store, r)
            self.rows[name if name not in self.rows else f"{name} ({run.store.table.loc[r, 'path']})"] = r
        self.encode = cache(lambda name: run.encode_clip(self.rows[name]))  # → code, window, class
        self.first = list(self.rows)[: len(dict.fromkeys(first))]

    def choice(self, name: str, label: str, number: int, scenes: int) -> Choice:
        return Choice(name, label, tuple(self.rows), self.first[min(number, len(self.first) - 1)], scenes)

    def tone(self, name: str) -> np.ndarray:
        return self.run.store.table.loc[self.rows[name], ["level_db", "tilt_db"]].to_numpy(float)

    def sound(self, name: str) -> Sound:
        return window_sound(self.run.store, self.rows[name])


def _class_choice(run: Run, index: int = 0) -> list[Choice]:
    """The class that a conditional run decodes with; nothing for the others."""
    names = run.config.model.classes
    return [Choice("class", run.config.model.condition, names, names[index])] if run.conditional else []


def _decode(run: Run, z: np.ndarray, values: Values) -> np.ndarray:
    y = [run.config.model.classes.index(values["class"])] if run.conditional else None
    return run.decode(z[None], y)[0]


def interpolation(run: Run, row_a: int, row_b: int, steps: int = 33) -> SpectrogramView:
    """Slide on the straight line between the codes of two clips, in `steps`; notebooks 02 and 03.

    It starts with two rows of the store; any test clip can be chosen instead.
    """
    clips = _Start(run, row_a, row_b)

    def between(v: Values, t: float) -> np.ndarray:
        return _decode(run, (1 - t) * clips.encode(v["a"])[0] + t * clips.encode(v["b"])[0], v)

    def render(v: Values) -> np.ndarray:
        return np.stack([clips.encode(v["a"])[1], between(v, v["t"]), clips.encode(v["b"])[1]])

    def path(v: Values) -> Sound:
        """One window long: its first frame is clip A's, its last clip B's, and the walk lies between."""
        walk = np.stack([between(v, t) for t in np.linspace(0, 1, steps)])  # (steps, F, T)
        at = np.linspace(0, steps - 1, walk.shape[-1]).round().astype(int)
        return view.to_sound(walk[at, :, np.arange(walk.shape[-1])].T, v)

    slider = Slider("t", "A → B", 0.0, 1.0, round(1 / (steps - 1), 6), 0.0)
    label = _class_choice(run, clips.encode(clips.first[0])[2])
    view = SpectrogramView(
        render,
        [clips.choice("a", "clip A", 0, 2), clips.choice("b", "clip B", 1, 2), slider, *label],
        run.store.front_end,
        run.scaler,
        f"{run.name}: from clip A to clip B",
        sound=lambda v, tile: None if tile == 1 else clips.sound(v["b" if tile else "a"]),
        tone=lambda v: tuple((1 - v["t"]) * clips.tone(v["a"]) + v["t"] * clips.tone(v["b"])),
        extras={"the path": path},
        tiles=lambda v: ("clip A", f"decoded, {v['t']:.2f}", "clip B"),
        first=1,
        offline_sounds=1,
    )
    return view


def traversal(run: Run, row: int, most: int = 8) -> SpectrogramView:
    """One slider per live dimension, from the code of any clip, which is seen and heard beside it; notebook 04.

    Sliders (`most` at most) are named by `factors.meanings`, the most informative first. Each moves over mean ± 2.5
    standard deviations of the dimension's aggregate posterior on test clips. A slider whose factor follows it in a
    straight line stands on the factor's scale (a fader in dB), the others on that of the code (standard deviations of
    the prior).
    """
    clips = _Start(run, row)
    seen, live, found = run.embed("test"), [int(d) for d in live_dimensions(run)], meanings(run)
    centre, spread = seen.means.mean(0), np.sqrt(seen.means.var(0) + np.exp(seen.logvars).mean(0))
    first, _, index = clips.encode(clips.first[0])
    low, high = np.minimum(centre - Z_RANGE * spread, first), np.maximum(centre + Z_RANGE * spread, first)
    lines = {d: (found[d].slope or 1.0, found[d].offset if found[d].slope else 0.0) for d in live[:most]}
    sliders = {d: _scaled(d, found, line, (low[d], high[d]), first[d]) for d, line in lines.items()}

    def stands(code: np.ndarray, d: int) -> float:
        return sliders[d].snap(lines[d][0] * code[d] + lines[d][1])

    def render(v: Values) -> np.ndarray:
        code, window, _ = clips.encode(v["clip"])
        z = code.copy()
        for d, s in sliders.items():  # the slider stands on a grid, the code does not: move by the difference
            z[d] = code[d] + (v[s.name] - stands(code, d)) / lines[d][0]
        return np.stack([window, _decode(run, z, v)])

    def begin(v: Values) -> Values:
        code, _, index = clips.encode(v["clip"])
        classes = {"class": run.config.model.classes[index]} if run.conditional else {}
        return {s.name: stands(code, d) for d, s in sliders.items()} | classes

    return SpectrogramView(
        render,
        [clips.choice("clip", "start from", 0, 3), *sliders.values(), *_class_choice(run, index)],
        run.store.front_end,
        run.scaler,
        f"{run.name}: move one dimension at a time ({len(sliders)} of {len(live)} live ones)",
        sound=lambda v, tile: None if tile else clips.sound(v["clip"]),
        tone=lambda v: tuple(clips.tone(v["clip"])),
        begin=begin,
        tiles=lambda v: ("original", "decoded"),
        first=1,
        offline_sounds=2 * len(sliders),
    )


def _scaled(
    d: int, found: dict[int, Meaning], line: tuple[float, float], ends: tuple[float, float], start: float
) -> Slider:
    """The slider of dimension `d` on the scale `slope · z + offset`, with steps of 1, 2 or 5 times a power of ten."""
    (slope, offset), meaning = line, found[d]
    unit = f" ({meaning.unit})" if meaning.slope and meaning.unit else ""
    least = Z_STEP * abs(slope)
    step = 10.0 ** math.floor(math.log10(least))
    step = round(next(step * k for k in (1, 2, 5, 10) if step * k >= least * 0.999), 8)
    low, high = sorted(slope * float(z) + offset for z in ends)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return Slider(f"z{d}", label(d, found) + unit, round(low, 4), round(high, 4), step, slope * float(start) + offset)


ONE_CLASS, EVERY_CLASS = "one class, several samples", "every class, the same z"


def class_sampler(run: Run, n: int = 12) -> SpectrogramView:
    """Samples of a conditional run: class, how many (up to `n`), temperature, seed; or one z in every class.

    Same seed, same z in every class; notebook 05.

    Raises:
        InputError: the run has no classes.
    """
    if not run.conditional:
        raise InputError(f"{run.name} has no classes to sample from: open a cvae run")
    names = run.config.model.classes
    middle = run.store.table[["level_db", "tilt_db"]].median().tolist()

    def render(v: Values) -> np.ndarray:
        every = v["show"] == EVERY_CLASS
        classes = list(range(len(names))) if every else [names.index(v["class"])] * int(v["n"])
        return run.sample(len(classes), classes, float(v["temperature"]), int(v["seed"]), shared=every)

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
        caption=lambda v: "Same seed, same z: take differences from the marked tile to see what the class changes.",
        tone=lambda v: tuple(middle),
        tiles=lambda v: names if v["show"] == EVERY_CLASS else (),
    )


MEAN, CERTAIN, UNCERTAIN, MEMBERS, SAMPLES = (
    "mean, decoded", "most certain clips", "least certain clips", "members", "samples",
)  # fmt: skip


def component_view(run: Run, n: int = 6, most: int = 18) -> SpectrogramView:
    """The components of a VaDE run, the heaviest first: mean, samples, members, clips it is most and least sure of.

    Clips are ranked by their log-odds against the second likeliest component, which tell them apart where all
    probabilities are rounded to 1; no clip is among the `n` most and the `n` least certain ones. `most` members are
    shown, evenly from the most to the least certain; notebook 06.

    Raises:
        InputError: the run has no mixture.
    """
    log_gamma = run.log_responsibilities("test")  # (clip, K); raises for a run without a mixture
    margin, store, rows = margins(log_gamma), run.store, run.store.rows("test")
    weights = run.model.log_weights().exp().detach().numpy()
    means = run.model.mixture["means"].detach().numpy()
    members = [np.flatnonzero(log_gamma.argmax(1) == c) for c in range(len(weights))]
    members = [m[np.argsort(-margin[m], kind="stable")] for m in members]  # the most certain first
    heaviest = np.argsort(-weights, kind="stable")
    options = tuple(f"{c}: weight {weights[c]:.1%}, {len(members[c])} clips" for c in heaviest)
    windows = run.middle_windows(rows)

    def component(v: Values) -> int:
        return int(v["component"].split(":")[0])

    def clips(v: Values) -> np.ndarray:
        """Places among the test clips."""
        found = members[component(v)]
        if v["show"] == MEMBERS:
            return found[np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)]
        sure = -(-len(found) // 2)
        return {CERTAIN: found[:sure][:n], UNCERTAIN: found[sure:][::-1][:n]}.get(v["show"], found[:0])

    def render(v: Values) -> np.ndarray:
        if v["show"] == MEAN:
            return run.decode(means[component(v)][None])[0]
        if v["show"] == SAMPLES:
            return run.sample(n, [component(v)] * n, seed=0)
        found = clips(v)
        return windows[found] if len(found) else np.zeros(store.front_end.shape, np.float32)

    def sound(v: Values, tile: int) -> Sound | None:
        found = clips(v)
        return window_sound(store, int(rows[found[min(tile, len(found) - 1)]])) if len(found) else None

    def caption(v: Values) -> str:
        genres = store.table.loc[rows[members[component(v)]], "genre"].value_counts()
        held = ", ".join(f"{g} {k}" for g, k in genres.head(4).items()) or "no clip"
        others = f", {len(genres) - 4} more" if len(genres) > 4 else ""
        named = "; ".join(f"{clip_name(store, rows[i])} ({margin[i]:.3g})" for i in clips(v)[:n])
        return f"holds {held}{others}" + (f". Log-odds against the second component, nats: {named}" if named else "")

    return SpectrogramView(
        render,
        [Choice("component", "component", options, options[0], len(options)),
         Choice("show", "show", (MEAN, CERTAIN, UNCERTAIN, MEMBERS, SAMPLES), MEAN)],
        store.front_end,
        run.scaler,
        f"{run.name}: one component of the mixture",
        sound=sound,
        caption=caption,
        tiles=lambda v: store.table.loc[rows[clips(v)], "genre"].tolist(),
        offline_sounds=2,
    )  # fmt: skip
