"""The explorers of the notebooks: each a short function that puts a run behind a `SpectrogramView`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..audio import Scaler, load
from ..config import InputError, one_of
from ..runs import Run
from ..store import Store
from .view import Choice, Slider, SpectrogramView

Z_RANGE = 2.5  # a dimension is moved this many standard deviations of its aggregate posterior


def clip_name(store: Store, row: int) -> str:
    """Genre (or language) and file of a clip, as text."""
    t = store.table.loc[row]
    kinds = [str(t[c]) for c in ("genre", "language") if t[c] != "unlabelled"]
    return " · ".join([*kinds[:1], str(t["path"])])


def _tone(run: Run, row: int) -> tuple[float, float]:
    t = run.store.table.loc[row]
    return float(t["level_db"]), float(t["tilt_db"])


def _class_choice(run: Run, index: int = 0) -> list[Choice]:
    """The class that a conditional run decodes with; nothing for the others."""
    names = run.config.model.classes
    return [Choice("class", run.config.model.condition, names, names[index])] if run.conditional else []


def _decode(run: Run, z: np.ndarray, values: dict) -> np.ndarray:
    y = [run.config.model.classes.index(values["class"])] if run.conditional else None
    return run.decode(z[None], y)[0]


def interpolation(run: Run, row_a: int, row_b: int, steps: int = 33) -> SpectrogramView:
    """Slide on the straight line between the codes of two clips.

    Args:
        row_a, row_b: Rows of the store.
    """
    (a, _, label), (b, _, _) = run.encode_clip(row_a), run.encode_clip(row_b)
    return SpectrogramView(
        lambda v: _decode(run, (1 - v["t"]) * a + v["t"] * b, v),
        [Slider("t", "A → B", 0.0, 1.0, steps, 0.0), *_class_choice(run, label)],
        run.store.front_end,
        run.scaler,
        f"{run.name}: from clip A to clip B",
        caption=f"A: {clip_name(run.store, row_a)}  →  B: {clip_name(run.store, row_b)}",
        tone=_tone(run, row_a),
    )


def traversal(
    run: Run, row: int, dims: Sequence[int], names: Mapping[int, str] | None = None, steps: int = 21
) -> SpectrogramView:
    """One slider per latent dimension, from a clip's own code.

    Each moves over mean ± 2.5 standard deviations of the dimension's aggregate posterior on the test clips.

    Args:
        row: Row of the store.
        dims: Dimensions, the most informative first.
        names: What a dimension stands for, if known.
    """
    code, _, label = run.encode_clip(row)
    seen = run.embed("test")
    centre, spread = seen.means.mean(0), np.sqrt(seen.means.var(0) + np.exp(seen.logvars).mean(0))
    low, high = np.minimum(centre - Z_RANGE * spread, code), np.maximum(centre + Z_RANGE * spread, code)
    named = {d: f"z{d}: {names[d]}" if names and names.get(d) else f"z{d}" for d in dims}

    def render(values: dict) -> np.ndarray:
        z = code.copy()
        for d in dims:
            z[d] = values[f"z{d}"]
        return _decode(run, z, values)

    sliders = [Slider(f"z{d}", named[d], float(low[d]), float(high[d]), steps, float(code[d])) for d in dims]
    return SpectrogramView(
        render,
        [*sliders, *_class_choice(run, label)],
        run.store.front_end,
        run.scaler,
        f"{run.name}: move one dimension at a time",
        caption=f"start: {clip_name(run.store, row)}",
        tone=_tone(run, row),
    )


def class_sampler(run: Run, n: int = 12) -> SpectrogramView:
    """Samples of a conditional run: class, how many (up to `n`), temperature, seed. Same seed, same z in every class.

    Raises:
        InputError: the run has no classes.
    """
    if not run.conditional:
        raise InputError(f"{run.name} has no classes to sample from: open a cvae run")
    names = run.config.model.classes
    middle = run.store.table[["level_db", "tilt_db"]].median()

    def render(v: dict) -> np.ndarray:
        k = int(v["n"])
        return run.sample(k, [names.index(v["class"])] * k, float(v["temperature"]), int(v["seed"]))

    return SpectrogramView(
        render,
        [
            *_class_choice(run),
            Slider("n", "samples", 1, n, n, min(n, 6)),
            Slider("temperature", "temperature", 0.0, 1.5, 16, 1.0),
            Slider("seed", "seed", 0, 20, 21, 0),
        ],
        run.store.front_end,
        run.scaler,
        f"{run.name}: samples of one {run.config.model.condition}",
        caption="Same seed, same z: change the class to hear what the class alone changes.",
        tone=(float(middle["level_db"]), float(middle["tilt_db"])),
    )


SHOWN = ("mean, decoded", "samples", "most certain clips", "least certain clips")


def component_view(run: Run, split: str = "test", n: int = 6) -> SpectrogramView:
    """The components of a VaDE run, the heaviest first: mean, samples, and the clips it is most and least sure of.

    Raises:
        InputError: the run has no mixture.
    """
    share = run.responsibilities(split)  # (clip, K); raises for a run without a mixture
    rows, model = run.store.rows(split), run.model
    weights = model.log_weights().exp().detach().numpy()
    order = np.argsort(-weights, kind="stable")
    members = [np.flatnonzero(share.argmax(1) == c) for c in range(len(weights))]
    options = tuple(f"{c}: weight {weights[c]:.1%}, {len(members[c])} clips" for c in order)
    means = model.mixture["means"].detach().numpy()
    frames = run.store.front_end.frames

    def clips(v: dict) -> np.ndarray:
        c = int(v["component"].split(":")[0])
        ranked = members[c][np.argsort(-share[members[c], c], kind="stable")]
        return rows[ranked[:n] if v["show"] == SHOWN[2] else ranked[::-1][:n]]

    def render(v: dict) -> np.ndarray:
        c = int(v["component"].split(":")[0])
        if v["show"] == SHOWN[0]:
            return run.decode(means[c][None])[0]
        if v["show"] == SHOWN[1]:
            return run.sample(n, [c] * n, seed=0)
        found = [run.store.spectrogram(r, run.scaler)[:, :frames] for r in clips(v)]
        return np.stack(found) if found else np.zeros(run.store.front_end.shape, np.float32)

    def sound(v: dict, tile: int) -> tuple[np.ndarray, int]:
        if v["show"] in SHOWN[2:] and len(found := clips(v)):
            return _own_sound(run.store, found[min(tile, len(found) - 1)])
        return view._inverted(v, tile)

    def caption(v: dict) -> str:
        return "; ".join(clip_name(run.store, r) for r in clips(v)) if v["show"] in SHOWN[2:] else ""

    view = SpectrogramView(
        render,
        [Choice("component", "component", options, options[0]), Choice("show", "show", SHOWN, SHOWN[0])],
        run.store.front_end,
        run.scaler,
        f"{run.name}: one component of the mixture",
        sound=sound,
        caption=caption,
    )
    return view


def _own_sound(store: Store, row: int) -> tuple[np.ndarray, int]:
    return load(store.audio_path(row), store.front_end).numpy(), store.front_end.sample_rate


def clip_browser(store: Store, scaler: Scaler, most: int = 400, by: str = "genre") -> SpectrogramView:
    """The clips of a store by label, with their own sound.

    Args:
        most: At most this many clips, the same number of every class.
        by: `genre`, `language` or `family`.
    """
    one_of("label", by, ("genre", "language", "family"))
    t = store.table
    keys = t[by].astype(str) if by == "language" else t["language"].astype(str) + " · " + t[by].astype(str)
    groups = {k: t.index[keys == k].to_numpy() for k in sorted(set(keys))}
    each = max(1, min(most // len(groups), max(map(len, groups.values()))))

    def row(v: dict) -> int:
        group = groups[v["group"]][:each]
        return int(group[(int(v["clip"]) - 1) % len(group)])

    options = tuple(groups)
    return SpectrogramView(
        lambda v: store.spectrogram(row(v), scaler),
        [Choice("group", by, options, options[0]), Slider("clip", "clip", 1, each, each, 1)],
        store.front_end,
        scaler,
        f"{store.attrs['corpus']}: the clips",
        sound=lambda v, _: _own_sound(store, row(v)),
        caption=lambda v: clip_name(store, row(v)),
        offline_sounds=24,
    )
