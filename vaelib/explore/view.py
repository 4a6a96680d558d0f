"""Sliders and lists beside spectrograms that sound: a view on a pure function, and those of the notebooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from types import SimpleNamespace

import numpy as np
import torch

from ..audio import to_sound
from ..config import InputError
from ..descriptors import label, live_dimensions, meanings
from ..metrics.clustering import margins
from ..runs import Run
from .page import Explorer, clip_name, sound_of, wave_player

ONE_CLASS, EVERY_CLASS = "one class, several samples", "every class, the same z"
MEAN, SAMPLES = "mean, decoded", "samples"
CLIPS = "most certain clips", "least certain clips", "members"
SOUND_SECONDS = 6.0  # in a saved page
Values = dict[str, float | str]


@dataclass(frozen=True)
class Control:
    """A slider over numbers or a list of names; when one of a `scene` changes, the others go to their start."""

    name: str
    label: str
    values: Sequence[float] | Sequence[str]
    start: float | str
    kept: int = 15  # values in a saved page
    scene: bool = False

    @property
    def slider(self) -> bool:
        return not isinstance(self.start, str)

    def evenly(self) -> list[float | str]:
        """The values in a saved page, both ends among them."""
        places = np.linspace(0, len(self.values) - 1, min(self.kept, len(self.values))).round().astype(int)
        return [self.values[i] for i in places]


@dataclass
class Shown:
    """What is seen, and heard by tile, where the controls stand."""

    x: np.ndarray  # (N, F, T) in [0, 1]
    labels: Sequence[str] = ()
    rows: Sequence[int | None] = ()  # the clip whose middle window sounds; None, as for tiles beyond: `x` is inverted
    tone: Sequence[float] = (0.0, 0.0)  # level and tilt (dB) that a scaler removed
    caption: str = ""


class SpectrogramView(Explorer):
    """Spectrograms that follow controls: all that is shown and heard is a function of the controls' values.

    `show` is that function, `begin` says where controls stand when a scene has changed, and the tile `first` sounds
    until another is clicked.
    """

    def __init__(self, run: Run, title: str, controls: Sequence[Control], show: Callable[[Values], Shown],
                 begin: Callable[[Values], Values] = lambda v: {}, first: int = 0) -> None:  # fmt: skip
        self.run, self.controls, self.show, self.begin, self.first = run, controls, show, begin, first
        choice = {c.name: c.start for c in controls if c.scene}
        self.start: Values = self.scene(choice)["start"]
        shown = [{"name": c.name, "label": c.label, "slider": c.slider} for c in controls]
        answers = {"scene": self.scene, "frame": self.frame, "sound": self.sound}
        ready = ("scene", choice), ("frame", self.start)
        super().__init__(title, run.store, run.scaler, answers, ready, controls=shown, choice=choice, first=first)

    def scene(self, choice: Values, small: bool = False) -> dict:
        """Where controls start in a scene, and what each can be set to."""
        start = {c.name: choice.get(c.name, c.start) for c in self.controls}
        start |= self.begin(start)
        values = {c.name: list(c.evenly() if small else c.values) for c in self.controls}
        for c in self.controls:
            if start[c.name] not in values[c.name]:
                values[c.name] = sorted([*values[c.name], start[c.name]])
        return {"start": start, "values": values}

    def frame(self, values: Values, small: bool = False) -> dict:
        """The picture of all tiles, and the words with it."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # for one spectrogram a team on busy cores takes up to 150 ms instead of 2
        try:
            shown = self.show(values)
        finally:
            torch.set_num_threads(threads)
        return self.frame_of(shown.x, small, shown.labels, shown.caption)

    def sound(self, values: Values, tile: int, small: bool = False) -> str:
        """The sound of a tile as a data URI: a clip's own, else guessed from the picture by Griffin-Lim."""
        shown, store = self.show(values), self.run.store
        row = dict(enumerate(shown.rows)).get(tile)
        if row is None:
            wave = to_sound(self.run.scaler.inverse(shown.x[tile], *shown.tone), store.front_end)
        else:
            wave, _ = sound_of(store, row, window=True)
        return wave_player(wave, store.front_end.sample_rate, SOUND_SECONDS if small else None).src_attr()

    def kept(self) -> Iterator[tuple]:
        """Each control's move while the others stand at the start of a scene; sounds of that start and of the ends."""
        choices = [c for c in self.controls if c.scene]
        for given in product(*(c.evenly() for c in choices)):
            choice = {c.name: v for c, v in zip(choices, given, strict=True)}
            start, held = self.scene(choice, small=True).values()
            yield "scene", choice
            yield "frame", start
            yield from (("sound", start, tile) for tile in range(min(6, len(self.show(start).x))))
            for c in self.controls:
                heard = [c.values[0], c.values[-1]] if c.slider else c.values[:5]
                for v in [] if c.scene else held[c.name]:
                    moved = start | {c.name: v}
                    yield "frame", moved
                    if v in heard:
                        yield "sound", moved, self.first


