"""Proofs about the conditional model: do classes separate, and do samples match the class they were asked for?"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import Pipeline

from .. import plots
from ..config import InputError, one_of
from ..evaluation import clustering as clu
from ..evaluation import generation as gen
from ..evaluation.maps import project
from ..evaluation.separation import linear_probe
from ..runs import Run
from .clusters import known
from .networks import middle_windows
from .proof import Proof


def _require_condition(run: Run) -> str:
    if not run.conditional:
        raise InputError(f"{run.name} has no classes: use a cvae run")
    return run.config.model.condition


def _require_classes(run: Run) -> str:
    """The condition, of which there must be two classes to tell apart in train and in test."""
    label = _require_condition(run)
    for split in ("train", "test"):
        found = len(set(run.labels(split, label)[known(run, split, label)]))
        if found < 2:
            raise InputError(
                f"{run.store.path.name} has {'one' if found else 'no'} {label} in {split}: classes are told apart "
                "from two on, so label more clips or add some of the rare classes"
            )
    return label


def separation(run: Run) -> Proof:
    """Clusters of the conditional model against its classes: with labels given (supervised) and without.

    Raises:
        InputError: no conditional model, or fewer than two classes in train or in test.
    """
    label = _require_classes(run)
    seed, k = run.config.training.seed, len(run.config.model.classes)
    there, train_there = known(run, "test", label, True), known(run, "train", label, True)
    truth, train_truth = run.labels("test", label, True)[there], run.labels("train", label, True)[train_there]
    numbers, points, guess = {}, {}, {}
    for mode, shown in (
        ("given", "label given (supervised)"),
        ("inferred", "label inferred"),
        ("marginal", "marginal"),
    ):
        train, test = run.embed_tracks("train", mode).means[train_there], run.embed_tracks("test", mode).means[there]
        found = clu.kmeans_assign(train, test, min(k, len(train)), seed)
        score = clu.cluster_scores(truth, found)
        for metric in ("ari", "purity"):
            numbers[f"{shown}: {metric.upper() if metric == 'ari' else metric}"] = score[metric]
        numbers[f"{shown}: silhouette of the classes"] = clu.geometry_scores(test, truth)["silhouette"]
        points[f"{run.name}, {shown}"] = project(test, "pca")
        guess[mode] = (found, train, test)
    null = clu.permutation_null(adjusted_rand_score, truth, guess["given"][0], n=50)
    probe = linear_probe(guess["inferred"][1], train_truth, guess["inferred"][2], truth, seed)
    numbers |= {
        "ARI with permuted labels, 95th percentile": null.p95,
        "class read from the label-free code by a linear probe": probe.balanced_accuracy,
        "chance": probe.chance,
    }
    figure, _ = plots.maps(points, truth if k <= 12 else run.labels("test", "family", True)[there],
                           f"colour: {label if k <= 12 else 'family'}; principal axes", columns=3)  # fmt: skip
    given, free = numbers["label given (supervised): ARI"], numbers["label inferred: ARI"]
    sentence = (
        f"K-Means finds the {k} classes of {label} with ARI {given:.2f} when the encoder is given the label, and "
        f"{free:.2f} when it must infer it (permuted labels: {null.p95:.2f}). The first number is supervised: the "
        f"answer was in the question. A linear probe reads the class from the label-free code with "
        f"{probe.balanced_accuracy:.0%} against {probe.chance:.0%} by chance."
    )
    return Proof("separation", run.name, numbers, sentence, figure)


def generate(run: Run, class_name: str | None = None, n_samples: int = 10, temperature: float = 1.0) -> Proof:
    """Sample every class; a classifier trained on real training windows says what it hears.

    Args:
        class_name: The class whose samples are drawn in the figure; all classes are judged. None draws several.
        n_samples: Samples per class.

    Raises:
        InputError: no conditional model, no such class, or fewer than two classes in train or in test.
    """
    label = _require_classes(run)
    classes = list(run.config.model.classes)
    if class_name is not None:
        one_of(f"class of {label}", class_name, classes)
    train_x, test_x = (_heard(run, split)[known(run, split, label)] for split in ("train", "test"))
    train_y, test_y = (run.labels(s, label)[known(run, s, label)] for s in ("train", "test"))
    judge = gen.fit_judge(train_x, train_y, run.config.training.seed)
    wanted = np.repeat(np.arange(len(classes)), n_samples)
    samples = run.sample(len(wanted), wanted, temperature, seed=run.config.training.seed)
    report = gen.judge_report(judge, test_x, test_y, gen.spectrogram_features(samples), np.array(classes)[wanted])
    numbers = {
        "judge on real test clips": report.test_accuracy,
        "judge on samples": report.generated_accuracy,
        "chance": report.chance,
    }
    swapped = _swap(run, judge, label)
    numbers |= {
        "label swap: heard as the class it was decoded with": swapped.target,
        "label swap: heard as the class it was encoded with": swapped.source,
        "judge on samples / judge on real test clips": report.generated_accuracy / max(report.test_accuracy, 1e-9),
    }
    drawn = [class_name] if class_name else classes[:5]
    if class_name:
        numbers[f"samples of {class_name} heard as {class_name}"] = report.per_class[class_name]["generated"]
    rows = {name: samples[classes.index(name) * n_samples :][: min(n_samples, 10)] for name in drawn}
    figure, _ = plots.gallery(rows, run.store.front_end)
    sentence = (
        f"A classifier trained on real clips recognises {report.test_accuracy:.0%} of the real test clips and hears "
        f"the asked-for {label} in {report.generated_accuracy:.0%} of {len(wanted)} samples (chance "
        f"{report.chance:.0%}). Test clips encoded with their own {label} and decoded with another are heard as the "
        f"other in {swapped.target:.0%} and still as their own in {swapped.source:.0%} of the cases. The classifier "
        "judges mean spectra and their spread, not whether a sample sounds like music."
    )
    return Proof("generate", run.name, numbers, sentence, figure)


def _heard(run: Run, split: str, block: int = 64) -> np.ndarray:
    """(clip, 3F): what the judge hears of a split's middle windows."""
    every = np.arange(len(run.store.rows(split)))
    blocks = np.array_split(every, -(-len(every) // block))
    return np.concatenate([gen.spectrogram_features(middle_windows(run, split, index)) for index in blocks])


def _swap(run: Run, judge: Pipeline, label: str) -> gen.SwapReport:
    """Encode test clips with their class, decode with the next one, ask the judge."""
    classes = run.config.model.classes
    own = run.store.codes(label, run.store.rows("test"))
    there = own >= 0
    other = (own[there] + 1) % len(classes)
    decoded = run.decode(run.encode_middle("test", own)[there], other)
    names = np.array(classes)
    return gen.swap_report(judge, gen.spectrogram_features(decoded), names[own[there]], names[other])
