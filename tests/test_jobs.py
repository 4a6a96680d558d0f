"""What is executed: parameters are checked before anything starts, names say what a job is."""

import dataclasses

import pytest

from vaelib import jobs
from vaelib.config import InputError
from vaelib.jobs import Job


def test_strings_take_the_type_of_the_default(shelf):
    assert jobs.checked("good", {"n": "3", "rate": "1e-3", "flag": "true", "name": 5}) == {
        "n": 3, "rate": 1e-3, "flag": True, "name": "5",
    }  # fmt: skip


def test_unknown_notebook_names_the_nearest(shelf):
    with pytest.raises(InputError, match="did you mean 'good'"):
        jobs.checked("goood", {})


def test_the_title_says_what_is_trained():
    assert Job("03_conv_vae", {"store": "a.zarr", "seed": 2, "epochs": 60, "detilt": True}).title == (
        "03_conv_vae-60epochs-detilt-seed2"
    )
    given = {"seed": 0, "epochs": 4, "condition": "genre", "priors": "standard,fixed", "detilt": False, "lr": 0.01}
    assert Job("05_conditional_vae", given, "genre").title == (
        "05_conditional_vae-genre-standard,fixed-4epochs-lr0.01-seed0"
    )
    assert Job("04_beta_vae", {"beta": 8.0, "desk": "/some/desk.zarr"}).words == ["beta 8"]
    assert Job("07_compare", {"outputs": "/some/where"}).title == "07_compare"
    assert "/" not in Job("03_conv_vae", {"target": "a/b"}).name


def test_a_training_notebook_is_repeated_when_its_run_is_gone(store, tmp_path, monkeypatch):
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path))
    job = Job("03_conv_vae", {"store": str(store.path), "epochs": 1, "seed": 0})
    assert not job.left_its_run() and Job("01_preprocess").left_its_run()
    given = {"store": str(store.path), "seed": 3, "epochs": 16, "priors": "standard,fixed"}
    wanted = [w for w, _ in Job("05_conditional_vae", given).runs()]
    assert [w["prior"] for w in wanted] == ["standard", "fixed"]
    assert {k: wanted[0][k] for k in ("model", "condition", "epochs", "seed", "detilt", "fingerprint")} == {
        "model": "cvae", "condition": "language", "epochs": 16, "seed": 3, "detilt": False,
        "fingerprint": store.attrs["fingerprint"],
    }  # fmt: skip


def test_the_runs_of_a_desk_are_told_apart_by_their_start(store, tmp_path):
    given = {"store": str(store.path), "desk": str(store.path), "beta": 3.0, "seed": 2, "desk_epochs": 5}
    wanted = [w for w, _ in Job("04_beta_vae", given | {"desk_starts": "components,random"}).runs(tmp_path)]
    common = {"fingerprint": store.attrs["fingerprint"], "seed": 2, "epochs": 5, "sigma": 0.2}
    assert wanted[1:] == [
        common | {"start_components": n, "model": model, "beta": beta}
        for n in (5, 0) for model, beta in (("beta_vae", 3.0), ("conv_vae", 1.0))
    ]  # fmt: skip
    gone = Job("04_beta_vae", given | {"desk": str(tmp_path / "none.zarr")})
    assert len(gone.runs(tmp_path)) == 1  # the notebook leaves that part out
    assert gone.name != Job("04_beta_vae", given).name != Job("04_beta_vae", given, page=False).name


def test_a_label_with_one_class_gets_no_conditional_model(store, monkeypatch, capsys):
    assert [j.label for j in jobs.training_jobs(store.path, 1)] == ["", "", "", "", "language", "genre"]
    alike = dataclasses.replace(store, table=store.table.assign(language="english"))
    monkeypatch.setattr(jobs, "open_store", lambda path: alike)
    assert [j.label for j in jobs.training_jobs(store.path, 1)] == ["", "", "", "", "genre"]
    assert "by language left out" in capsys.readouterr().err