def _clips(run: Run, *first: int) -> tuple[list[str], Callable[[str], SimpleNamespace]]:
    """Names of clips to start from, those given before the others of the test split, and what a name stands for."""
    rows: dict[str, int] = {}
    for r in dict.fromkeys([*first, *run.store.rows("test").tolist()]):
        name = clip_name(run.store, r)
        rows[name if name not in rows else f"{name} ({run.store.table.loc[r, 'path']})"] = r

    @cache
    def clip(name: str) -> SimpleNamespace:
        code, window, y = run.encode_clip(rows[name])  # (L,), (F, T), class
        tone = run.store.table.loc[rows[name], ["level_db", "tilt_db"]].to_numpy(float)
        return SimpleNamespace(row=rows[name], code=code, window=window, y=[y] if run.conditional else None, tone=tone)

    return list(rows), clip


def interpolation(run: Run, row_a: int, row_b: int) -> SpectrogramView:
    """Slide on the straight line between the codes of two clips; notebooks 02 and 03.

    It starts with two rows of the store; any test clip can be chosen instead. A run with classes decodes with A's.
    """
    names, clip = _clips(run, row_a, row_b)
    b = names[:2][-1]

    @cache
    def path(a: str, b: str) -> np.ndarray:
        """(F, T): the first frame is decoded at A's code, the last at B's, and the walk lies between."""
        t = np.linspace(0, 1, 33)[:, None]
        steps = run.decode((1 - t) * clip(a).code + t * clip(b).code, clip(a).y and clip(a).y * len(t))
        at = np.linspace(0, len(t) - 1, steps.shape[-1]).round().astype(int)
        return steps[at, :, np.arange(steps.shape[-1])].T

    def show(v: Values) -> Shown:
        a, b, t = clip(v["a"]), clip(v["b"]), v["t"]
        between = run.decode(((1 - t) * a.code + t * b.code)[None], a.y)[0]
        labels, tone = ("clip A", f"decoded, {t:.2f}", "clip B", "the path"), (1 - t) * a.tone + t * b.tone
        pictures = np.stack([a.window, between, b.window, path(v["a"], v["b"])])
        return Shown(pictures, labels, (a.row, None, b.row), tone)

    controls = [
        Control("a", "clip A", names, names[0], 2, scene=True),
        Control("b", "clip B", [b, *(n for n in names if n != b)], b, 2, scene=True),
        Control("t", "A → B", np.linspace(0, 1, 33).tolist(), 0.0),
    ]
    return SpectrogramView(run, f"{run.name}: from clip A to clip B", controls, show, first=1)


def traversal(run: Run, row: int) -> SpectrogramView:
    """A slider for each live dimension, from the code of any clip, which is seen and heard beside it; notebook 04.

    The eight most informative ones, named by `descriptors.meanings`. Each moves over mean ± 2.5 standard deviations of
    the dimension's aggregate posterior on test clips, on the scale of a factor that follows it in a straight line (a
    fader in dB), else on that of the code.
    """
    names, clip = _clips(run, row)
    seen, live, found, first = run.embed("test"), live_dimensions(run), meanings(run), clip(names[0]).code
    centre, spread = seen.means.mean(0), np.sqrt(seen.means.var(0) + np.exp(seen.logvars).mean(0))
    low, high = np.minimum(centre - 2.5 * spread, first), np.maximum(centre + 2.5 * spread, first)
    controls, scale = [Control("clip", "start from", names, names[0], 3, scene=True)], {}
    for d in map(int, live[:8]):
        slope, offset = scale[f"z{d}"] = (found[d].slope, found[d].offset) if found[d].slope else (1.0, 0.0)
        left, right = sorted([slope * low[d] + offset, slope * high[d] + offset])
        step = float(f"{0.05 * abs(slope):.0e}")
        values = step * np.arange(math.floor(left / step), math.ceil(right / step) + 1)
        unit = f" ({found[d].unit})" if found[d].slope and found[d].unit else ""
        controls.append(Control(f"z{d}", label(d, found) + unit, values.round(4).tolist(), 0.0))

    def begin(v: Values) -> Values:
        code = clip(v["clip"]).code
        return {name: float(slope * code[int(name[1:])] + offset) for name, (slope, offset) in scale.items()}

    def show(v: Values) -> Shown:
        start = clip(v["clip"])
        z = start.code.copy()
        for name, (slope, offset) in scale.items():
            z[int(name[1:])] = (v[name] - offset) / slope
        pictures = np.stack([start.window, run.decode(z[None], start.y)[0]])
        return Shown(pictures, ("original", "decoded"), (start.row, None), start.tone)

    title = f"{run.name}: move one dimension at a time ({len(scale)} of {len(live)} live ones)"
    return SpectrogramView(run, title, controls, show, begin, first=1)


