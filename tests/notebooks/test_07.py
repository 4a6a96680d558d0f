"""Notebook 07 as executed on tiny runs of all models, and what is true of every notebook."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from vaelib.config import ROOT, notebooks_dir

from .cells import run_cells
from .conftest import MODELS

NAME = "07_compare"
NAMES = sorted(p.stem for p in notebooks_dir().glob("0*.ipynb"))
COMPUTES = {  # what a reader must find in the notebook itself
    "02_basic_vae": ("np.diff(path", "np.linalg.norm", "KMeans(", "pd.crosstab", "rng.permutation"),
    "03_conv_vae": ("(x - copy) ** 2", "np.corrcoef", "conv2d(", "torch.autograd.grad", "linkage(", "cophenet("),
    "04_beta_vae": ("np.histogram2d", "mutual_information", "ortho_group", "FastICA"),
    "05_conditional_vae": ("KMeans(", "LogisticRegression(", "np.diff(x", "rng.permutation"),
    "06_vade": ("KMeans(", "GaussianMixture(", "np.digitize", "homogeneity_score", "rng.permutation"),
    "07_compare": ("rng.multinomial", "np.percentile", ".groupby("),
}


@pytest.fixture(scope="module")
def compared(notebooks):
    """Folder of the comparison."""
    notebooks.run(NAME)
    return notebooks.base / "outputs" / "comparison"


def test_the_table_has_every_model_with_the_numbers_that_its_notebook_kept(compared, notebooks):
    table = pd.read_csv(compared / "comparison_table.csv").set_index("model")
    assert set(table.index) == set(MODELS.values())
    assert table.filter(regex="rec|genre|language|train").notna().all().all()
    kept = notebooks.results("03_conv_vae").numbers
    assert table.loc["conv_vae", "rec.mse"] == pytest.approx(kept["rec.mse"]) and -0.2 < kept["genre.ari"] < 0.9
    language = notebooks.results("05_conditional_vae").numbers["language.ari"]
    assert table.loc["cvae-language-fixed", "language.ari"] == pytest.approx(language)


def test_every_claim_is_judged_from_the_kept_numbers(compared, notebooks):
    judged = pd.read_csv(compared / "claims.csv")
    assert set(judged["rung"]) == {"–", "desk", "loops"} and judged["id"].nunique() == 33
    missing = judged[judged["verdict"] == "not tested"]["reason"]
    assert missing.str.contains("no finished run of").all(), missing.tolist()
    kept = notebooks.results("02_basic_vae").numbers
    gradual = judged[judged["metric"].str.startswith("share of gradual paths among")].iloc[0]
    assert gradual["value"] == pytest.approx(kept["smooth.gradual"])
    assert gradual["null"] == pytest.approx(kept["smooth.gradual.untrained"])
    assert judged[judged["id"] == "P2"]["value"].tolist() == [2.96, 64.46]


def test_pages_and_pictures_are_there_and_ask_the_web_for_nothing(compared):
    page = (compared / "model_comparison.html").read_text()
    text = (compared / "MODEL_COMPARISON_RESULTS.md").read_text()
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page) and 100_000 < len(page) < 10_000_000
    assert "What we learned" in page and "Experiments on vade, seed 0" in page
    assert "visualizations/ladder.png" in text and "| B1 |" in text


@pytest.fixture(scope="module")
def guide(compared):
    """The cells of the guide, on the runs of the tiny comparison."""
    return run_cells(NAME, "setup", "runs", "guide", outputs=str(compared.parent), epochs=2, speed_rounds=0)


def test_the_guide_says_that_none_is_good_enough(guide):
    need = guide["NEEDS"].iloc[4]  # clusters without any labels
    guide["candidates"] = lambda need: {"a": np.array([[0.2, 0.1, 0.3]]), "b": np.array([[0.1, 0.1, 0.2]])}
    assert guide["advise"](need)["choose"] == "none is good enough (best: a)"
    guide["candidates"] = lambda need: {"a": np.full((1, 9), 0.9), "b": np.full((1, 9), 0.1)}
    assert guide["advise"](need)["choose"] == "a"
    guide["candidates"] = lambda need: {"a": np.array([[0.8, 0.9, 0.9]]), "b": np.array([[0.9, 0.8, 0.8]])}
    assert guide["advise"](need)["choose"] == "a (not told apart from b)"


def test_a_model_that_is_always_sure_is_no_word_on_how_sure_a_cluster_is(guide):
    sure, vade = guide["NEEDS"].set_index("id", drop=False).loc["soft.ece"], guide["first"]["vade"]
    guide["candidates"] = lambda need: {"vade": np.full((1, 9), 0.01)}
    for lowest, answer in {1.0: "none is good enough (vade is always sure", 0.4: "vade"}.items():
        guide["kept"][vade.folder].numbers["soft.confidence.lowest"] = lowest
        assert guide["advise"](sure)["choose"].startswith(answer)


# --- every notebook ---


@pytest.mark.parametrize("name", [*NAMES, "05_conditional_vae-genre"])
def test_executed_to_the_end_without_a_warning(notebooks, name):
    code = [c for c in notebooks.run(name).cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code)
    # what is printed to stderr in a report is something a reader stumbles over
    assert not [o["text"] for c in code for o in c.outputs if o.output_type == "stream" and o.name == "stderr"]


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook_has_its_anatomy(name):
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    assert not any(c["outputs"] or c["execution_count"] for c in code), "commit notebooks without outputs"
    given = [c for c in code if "parameters" in c["metadata"].get("tags", [])]
    assert len(given) == 1
    for line in "".join(given[0]["source"]).splitlines():
        assert re.fullmatch(r"\w+: (str|int|float|bool) = .+  # .+", line), f"type hint and comment each: {line}"
    text = "\n".join("".join(c["source"]) for c in cells)
    assert "papermill notebooks/" in text and "**Question.**" in text
    assert 100 <= sum("".join(c["source"]).count("\n") + 1 for c in code) <= 250
    assert [part for part in COMPUTES.get(name, ()) if part not in text] == []
