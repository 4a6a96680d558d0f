"""The seven notebooks, each executed once with tiny parameters, in its own kernel and in folders of its own."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import nbformat
import papermill
import pytest

from vaelib import claims, runs
from vaelib.config import notebooks_dir
from vaelib.plans import BESIDE

from .cells import printed

TRAINED = {"epochs": 2, "batch_size": 32}
TINY = {
    "01_preprocess": {"clips_per_genre": 8, "clip_seconds": 6.5},  # the fewest with two test clips of each genre
    "01_preprocess-desk": {"demo": "desk", "clips_per_genre": 60},
    "02_basic_vae": TRAINED | {"pairs": 4},
    "03_conv_vae": TRAINED,
    "04_beta_vae": TRAINED | {"desk_epochs": 2},
    "05_conditional_vae": TRAINED | {"n_samples": 3},
    "05_conditional_vae-genre": TRAINED | {"n_samples": 3, "condition": "genre"},
    "06_vade": TRAINED | {"components": 8},
    "07_compare": {"epochs": 2, "speed_rounds": 1},
}
MODELS = {"02_basic_vae": "basic_vae", "03_conv_vae": "conv_vae", "04_beta_vae": "beta_vae", "06_vade": "vade",
          "05_conditional_vae": "cvae-language-fixed", "05_conditional_vae-genre": "cvae-genre-fixed"}  # fmt: skip


@dataclass
class Notebooks:
    """Executes a notebook, and those that it needs, when a test first asks for it; all in the folder `base`."""

    base: Path
    done: dict[str, nbformat.NotebookNode] = field(default_factory=dict)

    def run(self, name: str) -> nbformat.NotebookNode:
        """The executed notebook, a key of `TINY`."""
        if name not in self.done:
            given = TINY[name] | ({"store": str(self.store)} if name in MODELS else {})
            if name == "04_beta_vae":
                given["desk"] = str(self.desk)
            for before in MODELS if name == "07_compare" else [n for n in (BESIDE.get(name),) if n]:
                self.run(before)
            source = notebooks_dir() / f"{name.partition('-')[0]}.ipynb"
            target = self.base / "papermill" / f"{name}.ipynb"
            how = {"cwd": notebooks_dir(), "progress_bar": False, "kernel_name": "python3"}
            self.done[name] = papermill.execute_notebook(source, target, given, **how)
        return self.done[name]

    @cached_property
    def store(self) -> Path:
        """The mel store of the tiny demo collection."""
        self.run("01_preprocess")
        return next(p for p in (self.base / "data" / "stores").glob("*.zarr") if "desk" not in p.name)

    @cached_property
    def desk(self) -> Path:
        """The mel store of the tiny desk."""
        self.run("01_preprocess-desk")
        return next((self.base / "data" / "stores").glob("desk*.zarr"))

    def trained(self, name: str) -> runs.Run:
        """The newest run that a model's notebook trained on the demo collection."""
        self.run(name)
        found = runs.newest_of_each(self.base / "outputs", corpus=self.store.stem)
        return next(run for run in found if run.name == MODELS[name])

    def results(self, name: str) -> claims.Results:
        """What that run's notebook kept."""
        return claims.read(self.trained(name))

    def printed(self, name: str) -> str:
        """Everything that a notebook printed."""
        return printed(self.run(name))


def pytest_collection_modifyitems(items):
    """What executes notebooks takes minutes."""
    for item in items:
        if "notebooks" in item.fixturenames:
            item.add_marker(pytest.mark.notebooks)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def notebooks(tmp_path_factory):
    """The notebooks, executed as tests ask for them (minutes)."""
    base = tmp_path_factory.mktemp("notebooks")
    (base / "papermill").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "OUTPUTS", "PAPERMILL"):
            patch.setenv(f"VAELIB_{name}", str(base / name.lower()))
        yield Notebooks(base)
