"""A reader of factors: patterns mixed at known levels, pixels without any."""

import numpy as np
import pytest

from vaelib.metrics.reading import Reader, coarse


def mixes(n: int, seed: int = 0):
    """Two patterns of 8 × 10 bins added at independent levels, the second with a level from 0 to 10."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(9).uniform(size=(2, 8, 10))
    levels = {"one": rng.uniform(size=n), "two": rng.uniform(0, 10, n)}
    x = 0.1 * np.einsum("n,ft->nft", levels["one"], patterns[0]) + 0.01 * np.einsum(
        "n,ft->nft", levels["two"], patterns[1]
    )
    return x, levels


def test_levels_of_patterns_are_read_in_their_own_units():
    reader = Reader(*mixes(60))
    x, levels = mixes(20, seed=1)
    found = reader.read(x)
    np.testing.assert_allclose(found["two"], levels["two"], atol=0.3)
    assert min(reader.r2(x, levels).values()) > 0.99


def test_one_level_that_moves_moves_one_reading():
    reader = Reader(*mixes(60))
    x, _ = mixes(2, seed=1)
    louder = x + 0.01 * np.random.default_rng(9).uniform(size=(2, 8, 10))[0]
    change = (reader.read(louder) - reader.read(x)).to_numpy()
    np.testing.assert_allclose(change, [[0.1, 0], [0.1, 0]], atol=0.02)


def test_a_factor_that_leaves_no_trace_is_not_read():
    x, levels = mixes(60)
    other, truth = mixes(40, seed=1)
    rng = np.random.default_rng(5)
    reader = Reader(x, levels | {"none": rng.uniform(size=60)})
    assert reader.r2(other, truth | {"none": rng.uniform(size=40)})["none"] < 0.2


@pytest.mark.parametrize("shape", [(64, 64), (128, 1293)])
def test_fine_spectrograms_are_averaged(shape):
    x = np.random.default_rng(0).uniform(size=(2, *shape))
    found = coarse(x)
    assert found.shape == (2, 64, 64)
    if shape == (64, 64):
        np.testing.assert_array_equal(found, x)
    np.testing.assert_allclose(found[0, 0, 0], x[0, : shape[0] // 64, : shape[1] // 64].mean())
    np.testing.assert_allclose(found.mean(), x.mean(), rtol=1e-2)
