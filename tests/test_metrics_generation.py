"""Judges that hear the class, and one that cannot."""

import numpy as np
import pytest

from vaelib.config import InputError
from vaelib.metrics.generation import fit_judge, judge_report, pixels, spectrogram_features

NAMES = np.array(["arab", "metal", "salsa"])


def clips(n=90, seed=0, loud=3.0):
    """Spectrograms whose class is a loud band."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(size=(n, 3, 12))
    x[np.arange(n), y] += loud
    return spectrogram_features(x), NAMES[y]


@pytest.fixture(scope="module")
def judge():
    return fit_judge(*clips())


def test_features_by_hand():
    x = np.array([[[0.0, 1, 0, 1], [2, 2, 2, 2]]])
    np.testing.assert_allclose(spectrogram_features(x), [[0.5, 2, 0.5, 0, 1, 0]])


def test_report_of_true_wrong_and_half_right_generations(judge):
    test_x, test_y = clips(60, 1)
    true = judge_report(judge, test_x, test_y, *clips(30, 2))
    assert true[:3] == (1, 1, pytest.approx(1 / 3))
    assert true.test_values.tolist() == [1] * 60 and true.generated_values.tolist() == [1] * 30
    assert true.per_class["metal"] == {"test": 1, "generated": 1, "n": 10}
    gen_x, gen_y = clips(30, 2)
    wrong = judge_report(judge, test_x, test_y, gen_x, np.roll(gen_y, 1))
    assert (wrong.test_accuracy, wrong.generated_accuracy) == (1, 0)
    deaf = judge_report(judge, test_x, test_y, *clips(300, 3, loud=0))
    assert deaf.generated_accuracy == pytest.approx(1 / 3, abs=0.12)


def test_accuracy_is_balanced_and_missing_classes_are_left_out(judge):
    gen_x, gen_y = clips(90, 2)
    keep = np.r_[np.flatnonzero(gen_y == "arab"), np.flatnonzero(gen_y == "metal")[:2]]
    asked = np.where(gen_y[keep] == "metal", "salsa", gen_y[keep])  # 30 right, 2 wrong
    report = judge_report(judge, *clips(60, 1), gen_x[keep], asked)
    assert report.generated_accuracy == 0.5 == pytest.approx(report.generated_values.mean())
    assert sorted(set(report.generated_values)) == pytest.approx([0, 32 / 30 / 2])
    assert np.isnan(report.per_class["metal"]["generated"]) and report.per_class["metal"]["n"] == 0
    nothing = judge_report(judge, *clips(60, 1), gen_x[:0], gen_y[:0])
    assert np.isnan(nothing.generated_accuracy) and nothing.test_accuracy == 1


def test_a_class_the_judge_never_heard_is_named(judge):
    x, y = clips(30, 1)
    with pytest.raises(InputError, match="'polka'"):
        judge_report(judge, x, y, x, np.full(30, "polka"))
    with pytest.raises(InputError, match="two classes"):
        fit_judge(x, np.full(30, "salsa"))


def test_pixels_are_the_thinned_window_and_a_judge_reads_their_components():
    assert pixels(np.arange(24.0).reshape(1, 4, 6), most=2).tolist() == [[0, 3, 12, 15]]  # every second, every third
    rng = np.random.default_rng(0)

    def windows(n, loud):
        """A class is *when* its loud frame comes, which mean and spread over time cannot tell."""
        y = np.arange(n) % 3
        x = rng.normal(size=(n, 8, 12))
        x[np.arange(n), :, 4 * y] += loud
        return x, NAMES[y]

    (x, y), (test_x, test_y) = windows(90, 3), windows(60, 3)
    seen = fit_judge(pixels(x), y, components=5)
    assert judge_report(seen, pixels(test_x), test_y, pixels(test_x), test_y).test_accuracy > 0.95
    heard = fit_judge(spectrogram_features(x), y)
    assert (heard.predict(spectrogram_features(test_x)) == test_y).mean() < 0.6
