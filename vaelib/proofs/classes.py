"""Proofs about the conditional model: do classes separate, and do samples match the class they were asked for?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from .. import plots
from ..config import InputError, one_of
from ..metrics import clustering as clu
from ..metrics import generation as gen
from ..metrics.clustering import project
from ..metrics.judges import ProbeScore, linear_probe
from ..runs import Run
from .clusters import known
from .proof import Proof

MODES = {"given": "label given (supervised)", "inferred": "label inferred", "marginal": "marginal"}
# what a judge hears of a window, and of how many principal components of that; its numbers' names begin with the key
JUDGES = {"": (gen.spectrogram_features, 0), "pixels: ": (gen.pixels, 50)}


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
    numbers, per_clip, points, guess = {}, {}, {}, {}
    for mode, shown in MODES.items():
        train, test = run.embed_tracks("train", mode).means[train_there], run.embed_tracks("test", mode).means[there]
        found = clu.kmeans_assign(train, test, min(k, len(train)), seed)
        for name, metric in (("ARI", adjusted_rand_score), ("purity", clu.purity)):
            values = clu.leave_one_out_values(metric, truth, found)
            numbers[f"{shown}: {name}"], per_clip[f"{shown}: {name}"] = float(values.mean()), values
        numbers[f"{shown}: silhouette of the classes"] = clu.geometry_scores(test, truth)["silhouette"]
        if not np.isnan(numbers[f"{shown}: silhouette of the classes"]):
            per_clip[f"{shown}: silhouette of the classes"] = silhouette_samples(test, truth)
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
    given, inferred, marginal = (numbers[f"{shown}: ARI"] for shown in MODES.values())
    sentence = (
        f"K-Means (K = {k}) finds the {label} with ARI {given:.2f} where the encoder is given the label (supervised: "
        f"the answer was in the question), {inferred:.2f} where it infers it and {marginal:.2f} where it averages over "
        f"all labels (permuted labels: {null.p95:.2f}). {_prior_kept(run, given, inferred, probe)}"
    )
    return Proof("separation", run.name, numbers, sentence, figure, per_clip)


def _prior_kept(run: Run, given: float, inferred: float, probe: ProbeScore) -> str:
    """What the prior asks of the code, and whether the code does it."""
    read = f"a linear probe reads the class from the label-free code with {probe.balanced_accuracy:.0%} (by chance "
    read += f"{probe.chance:.0%})"
    if run.config.model.prior == "standard":
        kept = probe.balanced_accuracy - probe.chance > 0.1 * (1 - probe.chance)
        done = "the code still knows it" if kept else "the code has let go of it"
        return f"The standard prior asks the code to leave out the class, of which the decoder is told: {read}, {done}."
    asked = "This prior asks the code to put every class in a place of its own"
    if given <= 0.3:
        return f"{asked}, which it does not, not even with the label; {read}."
    done = "which the code does" if given > 0.9 else "which it does in part"
    gap = given - inferred
    free = (
        "without the label as well as with it" if gap < 0.05 else f"without the label less well (ARI {gap:.2f} lower)"
    )
    return f"{asked}, {done}, {free}; {read}."


def generate(run: Run, class_name: str | None = None, n_samples: int = 10, temperature: float = 0.7) -> Proof:
    """Sample every class; two classifiers trained on real training windows say what they hear.

    One judges mean spectra and their spread, which is deaf to when things happen; the other the pixels of the window,
    which is deaf to how even or rough they are. A sample of its class convinces both.

    Args:
        class_name: The class whose samples are drawn in the figure; all classes are judged. None draws several.
        n_samples: Samples per class.
        temperature: Scale of the prior's standard deviation.

    Raises:
        InputError: no conditional model, no such class, or fewer than two classes in train or in test.
    """
    label = _require_classes(run)
    classes = list(run.config.model.classes)
    if class_name is not None:
        one_of(f"class of {label}", class_name, classes)
    seed, there = run.config.training.seed, {s: known(run, s, label) for s in ("train", "test")}
    truth = {s: run.labels(s, label)[there[s]] for s in there}
    wanted = np.repeat(np.arange(len(classes)), n_samples)
    samples = run.sample(len(wanted), wanted, temperature, seed=seed)
    decoded, own, other = _swapped(run, label)
    copied = run.reconstruct("test")[1][there["test"]]
    numbers, per_clip = {}, {}
    for name, (hear, components) in JUDGES.items():
        train, test = (_heard(run, split, hear)[there[split]] for split in there)
        judge = gen.fit_judge(train, truth["train"], seed, components)
        report = gen.judge_report(judge, test, truth["test"], hear(samples), np.array(classes)[wanted])
        copies = judge.predict(hear(copied)) == truth["test"]
        values = {
            "judge on real test clips": report.test_values,
            "judge on reconstructions of test clips": copies,
            "judge on samples": report.generated_values,
        }
        heard = judge.predict(hear(decoded))
        for which, of in (("decoded", other), ("encoded", own)):
            values[f"label swap: heard as the class it was {which} with"] = heard == np.array(classes)[of]
        per_clip |= {f"{name}{key}": v for key, v in values.items()}
        heard_as = {c: row["generated"] for c, row in report.per_class.items()}
        numbers |= {f"{name}samples of {c} heard as {c}": share for c, share in heard_as.items()}
    of_class = run.store.table.loc[run.store.rows("train")[there["train"]]].groupby(label)["genre"].nunique()
    numbers |= {"chance": report.chance, "genres in a class": float(of_class.mean())}
    numbers = {key: float(np.mean(v)) for key, v in per_clip.items()} | numbers
    real, drawn = _middle_of_class(run, label), [class_name] if class_name else _some(classes, 5)
    own_samples = {name: samples[i * n_samples :][: min(n_samples, 5)] for i, name in enumerate(classes)}
    rows = {name: np.concatenate([real.get(name, samples[:0]), own_samples[name]]) for name in drawn}
    columns = ["a real test clip", *(f"sample {i + 1}" for i in range(min(n_samples, 5)))]
    figure, _ = plots.gallery(rows, run.store.front_end, columns)
    figure.suptitle(f"{run.name}: samples by {label}, temperature {temperature:g}", fontsize=10)
    spectra, seen = (
        "{:.0%} (real test clips: {:.0%}, their reconstructions: {:.0%})".format(
            *(numbers[f"{name}judge on {of}"] for of in ("samples", "real test clips", "reconstructions of test clips"))
        )
        for name in JUDGES
    )
    swap = "pixels: label swap: heard as the class it was {} with"
    new, old = (numbers[swap.format(which)] for which in ("decoded", "encoded"))
    worst = min(heard_as, key=heard_as.get)
    sentence = (
        f"Of {len(wanted)} samples at temperature {temperature:g}, a judge of mean spectra and their spread hears the "
        f"{label} that was asked for in {spectra}, a judge of pixels in {seen}; chance is {report.chance:.0%}. Hardest "
        f"for the pixels: {worst}, {heard_as[worst]:.0%}. Test clips encoded with their own {label} and decoded with "
        f"another are seen as the other in {new:.0%} and still as their own in {old:.0%} of the cases. Neither judge "
        "says whether a sample sounds like music."
    )
    return Proof("generate", run.name, numbers, sentence, figure, per_clip)


def _heard(run: Run, split: str, hear: Callable[[np.ndarray], np.ndarray], block: int = 64) -> np.ndarray:
    """(clip, D): what a judge hears of a split's middle windows."""
    rows = run.store.rows(split)
    blocks = np.array_split(rows, -(-len(rows) // block))
    return np.concatenate([hear(run.middle_windows(some)) for some in blocks])


def _middle_of_class(run: Run, label: str) -> dict[str, np.ndarray]:
    """Class → (1, mel, frame): the middle window of its first test clip, of the classes that have one."""
    rows, labels = run.store.rows("test"), run.labels("test", label)
    return {name: run.middle_windows(rows[labels == name][:1]) for name in run.config.model.classes if name in labels}


def _some(classes: list[str], most: int) -> list[str]:
    """Evenly chosen classes, at most so many."""
    return [classes[i] for i in np.unique(np.linspace(0, len(classes) - 1, most).round().astype(int))]


def _swapped(run: Run, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Test clips encoded with their class and decoded with the next one, (clip, mel, frame); both classes (clip,)."""
    own = run.store.codes(label, run.store.rows("test"))
    there = own >= 0
    other = (own[there] + 1) % len(run.config.model.classes)
    return run.decode(run.encode_middle("test", own)[there], other), own[there], other