def class_sampler(run: Run) -> SpectrogramView:
    """Samples of a conditional run by class, number, temperature and seed, or one z in every class; notebook 05.

    InputError: the run has no classes.
    """
    if not run.conditional:
        raise InputError(f"{run.name} has no classes to sample from: open a cvae run")
    names, condition = run.config.model.classes, run.config.model.condition
    tone = run.store.table[["level_db", "tilt_db"]].median()
    caption = "Same seed, same z: take differences from the marked tile to see what the class changes."

    def show(v: Values) -> Shown:
        every = v["show"] == EVERY_CLASS
        classes = range(len(names)) if every else [names.index(v["class"])] * int(v["n"])
        x = run.sample(len(classes), classes, v["temperature"], int(v["seed"]), shared=every)
        return Shown(x, names if every else (), tone=tone, caption=caption)

    controls = [
        Control("show", "show", [ONE_CLASS, EVERY_CLASS], ONE_CLASS, scene=True),
        Control("class", condition, names, names[0], len(names)),
        Control("n", "samples", range(1, 13), 6),
        Control("temperature", "temperature", np.linspace(0, 1.5, 16).round(1).tolist(), 1.0),
        Control("seed", "seed", range(21), 0),
    ]
    return SpectrogramView(run, f"{run.name}: samples by {condition}", controls, show)


def component_view(run: Run, n: int = 6) -> SpectrogramView:
    """The components of a VaDE run, the heaviest first: mean, samples, clips it is sure of, unsure of; notebook 06.

    Clips are ranked by their log-odds against the second likeliest component; none is among both. InputError: the run
    has no mixture.
    """
    log_gamma = run.log_responsibilities("test")  # (clip, K)
    margin, store, rows = margins(log_gamma), run.store, run.store.rows("test")
    weights = run.model.log_weights().exp().detach().numpy()
    means = run.model.mixture["means"].detach().numpy()
    order = np.argsort(-margin, kind="stable")  # the most certain first
    members = [order[log_gamma[order].argmax(1) == c] for c in range(len(weights))]
    windows = run.middle_windows(rows)

    def show(v: Values) -> Shown:
        c = int(v["component"].split(":")[0])
        genres = store.table.loc[rows[members[c]], "genre"].value_counts()
        caption = "holds " + (", ".join(f"{g} {k}" for g, k in genres.head(6).items()) or "no clip")
        if v["show"] == MEAN:
            return Shown(run.decode(means[c][None]), caption=caption)
        if v["show"] == SAMPLES:
            return Shown(run.sample(n, [c] * n, seed=0), caption=caption)
        sure, evenly = -(-len(members[c]) // 2), np.linspace(0, len(members[c]) - 1, min(18, len(members[c])))
        parts = members[c][:sure][:n], members[c][sure:][::-1][:n], members[c][evenly.astype(int)]
        clips = dict(zip(CLIPS, parts, strict=True))[v["show"]]
        labels = [f"{margin[i]:.3g} nats · {clip_name(store, rows[i])}" for i in clips]
        x = windows[clips] if len(clips) else np.zeros((1, *store.front_end.shape))
        return Shown(x, labels, rows[clips].tolist(), caption=f"{caption}; nats: log-odds against the second component")

    options = [f"{c}: weight {weights[c]:.1%}, {len(members[c])} clips" for c in np.argsort(-weights, kind="stable")]
    controls = [
        Control("component", "component", options, options[0], len(options), scene=True),
        Control("show", "show", [MEAN, *CLIPS, SAMPLES], MEAN),
    ]
    return SpectrogramView(run, f"{run.name}: one component of the mixture", controls, show)
