"""What notebook 04 says it has learned follows the numbers, whichever way they fall."""

from types import SimpleNamespace

import numpy as np
import pytest

from vaelib import proofs
from vaelib.config import InputError, TrainConfig
from vaelib.proofs.registry import Measured


def run(mig: float, own: int = 5, beta: float = 4.0, components: int = 5, live: float = 5.0, rotated: float = 0.1,
        lr: float = 1e-3):  # fmt: skip
    """A run's stand-in with its measured numbers."""
    rng = np.random.default_rng(0)
    numbers = {
        "MIG": mig, "MIG, low": mig - 0.01,
        "factors": 5.0, "factors with one dimension of their own": float(own), "live dimensions": live,
        "MIG with permuted factors, 95th percentile": 0.01, "MIG after random rotations, 95th percentile": rotated,
        "MIG of PCA components": 0.2, "MIG of FastICA components": 0.5, "DCI disentanglement": 0.9, "SAP": 0.6,
    }  # fmt: skip
    noise = rng.normal(0, 0.1, 400)
    measured = {
        "disentanglement": Measured(numbers, {"MIG": mig + noise - noise.mean()}),
        "traversal": Measured(
            {"mean share over the live dimensions": 0.8, "mean share along random directions": 0.3}, {}
        ),
        "reconstruction": Measured({"R² against the mean spectrogram": 0.9 - 0.01 * beta}, {}),
    }  # fmt: skip
    training = TrainConfig(beta=beta, epochs=2, lr=lr, sigma=0.2, start_components=components)
    return SimpleNamespace(
        measured=measured, config=SimpleNamespace(training=training), store=SimpleNamespace(attrs={"corpus": "c"}),
        embed=lambda split: SimpleNamespace(kl=np.full(5, 10 / beta)),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    def measure(given, name):
        if name not in given.measured:
            raise InputError("c has no factors: fill a column")
        return given.measured[name]

    monkeypatch.setattr("vaelib.proofs.lessons.measure", measure)


def test_the_question_is_answered_by_rotations_and_by_factors_with_a_dimension_of_their_own():
    assert proofs.answer(run(0.4), "The desk") == (
        "The desk: yes. 5 of 5 factors have one dimension of their own; MIG 0.400 is above what random directions of "
        "the same space reach (0.100)."
    )
    assert proofs.answer(run(0.4, own=3), "It").startswith("It: in part. 3 of 5")
    assert proofs.answer(run(0.4, own=0), "It").startswith("It: no. 0 of 5")
    assert "It: no. 5 of 5 factors have one dimension of their own; MIG 0.400 is not told apart from" in proofs.answer(
        run(0.4, rotated=0.5), "It"
    )
    near = proofs.answer(run(0.4, rotated=0.395), "It")  # above it, but not over the clips
    assert near.startswith("It: no.") and "not told apart from what random directions" in near
    assert proofs.answer(SimpleNamespace(measured={}), "It") == "It: nobody can say, without factors."


@pytest.mark.parametrize(
    ("mig", "drawn", "said"),
    [
        (0.4, 0.05, "it is the start that separates"),
        (0.4, 0.2, "the start separates further"),
        (0.4, 0.6, "the start was not needed"),
        (0.05, 0.2, "only that one separates"),
        (0.05, 0.04, "neither separates"),
    ],
)
def test_the_start_is_told_apart_where_a_random_one_was_trained(mig, drawn, said):
    started, beside = run(mig), run(drawn, components=0)
    assert f"From a random start {drawn:.2f}: {said}." in proofs.desk_lessons([started, beside])[0]
    alone = proofs.desk_lessons([started])
    assert "from a random start was not tried" in alone[0] and not any("instead of 1" in s for s in alone)


@pytest.mark.parametrize(
    ("plain", "said"),
    [(0.4, "no difference that these clips could tell"), (0.3, "it separates more"), (0.6, "it separates less")],
)
def test_what_beta_does_is_said_of_the_run_that_differs_in_nothing_else(plain, said):
    other = [run(0.9, beta=1.0, components=0), run(0.9, beta=1.0, lr=2e-3), run(plain, beta=1.0, live=7)]
    sentence = proofs.desk_lessons([run(0.4), *other])[1]
    assert sentence.startswith(f"β = 4 instead of 1: MIG {plain:.3f} → 0.400") and said in sentence
    assert "Live dimensions 7 → 5, 50.0 → 12.5 nats per window, R² 0.89 → 0.86." in sentence


def test_the_table_puts_linear_components_beside_the_models():
    table = proofs.starts_table([run(0.4), run(0.1, components=0)])
    assert table["MIG"].tolist() == [0.2, 0.5, 0.4, 0.1]
    assert list(table.index) == [
        "PCA, 5 components of the windows", "FastICA, 5 components of the windows",
        "VAE, β = 4, start on components", "VAE, β = 4, random start",
    ]  # fmt: skip
    few = run(0.4)
    del few.measured["traversal"]  # no reader reads so few clips
    assert np.isnan(proofs.starts_table([few])["one factor"].iloc[-1])


def test_a_corpus_without_factors_or_without_a_rival_still_has_its_lesson():
    assert proofs.corpus_lessons(SimpleNamespace(measured={}), []) == ["c has no factors: fill a column"]
    told = proofs.corpus_lessons(run(0.05), [])
    assert "not told apart from random directions" in told[0] and told[1].startswith("No run with β = 1")
