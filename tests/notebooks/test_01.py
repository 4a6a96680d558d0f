"""Notebook 01: the store it makes, the report it computes, and a person's own, messy music."""

import re

import numpy as np
import papermill
import soundfile

from vaelib.config import notebooks_dir
from vaelib.store import open_store

from .cells import printed

RATE = 22_050


def melody(seed: int, seconds: float) -> np.ndarray:
    """Random notes, four a second: no two seconds of it are alike."""
    rng, t = np.random.default_rng(seed), np.arange(RATE // 4) / RATE
    pitches = rng.uniform(90, 900, int(4 * seconds))
    notes = [sum(np.sin(2 * np.pi * f0 * k * t) / k for k in range(1, 20)) for f0 in pitches]
    return np.concatenate([rng.uniform(0.02, 0.4) * note for note in notes])


def test_a_rendered_collection_is_split_evenly_and_its_numbers_are_there(notebooks):
    text, store = printed(notebooks.run("01_preprocess")), open_store(notebooks.store)
    assert store.table["split"].value_counts().to_dict() == {"train": 225, "test": 90, "validation": 45}
    assert re.search(r"360 of 360 files \(0\.65 hours\) are usable: 62% train, 25% test, 12% validation", text)
    assert "5 languages and 45 genres are known" in text and "0 copies" in text and "nothing to warn of" in text
    alike = float(re.search(r"correlate with \|r\| = (0\.\d+)", text)[1])
    assert alike == round(np.triu(store.table[store.factors].corr().abs(), 1).max(), 2) < 0.2  # drawn independently
    errors = re.search(r"the library is at most ([\d.]+) dB off; the store is at most ([\d.]+) dB off", text)
    assert all(0 <= float(e) < 0.1 for e in errors.groups())


def test_own_music_with_every_fault_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELIB_DATA", str(tmp_path / "data"))
    folder = tmp_path / "music $x$ <b>"
    for i in range(9):
        path = folder / "en" / ("rock $a$ b$" if i < 5 else "ジャズ") / f"song {i}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, melody(i, 8 + i % 3) * (0.01 if i == 3 else 1), RATE)
    soundfile.write(folder / "copy.mp3", soundfile.read(path)[0], RATE)
    soundfile.write(folder / "half.wav", np.r_[melody(50, 5), np.zeros(8 * RATE)], RATE)
    soundfile.write(folder / "clipped.wav", np.clip(9 * melody(51, 9), -1, 1), RATE)
    (folder / "empty.flac").write_bytes(b"")
    source, target = notebooks_dir() / "01_preprocess.ipynb", tmp_path / "01.ipynb"
    how = {"cwd": notebooks_dir(), "progress_bar": False, "kernel_name": "python3"}
    text = printed(papermill.execute_notebook(source, target, {"corpus": str(folder)}, **how))
    sentences = """13 files in music $x$ <b>
        what was seen, and what was made of it
        1 files rejected
        There is one language only, 'en'
        3 of 12 files have no genre
        Suspiciously silent: 1 files, most of all 'half.wav'
        Suspiciously clipped: 1 files, most of all 'clipped.wav'
        Loudness differs by
        1 copies; what differs among them: language, genre
        this corpus has no factor columns
        12 of 13 files"""
    assert [sentence.strip() for sentence in sentences.splitlines() if sentence.strip() not in text] == []
