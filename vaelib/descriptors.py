"""Audio descriptors: what librosa hears in a clip, standing in where a corpus has no true factors.

They are estimates. Loudness and centroid can be trusted; tempo is often off by an octave, key often by a fifth, most of
all where `key_strength` is low.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from . import audio
from .config import InputError, code_version, digest, write_atomic
from .progress import Progress
from .store import Store

NAMES = ("tempo", "onset_rate", "loudness", "centroid", "key", "key_strength")
FFT, HOP = 2048, 512  # samples
KEY_FFT = 4096  # samples; half as long, a window does not part the semitones around middle C
STILL = 0.5  # dB; an onset envelope that never rises higher is a steady sound
BLOCK = 128  # clips between two writings of the cache

# Perceived fit of C, C#, … B in C major and in C minor: Krumhansl & Kessler 1982, Psychological Review 89(4), 334-368.
_C_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_C_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


def measure(wave: np.ndarray, rate: int) -> dict[str, float]:
    """Describe one clip; everything but `loudness` is independent of its level.

    - `tempo`, bpm: peak of the autocorrelated onset envelope under a log-normal prior around 120 bpm
      (`librosa.feature.tempo`); nan with fewer than two onsets.
    - `onset_rate`, per second: peaks of the onset envelope (`librosa.onset.onset_detect`).
    - `loudness`, dB re full scale: root mean square without the mean, floored at -100 dB.
    - `centroid`, Hz: centre of mass of the mean magnitude spectrum (`librosa.feature.spectral_centroid`).
    - `key`, 0 (C) to 11 (B): tonic of the major or minor key whose profile (Krumhansl & Kessler 1982) correlates best
      with the mean chroma (Krumhansl-Schmuckler; Krumhansl 1990, Cognitive Foundations of Musical Pitch, ch. 4).
    - `key_strength`, 0 to 1: that correlation; 0 where all pitch classes are equally strong.

    Args:
        wave: (samples,) in [-1, 1]; the windows are sized for 22,050 Hz.
        rate: Hz.

    Returns:
        A value for each of `NAMES`. All but `loudness` are nan for silence (also a constant) and for less than one
        window of `KEY_FFT` samples; all are nan for no samples and for samples that are not finite.
    """
    import librosa

    found = dict.fromkeys(NAMES, np.nan)
    wave = np.asarray(wave, np.float32)
    if not wave.size or not np.isfinite(wave).all():
        return found
    power = np.var(wave, dtype=np.float64)
    found["loudness"] = float(10 * np.log10(max(power, audio.FLOOR)))
    if power <= audio.FLOOR or len(wave) < KEY_FFT:
        return found
    wave = wave - wave.mean()
    spectrum = np.abs(librosa.stft(wave, n_fft=FFT, hop_length=HOP, center=False))  # padding would add two onsets
    found["centroid"] = float(librosa.feature.spectral_centroid(S=spectrum.mean(1, keepdims=True), sr=rate).item())
    mel = librosa.power_to_db(librosa.feature.melspectrogram(S=spectrum**2, sr=rate))
    envelope = librosa.onset.onset_strength(S=mel, sr=rate, center=False)
    onsets = librosa.onset.onset_detect(onset_envelope=envelope, sr=rate, hop_length=HOP)
    count = len(onsets) if envelope.max() > STILL else 0
    found["onset_rate"] = count * rate / len(wave)
    if count > 1:
        found["tempo"] = float(librosa.feature.tempo(onset_envelope=envelope, sr=rate, hop_length=HOP).item())
    found["key"], found["key_strength"] = _key(wave, rate)
    return found


def _key(wave: np.ndarray, rate: int) -> tuple[float, float]:
    """The key's tonic and the correlation of its profile with the mean chroma."""
    import librosa

    spectrum = np.abs(librosa.stft(wave, n_fft=KEY_FFT, hop_length=KEY_FFT // 2, center=False))
    # weighted around 310 Hz, where the notes are: higher up are their overtones, the fifth first among them
    chroma = librosa.feature.chroma_stft(S=spectrum, sr=rate, n_fft=KEY_FFT, tuning=0.0, ctroct=3.5, octwidth=1.0)
    profiles = np.array([np.roll(mode, tonic) for mode in (_C_MAJOR, _C_MINOR) for tonic in range(12)])
    profiles = (profiles - profiles.mean(1, keepdims=True)) / profiles.std(1, keepdims=True)
    heard = chroma.mean(1)
    spread = heard.std()
    fit = profiles @ (heard - heard.mean()) / (12 * spread) if spread > 1e-9 else np.zeros(len(profiles))
    return float(fit.argmax() % 12), float(fit.max().clip(0, 1))  # turned profiles sum to nothing: the best is ≥ 0


def describe(store: Store) -> pd.DataFrame:
    """Describe every clip of a store from its audio file, once: the values are kept in `<store>.descriptors.csv`.

    What the store holds of a clip is measured, mono and at the front end's rate. Interrupted work continues;
    values that another corpus, front end, librosa or code gave are measured again.

    Returns:
        (row of the store, `NAMES`), see `measure`. A clip that cannot be read is nan, with one warning for all such
        clips, and is tried again at the next call.

    Raises:
        InputError: no clip can be read, for instance because the corpus was moved.
    """
    known = _read_cache(store)
    todo = [row for row in store.rows().tolist() if row not in known]
    reasons = _measure_rows(store, todo, known) if todo else {}
    if reasons:
        counts = Counter(reason.split(";")[0] for reason in reasons.values())
        message = (
            f"{len(reasons)} of {len(store.table)} clips of {store.path.name} have no descriptors: "
            + ", ".join(f"{n} × {reason!r}" for reason, n in counts.most_common(3))
            + f", the first {store.audio_path(min(reasons))}; put the audio back, or preprocess the corpus as it is now"
        )
        if not known:
            raise InputError(message)
        warnings.warn(message, stacklevel=2)
    return _table(known).reindex(store.table.index)


def _measure_rows(store: Store, todo: list[int], known: dict[int, dict]) -> dict[int, str]:
    """Add the rows `todo` to `known`, block by block on disk too; returns why a row could not be measured."""
    fe, frames, longest = store.front_end, store.table["n_frames"], store.log_mel.shape[2]

    def one(row: int) -> dict[str, float] | str:
        try:
            wave = store.load(row).numpy()
        except audio.UnreadableAudio as e:
            return str(e)
        if min(len(wave) // fe.hop + 1, longest) != frames[row]:
            return "has another length than when it was preprocessed"
        return measure(wave, fe.sample_rate)

    measure(np.random.default_rng(0).standard_normal(fe.sample_rate), fe.sample_rate)  # librosa compiles in one thread
    reasons: dict[int, str] = {}
    progress = Progress("descriptors", len(todo), "clips")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(todo), BLOCK):
            rows = todo[start : start + BLOCK]
            for row, found in zip(rows, pool.map(one, rows), strict=True):
                (reasons if isinstance(found, str) else known)[row] = found
                progress.step()
            if known:
                text = _table(known).join(store.table["path"]).to_csv(index_label="row")
                write_atomic(_cache_path(store), f"{_identity(store)}\n{text}")
    progress.close()
    return reasons


def _table(known: dict[int, dict]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(known, orient="index", columns=list(NAMES))


def _cache_path(store: Store) -> Path:
    return store.path.with_suffix(".descriptors.csv")


def _identity(store: Store) -> str:
    """First line of the cache."""
    made_from = {key: store.attrs[key] for key in ("corpus", "fingerprint", "front_end")}
    made_with = {"librosa": importlib.metadata.version("librosa"), "code": code_version(("audio", "descriptors"))}
    where = [c for c in ("path", "start_s", "asked_s") if c in store.table]  # a long file is several clips
    return "# " + json.dumps(made_from | {"clips": digest(store.table[where].to_dict())} | made_with)


def _read_cache(store: Store) -> dict[int, dict[str, float]]:
    """Descriptors of the rows measured so far; none if the file is absent, damaged or made from something else."""
    try:
        first, _, rest = _cache_path(store).read_text(encoding="utf-8").partition("\n")
        if first != _identity(store):
            return {}
        return pd.read_csv(io.StringIO(rest), index_col="row")[list(NAMES)].astype(float).to_dict("index")
    except (OSError, ValueError, KeyError):
        return {}
