"""Answers follow from the numbers: what these deny is not said."""

from types import SimpleNamespace

import numpy as np
import pytest

from vaelib.proofs import NotTested, Proof, answers


def proof(name, numbers, per_clip=None):
    return Proof(name, "run", numbers, "", SimpleNamespace(), per_clip or {})


def clusters(ami, baseline):
    return proof("clustering", {"genre: clusters": 6.0, "genre: AMI": ami,
                                "genre: AMI with permuted labels, 95th percentile": 0.1,
                                "genre: PCA of the log-mel + K-Means, AMI": baseline})  # fmt: skip


@pytest.mark.parametrize(
    ("own", "untrained", "constant", "said"),
    [
        (
            0.99,
            0.5,
            0.0,
            "Yes, 99% of the walks are gradual. Through an untrained decoder 50% are: the rest was learned.",
        ),
        (0.99, 1.0, 0.0, "not with learning"),
        (0.4, 0.0, 0.0, "No, 40%"),
        (0.99, 0.5, 0.9, "The measure is broken"),
    ],
)
def test_gradual_walks_are_claimed_only_beside_their_controls(own, untrained, constant, said):
    decoders = {"": own, "untrained decoder: ": untrained, "constant decoder: ": constant}
    smooth = proof("smoothness", {f"{who}share of gradual paths": v for who, v in decoders.items()})
    found = answers.smooth_space(smooth, clusters(0.6, 0.5))
    assert said in found and "say more of the genre than PCA of the log-mel + K-Means" in found
    assert "no more of the genre" in answers.smooth_space(smooth, clusters(0.4, 0.5))
    assert "say nothing of the genre" in answers.smooth_space(smooth, clusters(0.05, 0.5))
    assert "not tested: why" in answers.smooth_space(smooth, NotTested("clustering", "run", "why"))


def test_convolutions_are_better_only_where_the_clips_tell_so():
    rng = np.random.default_rng(0)
    mse = rng.uniform(0.01, 0.02, 40)

    def copies(error, edges):
        values = {"MSE per bin": error, "edge energy kept, time": edges, "onset-envelope correlation": edges}
        return proof("reconstruction", {}, values)

    filters = proof("filters", {
        "unit selectivity, all layers": 0.2, "unit selectivity at initialisation, all layers": 0.3,
        "units examined": 8.0,
        **{f"units named {kind}{when}": 1.0 for kind in ("frequency band", "onset or rhythm")
           for when in ("", " at initialisation")},
    })  # fmt: skip
    rest = filters, clusters(0.6, 0.5)
    basic = copies(mse, rng.uniform(0, 0.1, 40))
    found = answers.convolutions(copies(mse - 0.004, rng.uniform(0.4, 0.5, 40)), basic, *rest)
    assert found.startswith("Yes, in this run: the error per bin is -0.0040") and "no more selective" in found
    assert answers.convolutions(copies(mse + 0.004, mse), basic, *rest).startswith("No: ")
    noise = copies(mse + rng.normal(0, 0.004, 40), mse)
    assert answers.convolutions(noise, basic, *rest).startswith("Not told apart")
    assert "is open" in answers.convolutions(basic, None, *rest)


@pytest.mark.parametrize(
    ("ari", "spectra", "pixels", "said"),
    [
        (0.95, 0.9, 0.95, "the classes separate (ARI 0.95); samples match their class, by both judges"),
        (0.5, 0.3, 0.9, "separate in part (ARI 0.50); samples have everything in its place"),
        (0.1, 0.9, 0.3, "do not separate (ARI 0.10); samples have the spectrum of their class"),
        (0.1, 0.1, 0.1, "samples do not match their class"),
    ],
)
def test_classes_and_samples_by_both_judges(ari, spectra, pixels, said):
    separation = {"fixed": proof("separation", {"label inferred: ARI": ari})}
    made = {"judge on samples": spectra, "pixels: judge on samples": pixels}
    made |= {"judge on real test clips": 1.0, "pixels: judge on real test clips": 0.98, "genres in a class": 9.0}
    (found,) = answers.told_the_class(separation, {"fixed": proof("generate", made)})
    assert ("A possible reason, not tested: a class holds 9 genres" in found) == (spectra < 0.8)
    (found,) = answers.told_the_class(separation, {"fixed": proof("generate", made | {"genres in a class": 1.0})})
    assert "A possible reason" not in found
    assert found.startswith("Prior fixed: ") and said in found and "; real clips 100% and 98%)" in found
    missing = {"fixed": NotTested("separation", "run", "one language in test")}
    assert answers.told_the_class(missing, missing) == ["one language in test"]


@pytest.mark.parametrize(
    ("low", "high", "error", "more", "said"),
    [
        (0.01, 0.2, 0.03, 0.2, ("better than VAE + K-Means", "worth something", "20 percentage points more often")),
        (-0.2, -0.01, 0.03, -0.1, ("worse than VAE + K-Means", "worth little", "10 percentage points less often")),
        (-0.1, 0.1, 0.5, 0.2, ("not told apart from VAE + K-Means", "worth little")),
        (-0.1, 0.1, 0.03, 0.01, ("worth little", "1 percentage points more often")),  # not told apart from 0
    ],
)
def test_a_mixture_is_better_and_honest_only_by_its_numbers(low, high, error, more, said):
    gap = "ARI, VaDE - VAE + K-Means"
    comparison = proof("clustering_comparison", {"clusters": 50.0, "VaDE: ARI": 0.9, gap: (low + high) / 2,
                                                 f"{gap}, low": low, f"{gap}, high": high})  # fmt: skip
    values = more + np.tile([-0.5, 0.5], 200)
    errors = {"expected calibration error": error, "expected calibration error, temperature 1": 0.6,
              "lowest confidence, also at temperature 1": 0.4}  # fmt: skip
    soft = proof("soft_clustering", errors, {"agreement, most - least confident quarter": values})
    found = answers.mixture_prior(comparison, soft)
    assert all(words in found for words in said) and "With K = 50" in found
    assert f"Its calibration error is 0.600 as trained, {error:.3f} with a fitted temperature" in found
    soft.numbers["expected calibration error, temperature 1"] = error
    assert "which a fitted temperature does not change" in answers.mixture_prior(comparison, soft)
    soft.numbers["lowest confidence, also at temperature 1"] = 0.9999
    sure = answers.mixture_prior(comparison, soft)
    assert "Its margin is worth" in sure and "It is always sure, so its calibration error" in sure
    comparison.numbers["ARI of VaDE's clusters with the K-Means clusters of its pretraining"] = 1.0
    same = answers.mixture_prior(comparison, soft)
    assert "the same clusters as VAE + K-Means gave them (the joint phase moved no test clip)" in same
    assert answers.mixture_prior(NotTested("clustering_comparison", "run", "no genres"), soft) == "no genres"
