"""Every notebook once through papermill with tiny parameters: the whole path from sound to comparison."""

import dataclasses
import json
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from test_reports import asks_the_web
from vaelib.jobs import Job, defaults, training_jobs
from vaelib_demo import corpus_name

from vaelib import batch, engine, runs
from vaelib.config import ROOT, notebooks_dir
from vaelib.store import open_store, store_path

pytestmark = [pytest.mark.notebooks, pytest.mark.timeout(1800)]  # minutes on a busy machine
NAMES = sorted(p.stem for p in notebooks_dir().glob("*.ipynb"))
DRAWN = {"clips_per_genre": 8, "clip_seconds": 6.5}  # the fewest with two test clips of each genre
MIXES = {"demo": "desk", "clips_per_genre": 60}
TINY = {
    "02_basic_vae": {"pairs": 4},
    "04_beta_vae": {"n_sliders": 2, "desk_epochs": 2},
    "05_conditional_vae": {"n_samples": 3},
    "06_vade": {"components": 8},
}


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> dict[str, Path]:
    """01 (music and desk), then 02-06 (05 twice), then 07, each in its own kernel, in folders of their own."""
    base = tmp_path_factory.mktemp("notebooks")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "OUTPUTS", "PAPERMILL"):
            patch.setenv(f"VAELIB_{name}", str(base / name.lower()))
        first = engine.execute(Job("01_preprocess", DRAWN))
        engine.execute(Job("01_preprocess", MIXES))
        store = store_path(corpus_name("styles", 8, 6.5), "compact")
        TINY["04_beta_vae"]["desk"] = str(store_path(corpus_name("desk", 60), "compact"))
        jobs = [
            dataclasses.replace(job, parameters=job.parameters | TINY.get(job.notebook, {}))
            for job in training_jobs(store, epochs=2, batch_size=32)
        ]
        paths = batch.run_all(jobs)
        comparison = Job("07_compare", {"epochs": 2, "speed_rounds": 1})
        last = engine.execute(comparison)
        again = engine.execute(comparison)  # nothing changed: not executed a second time
        assert again == last
        yield {"01_preprocess": first, **{f"{j.notebook}{j.label}": p for j, p in zip(jobs, paths, strict=True)},
               "07_compare": last, "base": base, "store": store}  # fmt: skip


def test_all_notebooks_ran_to_the_end(executed):
    for name in [n for n in executed if n[0] == "0"]:
        nb = nbformat.read(executed[name], 4)
        code = [c for c in nb.cells if c.cell_type == "code"]
        assert all(c.execution_count for c in code), name
        assert not [o for c in code for o in c.outputs if o.output_type == "error"]
        # a warning or a traceback printed in a report is something a reader stumbles over
        stray = [o["text"] for c in code for o in c.outputs if o.output_type == "stream" and o.name == "stderr"]
        assert not stray, f"{name} wrote to stderr: {stray[0][:300]}"
        assert executed[name].with_suffix(".html").stat().st_size > 50_000
    assert not list(executed["base"].rglob("*.partial*"))


def test_comparison_has_every_model_and_every_file(executed):
    folder = executed["base"] / "outputs" / "comparison"
    table = pd.read_csv(folder / "comparison_table.csv")
    variants = {"basic_vae", "conv_vae", "beta_vae", "vade", "cvae-language-fixed", "cvae-genre-fixed"}
    assert set(table["model"]) == variants
    columns = ["mse", "ari", "ami", "nmi", "purity", "silhouette", "mig", "parameters", "clips_per_s"]
    assert table[columns].notna().all().all()
    assert (table["mse"] > 0).all() and (table["mse"] < 0.2).all()
    page = (folder / "model_comparison.html").read_text()
    assert "src='data:image/webp" in page and not asks_the_web(page) and len(page) < 10_000_000
    assert set(pd.read_csv(folder / "claims.csv")["rung"]) == {"–", "desk", "loops"}
    for name in ("MODEL_COMPARISON_RESULTS.md", *(f"visualizations/{n}.png" for n in ("ladder", "claims", "umap"))):
        assert (folder / name).stat().st_size > 1000


def test_store_of_the_demo_corpus_describes_itself(executed):
    store = open_store(executed["store"])
    assert store.front_end.shape == (64, 64) and len(store.table) == 360
    assert {"key", "energy", "brightness", "vocal_level"} <= set(store.factors) and "tempo" not in store.factors
    assert store.table.groupby("split")["genre"].nunique().eq(45).all()


def test_a_finished_run_is_opened_not_trained_again(executed, monkeypatch):
    monkeypatch.setenv("VAELIB_OUTPUTS", str(executed["base"] / "outputs"))
    run = runs.latest_run(model="conv_vae")
    before = (run.folder / "best.safetensors").stat().st_mtime_ns
    again = runs.fit(run.config, run.store, show=False)
    assert again.folder == run.folder and (run.folder / "best.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook_has_the_house_anatomy(name):
    nb = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    code = [c for c in nb["cells"] if c["cell_type"] == "code"]
    assert sum("parameters" in c["metadata"].get("tags", []) for c in code) == 1
    assert not any(c["outputs"] or c["execution_count"] for c in code), "commit notebooks without outputs"
    sources = ["".join(c["source"]) for c in code]
    assert not [s for s in sources if any(line.startswith(("def ", "class ")) for line in s.splitlines())]
    parameters = next("".join(c["source"]) for c in code if c["metadata"].get("tags"))
    assert all(": " in line and "  # " in line for line in parameters.splitlines()), "type hint and comment each"
    assert set(defaults(name)) == {line.split(":")[0] for line in parameters.splitlines()}
