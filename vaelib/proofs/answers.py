"""The opening questions of notebooks 02, 03, 05 and 06, answered from the numbers of their own runs."""

from __future__ import annotations

from collections.abc import Mapping

from .filters import KINDS
from ..metrics.statistics import Interval, bootstrap_interval
from .mixture import always_sure, calibration, stands_still
from .proof import NotTested, Proof

Found = Proof | NotTested
MATCH = 0.8  # share of samples that a judge must hear as their class (claim K5)
CALIBRATED = 0.1  # largest calibration error that is called honest (claim G3)


def smooth_space(smooth: Proof, clusters: Found) -> str:
    """Notebook 02: can one walk from song to song without jumps, and does the space order them?"""
    n = smooth.numbers
    paths = (f"{who}share of gradual paths" for who in ("", "untrained decoder: ", "constant decoder: "))
    gradual, fresh, dead = (n[path] for path in paths)
    if dead >= 0.05:
        told = "The measure is broken: a decoder that always answers the same passes for gradual."
    else:
        told = f"{'Yes' if gradual > 0.9 else 'No'}, {gradual:.0%} of the walks are gradual. "
        told += (
            f"So are {fresh:.0%} through an untrained decoder: that comes with a continuous network, not with learning."
            if fresh >= gradual - 0.05
            else f"Through an untrained decoder {fresh:.0%} are: the rest was learned."
        )
    return f"{told} {_clusters(clusters)}"


def convolutions(copies: Proof, basic: Proof | None, filters: Proof, clusters: Found) -> str:
    """Notebook 03: do convolutions reconstruct better, and what do their filters look for?"""
    if basic is None:
        told = "Whether convolutions reconstruct better than a fully connected network is open: no Basic run is there."
    else:
        worse, sharper, timed = (
            _apart(copies, basic, k) for k in ("MSE per bin", "edge energy kept, time", "onset-envelope correlation")
        )
        told = (
            f"{_word(worse, below=True)}: the error per bin is {worse.mean:+.4f} against Basic's (95 % over clips "
            f"{worse.low:+.4f} to {worse.high:+.4f}). Edges along time: {sharper.mean:+.0%} "
            f"({_word(sharper).lower()}), onsets: {timed.mean:+.2f} ({_word(timed).lower()})."
        )
    n = filters.numbers
    after, before = n["unit selectivity, all layers"], n["unit selectivity at initialisation, all layers"]
    named = ", ".join(
        f"{kind} {n[f'units named {kind}']:.0f} (before training {n[f'units named {kind} at initialisation']:.0f})"
        for kind in list(KINDS)[:2]
    )
    return (
        f"{told} Its units are {'more' if after > before else 'no more'} selective than at the start ({after:.2f}, "
        f"{before:.2f}); of {n['units examined']:.0f} examined, named: {named}. {_clusters(clusters)}"
    )


def told_the_class(separation: Mapping[str, Found], samples: Mapping[str, Found]) -> list[str]:
    """Notebook 05, one sentence for every prior: do classes separate, and do samples match the one asked for?"""
    told = []
    for prior, found in separation.items():
        if isinstance(found, NotTested):
            return [found.reason]
        ari, made = found.numbers["label inferred: ARI"], samples[prior].numbers
        apart = "separate" if ari > 0.7 else "separate in part" if ari > 0.3 else "do not separate"
        match, real = (
            [made[f"{judge}judge on {of}"] for judge in ("", "pixels: ")] for of in ("samples", "real test clips")
        )
        heard = {
            (True, True): "samples match their class, by both judges",
            (False, True): "samples have everything in its place, and another evenness than music of their class",
            (True, False): "samples have the spectrum of their class, and not its notes and beats",
            (False, False): "samples do not match their class",
        }[match[0] > MATCH, match[1] > MATCH]
        told.append(
            f"Prior {prior}: without the label the classes {apart} (ARI {ari:.2f}); {heard} (spectra {match[0]:.0%}, "
            f"pixels {match[1]:.0%}; real clips {real[0]:.0%} and {real[1]:.0%})."
        )
        if match[0] <= MATCH and made["genres in a class"] > 1:
            told[-1] += (
                f" A possible reason, not tested: a class holds {made['genres in a class']:.0f} genres, and a sample "
                "may lie between them."
            )
    return told


def mixture_prior(comparison: Found, soft: Found) -> str:
    """Notebook 06: are the model's own clusters better than those fitted afterwards, and is its uncertainty honest?"""
    if isinstance(comparison, NotTested):
        return comparison.reason
    n, k = comparison.numbers, comparison.numbers["clusters"]
    told = []
    for name in ("VAE + K-Means", "VaDE's codes + K-Means"):
        if f"ARI, VaDE - {name}" in n:
            gap = Interval(*(n[f"ARI, VaDE - {name}{end}"] for end in ("", ", low", ", high")), 1)
            word = "better than" if gap.low > 0 else "worse than" if gap.high < 0 else "not told apart from"
            if name == "VAE + K-Means" and stands_still(n):
                told.append(f"the same clusters as {name} gave them (the joint phase moved no test clip)")
                continue
            told.append(f"{word} {name} ({gap.mean:+.3f}, 95 % over clips {gap.low:+.3f} to {gap.high:+.3f})")
    said = f"With K = {k:.0f}, VaDE's own components (ARI {n['VaDE: ARI']:.3f}) are {' and '.join(told)}."
    if isinstance(soft, NotTested):
        return f"{said} {soft.reason}"
    n = soft.numbers
    agree = soft.per_clip["agreement, most - least confident quarter"][None]
    more, *ends = (100 * x for x in bootstrap_interval(agree)[:3])  # percentage points
    what = "margin" if always_sure(n) else "uncertainty"
    worth = "something" if n["expected calibration error"] <= CALIBRATED and ends[0] > 0 else "little"
    return (
        f"{said} Its {what} is worth {worth}. {calibration(n)}; by the margin, the most certain quarter of the "
        f"clips agrees {abs(more):.0f} percentage points {'more' if more > 0 else 'less'} often with its component's "
        f"genre than the least certain one (95 % over clips {ends[0]:+.0f} to {ends[1]:+.0f})."
    )


def _clusters(found: Found) -> str:
    if isinstance(found, NotTested):
        return f"Clusters are not tested: {found.reason}."
    n = found.numbers
    label = next(k.split(":")[0] for k in n)
    ami = n[f"{label}: AMI"]
    baselines = {k: v for k, v in n.items() if k.startswith(f"{label}: ") and k.endswith(" + K-Means, AMI")}
    best = max(baselines, key=baselines.get)
    rival = best.removeprefix(f"{label}: ").removesuffix(", AMI")
    order = f"{'more' if ami > baselines[best] else 'no more'} of the {label} than {rival} without training"
    if ami <= n[f"{label}: AMI with permuted labels, 95th percentile"]:
        return f"The clusters of its codes say nothing of the {label} (AMI {ami:.2f})."
    return f"The clusters of its codes say {order} (AMI {ami:.2f}, {baselines[best]:.2f})."


def _apart(a: Proof, b: Proof, number: str) -> Interval:
    """Paired difference over the test clips."""
    return bootstrap_interval((a.per_clip[number] - b.per_clip[number])[None])


def _word(difference: Interval, below: bool = False) -> str:
    """Whether a difference is on the hoped-for side, by its interval over clips."""
    low, high = (-difference.high, -difference.low) if below else (difference.low, difference.high)
    return "Yes, in this run" if low > 0 else "No" if high < 0 else "Not told apart"
