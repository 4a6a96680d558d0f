"""Shared fixtures: folders that never touch the repository, a tiny corpus of tones, its store, small models.

Tests run in several processes (pytest-xdist), a file in one of them; `-n 0` runs all of them in this one.
"""

import itertools
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Before anything else is imported: one thread for each process that tests start, and modules are compiled once for all
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    sys.pycache_prefix = os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".pytest_cache" / "bytecode"))
    sys.dont_write_bytecode = False

import nbformat
import numpy as np
import pandas as pd
import soundfile
import torch
from hypothesis import HealthCheck, settings

from vaelib.config import FrontEnd, ModelConfig
from vaelib.runs import Run, fit, plan
from vaelib.store import Store, build_store, open_store

torch.set_num_threads(1)

# What takes longest begins first, so that nothing long is left over when the rest is done
LONGEST = ("tests/notebooks", "tests/browser", "tests/test_batch.py", "tests/test_benchmarks.py")

# The same examples in every run, and no clock: a fuzz test never flakes. VAELIB_FUZZ=2000 looks further, at random.
MORE = int(os.environ.get("VAELIB_FUZZ", 0))
fuzz = {"max_examples": MORE or 60, "derandomize": not MORE, "suppress_health_check": list(HealthCheck)}
settings.register_profile("vaelib", deadline=None, database=None, **fuzz)
settings.load_profile("vaelib")

RATE = 22_050
TINY = FrontEnd("tiny", n_mels=16, n_fft=2048, hop=2048, frames=16)  # epochs of milliseconds
LANGUAGES, GENRES, CLIPS = ("arabic", "bangla", "spanish"), ("pop", "folk"), 6


def tone(f0=220.0, seconds=7.0, rate=RATE, amplitude=0.3, seed=0) -> np.ndarray:
    """A pulsed harmonic tone over faint noise, (samples,) float32."""
    t, rng = np.arange(int(seconds * rate)) / rate, np.random.default_rng(seed)
    harmonics = sum(np.sin(2 * np.pi * f0 * k * t + rng.uniform(0, 6)) / k for k in range(1, 9))
    pulse = 0.6 + 0.4 * np.sin(2 * np.pi * 2 * t)
    return (amplitude * (harmonics * pulse / 2 + 0.02 * rng.normal(size=t.size))).astype(np.float32)


def write_tones(folder: Path, clips: int = CLIPS, languages=LANGUAGES, genres=GENRES, **extra) -> Path:
    """A corpus of FLAC files with a manifest: labels, and the factors `tempo` and `energy`."""
    rows, places = [], itertools.product(enumerate(languages), enumerate(genres), range(clips))
    for n, ((i, language), (j, family), k) in enumerate(places):
        path, energy = f"{language}/{language}_{family}/{k:02d}.flac", 0.1 + 0.05 * k
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        wave = tone(110 * (i + 1) * (1 + 0.5 * j), 7 + 0.25 * (k % 3), amplitude=energy, seed=n)
        soundfile.write(folder / path, wave, RATE)
        labels = {"language": language, "genre": f"{language}_{family}", "family": family}
        rows.append({"path": path, **labels, "tempo": 90.0 + n, "energy": energy, "phrases": "a b"})
    pd.DataFrame(rows).assign(**extra).to_csv(folder / "manifest.csv", index=False)
    return folder


def _unit(nodeid: str) -> str:
    """What stays in one process: a file; those that share a JupyterLab or executed notebooks are one unit."""
    path = nodeid.partition("::")[0]
    return next((folder for folder in LONGEST[:2] if path.startswith(f"{folder}/")), path)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: [*LONGEST, _unit(item.nodeid)].index(_unit(item.nodeid)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class ByUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _unit(nodeid)

    return ByUnit(config, log)


@pytest.fixture(autouse=True, scope="session")
def folders(tmp_path_factory):
    """Corpora, stores, runs and notebooks go to a temporary folder in every test."""
    root = tmp_path_factory.mktemp("vaelib")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("data", "outputs", "papermill"):
            patch.setenv(f"VAELIB_{name.upper()}", str(root / name))
        yield root


@pytest.fixture(scope="session")
def corpus(folders) -> Path:
    """3 languages × 2 genres × 6 clips of 7 to 7.5 s."""
    return write_tones(folders / "tones")


@pytest.fixture(scope="session")
def store(corpus) -> Store:
    """The tones under the `tiny` front end: 24 clips to train on, 6 to validate, 6 to test."""
    return open_store(build_store(corpus, TINY))


@pytest.fixture(scope="session")
def tiny_runs(store, tmp_path_factory) -> dict[str, Run]:
    """A finished run of every model on the tones, two epochs each, by name; read only. `seed1` is a second Conv VAE."""
    more = {"basic_vae": {}, "conv_vae": {}, "seed1": {"seed": 1}, "beta_vae": {}, "vade": {"pretrain_epochs": 1},
            "cvae": {"condition": "language", "prior": "fixed"}}  # fmt: skip
    small = {"latent": 8, "components": 4}
    quick = {"epochs": 2, "batch_size": 8, "eval_windows": 3, "precision": "32-true", **small}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_OUTPUTS", str(tmp_path_factory.mktemp("tiny")))
        models = {name: "conv_vae" if name == "seed1" else name for name in more}
        found = {n: fit(plan(store, models[n], **quick | more[n]), store, show=False) for n in more}
        for age, run in enumerate(found.values()):
            os.utime(run.folder / "done.json", (1e9 + age, 1e9 + age))
    return found


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A data folder of this test's own."""
    monkeypatch.setenv("VAELIB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """An outputs folder of this test's own."""
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


def model_config(name: str, shape=(16, 16), **settings) -> ModelConfig:
    """A small configuration of any of the five models (the layers' widths are the real ones)."""
    classes = {"condition": "language", "classes": LANGUAGES} if name == "cvae" else {}
    return ModelConfig(name, shape, **{"latent": 8, "components": 4} | classes | settings)


def write_notebook(path: Path, *cells: str) -> None:
    """A notebook of code cells; the first holds the parameters."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = [nbformat.v4.new_code_cell(c) for c in cells]
    made[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel}), path)
