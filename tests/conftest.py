"""Shared fixtures: folders that never touch the repository, a tiny corpus of tones, its store, small models."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from vaelib.config import FrontEnd, ModelConfig
from vaelib.store import Store, build_store, open_store

torch.set_num_threads(1)

RATE = 22_050
TINY = FrontEnd("tiny", n_mels=16, n_fft=2048, hop=2048, frames=16)  # epochs of milliseconds
LANGUAGES, GENRES, CLIPS = ("arabic", "bangla", "spanish"), ("pop", "folk"), 6


def tone(
    f0: float = 220.0, seconds: float = 7.0, rate: int = RATE, amplitude: float = 0.3, seed: int = 0
) -> np.ndarray:
    """A pulsed harmonic tone over faint noise, (samples,) float32."""
    t = np.arange(int(seconds * rate)) / rate
    rng = np.random.default_rng(seed)
    harmonics = sum(np.sin(2 * np.pi * f0 * k * t + rng.uniform(0, 6)) / k for k in range(1, 9))
    pulse = 0.6 + 0.4 * np.sin(2 * np.pi * 2 * t)
    return (amplitude * (harmonics * pulse / 2 + 0.02 * rng.normal(size=t.size))).astype(np.float32)


def write_tones(folder: Path, clips: int = CLIPS, languages=LANGUAGES, genres=GENRES, **extra) -> Path:
    """A corpus of FLAC files with a manifest: labels, and the factors `tempo` and `energy`."""
    rows = []
    for i, language in enumerate(languages):
        for j, family in enumerate(genres):
            for k in range(clips):
                n = len(rows)
                path = f"{language}/{language}_{family}/{k:02d}.flac"
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                energy = 0.1 + 0.05 * k
                wave = tone(110 * (i + 1) * (1 + 0.5 * j), 7 + 0.25 * (k % 3), amplitude=energy, seed=n)
                soundfile.write(folder / path, wave, RATE)
                labels = {"language": language, "genre": f"{language}_{family}", "family": family}
                rows.append({"path": path, **labels, "tempo": 90.0 + n, "energy": energy, "phrases": "a b"})
    pd.DataFrame(rows).assign(**extra).to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture(autouse=True, scope="session")
def folders(tmp_path_factory):
    """Corpora, stores, runs and notebooks go to a temporary folder in every test."""
    root = tmp_path_factory.mktemp("vaelib")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "OUTPUTS", "PAPERMILL"):
            patch.setenv(f"VAELIB_{name}", str(root / name.lower()))
        yield root


@pytest.fixture(scope="session")
def corpus(folders) -> Path:
    """3 languages × 2 genres × 6 clips of 7 to 7.5 s."""
    return write_tones(folders / "tones")


@pytest.fixture(scope="session")
def store(corpus) -> Store:
    """The tones under the `tiny` front end: 24 clips to train on, 6 to validate, 6 to test."""
    return open_store(build_store(corpus, TINY))


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A data folder of this test's own."""
    monkeypatch.setenv("VAELIB_DATA", str(tmp_path / "data"))
    return Path(os.environ["VAELIB_DATA"])


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """An outputs folder of this test's own."""
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "outputs"))
    return Path(os.environ["VAELIB_OUTPUTS"])


def model_config(name: str, shape=(16, 16), **settings) -> ModelConfig:
    """A small configuration of any of the five models (the layers' widths are the real ones)."""
    small = {"latent": 8, "components": 4}
    if name == "cvae":
        small |= {"condition": "language", "classes": LANGUAGES}
    return ModelConfig(name, shape, **small | settings)
