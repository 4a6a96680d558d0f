"""Which factors a collection has, and which of them a latent dimension is named after."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vaelib import factors as f
from vaelib.config import InputError
from vaelib.runs import Embedding


def embedding(means, kl=None) -> Embedding:
    means = np.asarray(means, float)
    kl = np.ones(means.shape[1]) if kl is None else np.asarray(kl, float)
    return Embedding(means, np.zeros_like(means), kl, np.arange(len(means)))


def known(clips: int = 400):
    """Factors drawn independently, and a run's stand-in that embeds every clip as its factors beside noise."""
    rng = np.random.default_rng(0)
    names = ["tempo", "energy", "brightness"]
    table = pd.DataFrame(rng.uniform(size=(clips, 3)), columns=names)
    codes = np.c_[table.to_numpy() * 4 - 2, rng.normal(size=(clips, 4))]
    rows, attrs = lambda split=None: table.index.to_numpy(), {"corpus": "known"}
    store = SimpleNamespace(factors=names, table=table, rows=rows, attrs=attrs, units={"tempo": "ratio"})
    config = SimpleNamespace(training=SimpleNamespace(seed=0))
    return SimpleNamespace(name="known", store=store, config=config, embed=lambda split: embedding(codes))


def test_live_dimensions_are_the_informative_ones_of_the_test_clips_and_at_least_one():
    def live(kl):
        return f.live_dimensions(SimpleNamespace(embed={"test": embedding(np.zeros((3, len(kl))), kl)}.get)).tolist()

    assert live([0.2, 0.0, 3.0, f.LIVE_KL]) == [2, 0]
    assert live([0.0, 0.01, 0.0]) == [1]


def test_dimensions_are_named_after_what_they_know_and_read_on_its_scale():
    run = known()
    found = f.meanings(run)
    assert [f.label(d, found) for d in range(4)] == ["z0 · tempo", "z1 · energy", "z2 · brightness", "z3"]
    z = run.embed(None).means[:, 0]
    np.testing.assert_allclose(found[0].slope * z + found[0].offset, run.store.table["tempo"], atol=1e-9)
    assert (found[3].slope, found[3].offset) == (0, 0) and [found[d].unit for d in range(2)] == ["ratio", ""]


def test_no_name_for_two_factors_alike_and_no_scale_without_a_line():
    run, t = known(), known().store.table
    run.embed = lambda split: embedding(np.c_[t["tempo"] + t["energy"], t["brightness"], np.abs(t["tempo"] - 0.5)])
    found = f.meanings(run)
    assert [found[d].factor for d in range(3)] == ["", "brightness", "tempo"] and found[2].slope == 0


def test_main_factors_are_preferred_one_with_gaps_is_left_out_and_a_key_is_a_name():
    run = known()
    run.store.factors, run.store.table["loudness"] = ["loudness", "brightness", "tempo"], np.arange(400.0)
    assert list(f.factors_of(run).values) == ["tempo", "brightness"]
    run.store.table.loc[7, "tempo"] = np.nan
    assert list(f.factors_of(run).values) == ["brightness"]
    run.store.table["key"] = np.arange(400.0) % 24
    run.store.factors = ["key", "loudness"]
    assert f.factors_of(run).values["key"].dtype.kind == "i" and f.factors_of(run).source == "true"
    run.store.factors = ["loudness"]
    assert list(f.factors_of(run).values) == ["loudness"]


def test_measured_descriptors_stand_in_and_without_those_the_reason_is_given(monkeypatch):
    run = known()
    measured = run.store.table.assign(key=np.nan, loudness=run.store.table["energy"])
    measured.loc[3, "loudness"] = np.nan
    run.store.factors = []
    monkeypatch.setattr(f, "describe", lambda store: measured)
    found = f.factors_of(run)
    assert found.source == "measured" and list(found.values) == ["tempo", "energy", "brightness", "loudness"]
    assert found.rows.tolist() == [i for i in range(400) if i != 3]  # silent there
    assert found.of(np.arange(5)).rows.tolist() == [0, 1, 2, 4]
    assert f.label(0, f.meanings(run)) == "z0 · measured tempo"
    monkeypatch.setattr(f, "describe", lambda store: measured * np.nan)
    with pytest.raises(InputError, match="known has no factors"):
        f.factors_of(run)
    assert f.label(3, f.meanings(run)) == "z3"
