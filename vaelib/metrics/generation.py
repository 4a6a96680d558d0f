"""Do generated spectrograms look like their class to classifiers trained on real ones?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline

from vaelib.config import InputError
from vaelib.metrics.judges import fit_linear
from vaelib.metrics.statistics import mean_known


class JudgeReport(NamedTuple):
    """The judge on real and on generated clips, balanced over classes.

    `per_class` maps a class to {"test": recall, "generated": recall, "n": generated}; nan without clips. The values
    behind the accuracies, (N,) and (M,), are 0 for a clip that is taken for another class and alike within a class;
    their means are the accuracies.
    """

    test_accuracy: float
    generated_accuracy: float
    chance: float
    per_class: dict[str, dict[str, float]]
    test_values: np.ndarray
    generated_values: np.ndarray


def spectrogram_features(x: np.ndarray) -> np.ndarray:
    """What the judge of spectra hears of (N, F, T): mean, spread and mean change over time per band, (N, 3F).

    Deaf to when anything happens, and strict about how much changes: samples that are too smooth fail it.
    """
    x = np.asarray(x, dtype=float)
    return np.concatenate([x.mean(2), x.std(2), np.abs(np.diff(x, axis=2)).mean(2)], axis=1)


def pixels(x: np.ndarray, most: int = 64) -> np.ndarray:
    """What the judge of pixels sees of (N, F, T): the window itself, thinned to at most `most` bands and frames."""
    bands, frames = (-(-n // most) for n in x.shape[1:])
    return np.asarray(x[:, ::bands, ::frames], np.float32).reshape(len(x), -1)


def fit_judge(train_x: np.ndarray, train_y: np.ndarray, seed: int = 0, components: int = 0) -> Pipeline:
    """Logistic regression on standardised features (N, D) of real clips.

    Args:
        components: On so many principal components of the features, for features that are many (pixels); at most one
            for every fourth clip. 0: on the features themselves.

    Raises:
        InputError: fewer than two classes.
    """
    if len(train_x) != len(train_y) or len(np.unique(train_y)) < 2:
        raise InputError("a judge needs one label per clip and at least two classes to tell apart")
    if not components:
        return fit_linear(train_x, train_y, seed)
    components = min(components, max(1, len(train_x) // 4), train_x.shape[1])  # the least ones of few clips are noise
    pca = PCA(components, svd_solver="randomized", random_state=seed).fit(train_x)
    return make_pipeline(pca, fit_linear(pca.transform(train_x), train_y, seed))


def judge_report(
    judge: Pipeline, test_x: np.ndarray, test_y: np.ndarray, gen_x: np.ndarray, gen_y: np.ndarray
) -> JudgeReport:
    """Judge real test clips and generated ones; the second number means nothing without the first.

    Args:
        judge: From `fit_judge`.
        test_x: Features of real test clips, (N, D).
        test_y: Their classes, (N,).
        gen_x: Features of generated clips, (M, D).
        gen_y: The classes asked for, (M,).

    Returns:
        Mean recall over classes for both, chance (1 / classes of the judge), and each class.

    Raises:
        InputError: A class that the judge has not been trained on.
    """
    known = judge.classes_
    for name in np.union1d(test_y, gen_y):
        if name not in known:
            raise InputError(f"the judge was not trained on class {name!r}: valid: {', '.join(map(str, known))}")
    real, made = (judge.predict(x) if len(x) else np.array([]) for x in (test_x, gen_x))
    test_y, gen_y = np.asarray(test_y), np.asarray(gen_y)
    per_class = {
        str(name): {
            "test": _recall(real, test_y, name),
            "generated": _recall(made, gen_y, name),
            "n": int((gen_y == name).sum()),
        }
        for name in known
    }
    accuracy = [mean_known(row[key] for row in per_class.values()) for key in ("test", "generated")]
    values = _balanced(real == test_y, test_y), _balanced(made == gen_y, gen_y)
    return JudgeReport(*accuracy, 1 / len(known), per_class, *values)


def _balanced(right: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) values whose mean is the mean recall over the classes of `truth` (N,)."""
    names, of_class, count = np.unique(truth, return_inverse=True, return_counts=True)
    return right * len(truth) / (len(names) * count[of_class]) if len(truth) else np.zeros(0)


def _recall(guess: np.ndarray, truth: np.ndarray, name: object) -> float:
    of_class = truth == name
    return float((guess[of_class] == name).mean()) if of_class.any() else np.nan
