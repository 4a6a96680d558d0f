"""A reader of factors: patterns mixed at known levels, and a factor that leaves no trace."""

import numpy as np
import pytest

from vaelib.metrics.reading import Reader, coarse

PATTERNS = np.random.default_rng(9).uniform(size=(2, 8, 10))


def mixes(n: int, seed: int = 0):
    """Two patterns of 8 × 10 bins added at independent levels; the factor `none` leaves no trace."""
    rng = np.random.default_rng(seed)
    levels = {"one": rng.uniform(size=n), "two": rng.uniform(0, 10, n)}
    x = np.einsum("pn,pft->nft", [0.1 * levels["one"], 0.01 * levels["two"]], PATTERNS)
    return x, levels | {"none": rng.uniform(size=n)}


def test_levels_of_patterns_are_read_in_their_own_units_and_nothing_else_is():
    reader = Reader(*mixes(60))
    x, levels = mixes(40, seed=1)
    np.testing.assert_allclose(reader.read(x)["two"], levels["two"], atol=0.3)
    r2 = reader.r2(x, levels)
    assert r2["one"] > 0.99 and r2["two"] > 0.99 and r2["none"] < 0.2
    change = (reader.read(x + 0.01 * PATTERNS[0]) - reader.read(x))[["one", "two"]]
    np.testing.assert_allclose(change, np.tile([0.1, 0], (40, 1)), atol=0.02)


@pytest.mark.parametrize("shape", [(64, 64), (128, 1293)])
def test_fine_spectrograms_are_averaged(shape):
    x = np.random.default_rng(0).uniform(size=(2, *shape))
    found = coarse(x)
    assert found.shape == (2, 64, 64)
    np.testing.assert_allclose(found[0, 0, 0], x[0, : shape[0] // 64, : shape[1] // 64].mean())
    np.testing.assert_allclose(found.mean(), x.mean(), rtol=1e-2)
