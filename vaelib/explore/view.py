"""Sliders and lists beside spectrograms that sound: a view on a pure function, and those of the notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from .page import Explorer, clip_name, clip_names, frame_of, sound_of, wave_player

ONE_CLASS, EVERY_CLASS = "one class, several samples", "every class, the same noise"
MEAN, SAMPLES = "mean, decoded", "samples"
CLIPS = "most certain clips", "least certain clips", "members"
SOUND_SECONDS = 6.0  # in a saved page
Values = dict[str, float | str]  # of the controls, by their labels


@dataclass(frozen=True)
class Control:
    """A slider over numbers or a list of names; when one of a `scene` changes, the others go to their start."""

    values: Sequence[float] | Sequence[str]
    start: float | str
    kept: int = 15  # values in a saved page
    scene: bool = False

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


def sliders(run: Run, title: str, controls: Mapping[str, Control], show: Callable[[Values], Shown],
            begin: Callable[[Values], Values] = lambda v: {}, first: int = 0) -> Explorer:  # fmt: skip
    """Spectrograms that follow controls, by label: what is seen and heard is a function, `show`, of their values.

    `begin` says where controls stand when a scene has changed, and the tile `first` sounds until another is clicked.
    """
    choices = {name: c for name, c in controls.items() if c.scene}

    def scene(choice: Values, small: bool = False) -> dict:  # where controls start, and what each can be set to
        start = {name: choice.get(name, c.start) for name, c in controls.items()}
        start |= begin(start)
        values = {name: list(c.evenly() if small else c.values) for name, c in controls.items()}
        for name, value in start.items():
            if value not in values[name]:
                values[name] = sorted([*values[name], value])
        return {"start": start, "values": values}

    def frame(values: Values, small: bool = False) -> dict:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # for one spectrogram a team on busy cores takes up to 150 ms instead of 2
        try:
            shown = show(values)
        finally:
            torch.set_num_threads(threads)
        return frame_of(shown.x, run.store.front_end, small, shown.labels, shown.caption)

    def sound(values: Values, tile: int, small: bool = False) -> str:  # a clip's own, else by Griffin-Lim
        shown, rate = show(values), run.store.front_end.sample_rate
        row = dict(enumerate(shown.rows)).get(tile)
        if row is None:
            wave = to_sound(run.scaler.inverse(shown.x[tile], *shown.tone), run.store.front_end)
        else:
            wave, rate = sound_of(run.store, row, window=True)
        return wave_player(wave, rate, SOUND_SECONDS if small else None).src_attr()

    def kept() -> Iterator[tuple]:  # of each scene: its start with sounds, each control's moves with those of the ends
        for given in product(*(c.evenly() for c in choices.values())):
            choice = dict(zip(choices, given, strict=True))
            start, held = scene(choice, small=True).values()
            yield "scene", choice
            yield "frame", start
            yield from (("sound", start, tile) for tile in range(min(6, len(show(start).x))))
            for name, c in controls.items():
                heard = c.values[:5] if isinstance(c.start, str) else [c.values[0], c.values[-1]]
                for v in [] if c.scene else held[name]:
                    yield "frame", start | {name: v}
                    if v in heard:
                        yield "sound", start | {name: v}, first

    choice = {name: c.start for name, c in choices.items()}
    start, answers = scene(choice)["start"], {"scene": scene, "frame": frame, "sound": sound}
    ready = ("scene", choice), ("frame", start)
    view = Explorer(title, run.store, run.scaler, answers, kept(), ready, choice=choice, first=first)
    view.controls, view.show, view.start = controls, show, start
    return view


def _clips(run: Run, *first: int) -> tuple[list[str], Callable[[str], SimpleNamespace]]:
    """Names of clips to start from, those given before the others of the test split, and what a name stands for."""
    rows = list(dict.fromkeys([*first, *run.store.rows("test").tolist()]))
    row_of = dict(zip(clip_names(run.store, rows), rows, strict=True))

    @cache
    def clip(name: str) -> SimpleNamespace:
        row = row_of[name]
        code, window, y = run.encode_clip(row)  # (L,), (F, T), class
        tone, classes = run.store.table.loc[row, ["level_db", "tilt_db"]].to_numpy(float), [y]
        return SimpleNamespace(row=row, code=code, window=window, y=classes if run.conditional else None, tone=tone)

    return list(row_of), clip


def interpolation(run: Run, row_a: int, row_b: int) -> Explorer:
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
        a, b, t = clip(v["clip A"]), clip(v["clip B"]), v["A → B"]
        between = run.decode(((1 - t) * a.code + t * b.code)[None], a.y)[0]
        labels, tone = ("clip A", f"decoded, {t:.2f}", "clip B", "the path"), (1 - t) * a.tone + t * b.tone
        pictures = np.stack([a.window, between, b.window, path(v["clip A"], v["clip B"])])
        return Shown(pictures, labels, (a.row, None, b.row), tone)

    controls = {
        "clip A": Control(names, names[0], 2, scene=True),
        "clip B": Control([b, *(n for n in names if n != b)], b, 2, scene=True),
        "A → B": Control(np.linspace(0, 1, 33).tolist(), 0.0),
    }
    return sliders(run, f"{run.name}: from clip A to clip B", controls, show, first=1)


def traversal(run: Run, row: int) -> Explorer:
    """A slider for each live dimension, from the code of any clip, which is seen and heard beside it; notebook 04.

    The eight most informative ones, named by `descriptors.meanings`. Each moves over mean ± 2.5 standard deviations of
    the dimension's aggregate posterior on test clips, on the scale of a factor that follows it in a straight line (a
    fader in dB), else on that of the code.
    """
    (names, clip), seen, live, found = _clips(run, row), run.embed("test"), live_dimensions(run), meanings(run)
    centre, spread = seen.means.mean(0), np.sqrt(seen.means.var(0) + np.exp(seen.logvars).mean(0))
    controls, scale = {"start from": Control(names, names[0], 3, scene=True)}, {}
    for d in map(int, live[:8]):
        slope, offset = (found[d].slope, found[d].offset) if found[d].slope else (1.0, 0.0)
        ends = sorted(slope * (centre[d] + 2.5 * spread[d] * np.array([-1, 1])) + offset)
        name = label(d, found) + (f" ({found[d].unit})" if found[d].slope and found[d].unit else "")
        controls[name], scale[name] = Control(np.linspace(*ends, 101).round(3).tolist(), 0.0), (d, slope, offset)

    def begin(v: Values) -> Values:
        code = clip(v["start from"]).code
        return {name: float(slope * code[d] + offset) for name, (d, slope, offset) in scale.items()}

    def show(v: Values) -> Shown:
        start = clip(v["start from"])
        z = start.code.copy()
        for name, (d, slope, offset) in scale.items():
            z[d] = (v[name] - offset) / slope
        pictures = np.stack([start.window, run.decode(z[None], start.y)[0]])
        return Shown(pictures, ("original", "decoded"), (start.row, None), start.tone)

    title = f"{run.name}: move one dimension at a time ({len(scale)} of {len(live)} live ones)"
    return sliders(run, title, controls, show, begin, first=1)


def class_sampler(run: Run) -> Explorer:
    """Samples of a conditional run by class, number, temperature and seed, or one z in every class; notebook 05.

    InputError: the run has no classes.
    """
    if not run.conditional:
        raise InputError(f"{run.name} has no classes to sample from: open a cvae run")
    names, condition = run.config.model.classes, run.config.model.condition
    tone = run.store.table[["level_db", "tilt_db"]].median()
    caption = "Same seed, same noise: take differences from the marked tile to see what the class changes."

    def show(v: Values) -> Shown:
        every = v["show"] == EVERY_CLASS
        classes = range(len(names)) if every else [names.index(v[condition])] * int(v["samples"])
        x = run.sample(len(classes), classes, v["temperature"], int(v["seed"]), shared=every)
        return Shown(x, names if every else (), tone=tone, caption=caption)

    controls = {
        "show": Control([ONE_CLASS, EVERY_CLASS], ONE_CLASS, scene=True),
        condition: Control(names, names[0], len(names)),
        "samples": Control(range(1, 13), 6),
        "temperature": Control(np.linspace(0, 1.5, 16).round(1).tolist(), 1.0),
        "seed": Control(range(21), 0),
    }
    return sliders(run, f"{run.name}: samples by {condition}", controls, show)


def component_view(run: Run, n: int = 6) -> Explorer:
    """The components of a VaDE run, the heaviest first: mean, samples, clips it is sure of, unsure of; notebook 06.

    Clips are ranked by their log-odds against the second likeliest component; none is among both. InputError: the run
    has no mixture.
    """
    log_gamma, store, rows = run.log_responsibilities("test"), run.store, run.store.rows("test")  # (clip, K)
    margin, windows = margins(log_gamma), run.middle_windows(rows)
    weights, means = (t.detach().numpy() for t in (run.model.log_weights().exp(), run.model.mixture["means"]))
    order = np.argsort(-margin, kind="stable")  # the most certain first
    members = [order[log_gamma[order].argmax(1) == c] for c in range(len(weights))]

    def show(v: Values) -> Shown:
        c = int(v["component"].split(":")[0])
        genres = store.table.loc[rows[members[c]], "genre"].value_counts()
        caption = "holds " + (", ".join(f"{g} {k}" for g, k in genres.head(6).items()) or "no clip")
        if v["show"] == MEAN:
            return Shown(run.decode(means[c][None]), caption=caption)
        if v["show"] == SAMPLES:
            return Shown(run.sample(n, [c] * n, seed=0), caption=caption)
        sure, unsure = np.array_split(members[c], 2)
        evenly = members[c][np.linspace(0, len(members[c]) - 1, min(18, len(members[c]))).astype(int)]
        clips = dict(zip(CLIPS, (sure[:n], unsure[::-1][:n], evenly), strict=True))[v["show"]]
        labels = [f"{margin[i]:.3g} nats · {clip_name(store, rows[i])}" for i in clips]
        x = windows[clips] if len(clips) else np.zeros((1, *store.front_end.shape))
        return Shown(x, labels, rows[clips].tolist(), caption=f"{caption}; nats: log-odds against the second component")

    options = [f"{c}: weight {weights[c]:.1%}, {len(members[c])} clips" for c in np.argsort(-weights, kind="stable")]
    controls = {
        "component": Control(options, options[0], len(options), scene=True),
        "show": Control([MEAN, *CLIPS, SAMPLES], MEAN),
    }
    return sliders(run, f"{run.name}: one component of the mixture", controls, show)
