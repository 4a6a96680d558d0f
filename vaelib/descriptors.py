"""Audio descriptors: what librosa hears in a clip, standing in where a corpus has no true factors.

They are estimates. Loudness and centroid can be trusted; tempo is often off by an octave, key often by a fifth, most of
all where `key_strength` is low.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import librosa
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
    """Describe one clip; everything but `loudness` is independent of its level. Used in notebook 04.

    - `tempo`, bpm: `librosa.feature.tempo`; nan with fewer than two onsets.
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
        A value for each of `NAMES`; nan where silence, less than `KEY_FFT` samples or none say nothing.
    """
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

    Interrupted work continues; what another corpus, front end, librosa or code gave is measured again.

    Returns:
        (row of the store, `NAMES`), see `measure`. A clip that cannot be read is nan, with one warning for all such
        clips, and is tried again at the next call.

    Raises:
        InputError: no clip can be read, for instance because the corpus was moved.
    """
    known = _read_cache(store)
    todo = store.rows()[~np.isin(store.rows(), known.index)].tolist()
    reasons: dict[int, str] = {}
    if todo:
        known = _measure_rows(store, todo, known, reasons)
    if reasons:
        first, reason = min(reasons.items())
        message = (
            f"{len(reasons)} of {len(store.table)} clips of {store.path.name} have no descriptors, the first "
            f"{store.audio_path(first)}, which {reason.partition(';')[0]}: put the audio back, or preprocess the "
            "corpus as it is now"
        )
        if known.empty:
            raise InputError(message)
        warnings.warn(message, stacklevel=2)
    return known.reindex(store.table.index)


def _measure_rows(store: Store, todo: list[int], known: pd.DataFrame, reasons: dict[int, str]) -> pd.DataFrame:
    """Measure rows block by block, on disk too; `reasons` gets why a row could not be measured."""
    measure(np.random.default_rng(0).standard_normal(FFT * 8), 22_050)  # librosa compiles, in one thread
    progress = Progress("descriptors")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(todo), BLOCK):
            rows = todo[start : start + BLOCK]
            found = dict(zip(rows, pool.map(partial(_measure_row, store), rows), strict=True))
            reasons |= {row: why for row, why in found.items() if isinstance(why, str)}
            measured = {row: values for row, values in found.items() if row not in reasons}
            if measured:
                known = pd.concat([known, pd.DataFrame.from_dict(measured, orient="index", dtype=float)])
                text = known.join(store.table["path"]).to_csv(index_label="row")
                write_atomic(_cache_path(store), f"{_identity(store)}\n{text}")
            progress.show(f"{start + len(rows):,} of {len(todo):,} clips")
    progress.close()
    return known


def _measure_row(store: Store, row: int) -> dict[str, float] | str:
    """The descriptors of one clip, or why there are none."""
    try:
        wave = store.load(row).numpy()
    except audio.UnreadableAudio as e:
        return str(e)
    if min(len(wave) // store.front_end.hop + 1, store.log_mel.shape[2]) != store.table.loc[row, "n_frames"]:
        return "has another length than when it was preprocessed"
    return measure(wave, store.front_end.sample_rate)


def _cache_path(store: Store) -> Path:
    return store.path.with_suffix(".descriptors.csv")


def _identity(store: Store) -> str:
    """First line of the cache: what the values were made from, and with."""
    made = {key: store.attrs[key] for key in ("corpus", "fingerprint", "front_end")}
    made |= {"librosa": librosa.__version__, "code": code_version(("audio", "descriptors"))}
    where = [c for c in ("path", "start_s", "asked_s") if c in store.table]  # a long file is several clips
    return "# " + json.dumps(made | {"clips": digest(store.table[where].to_dict())})


def _read_cache(store: Store) -> pd.DataFrame:
    """Descriptors of the rows measured so far; none if the file is absent, damaged or made from something else."""
    try:
        first, _, rest = _cache_path(store).read_text(encoding="utf-8").partition("\n")
        if first == _identity(store):
            return pd.read_csv(io.StringIO(rest), index_col="row")[list(NAMES)].astype(float)
    except (OSError, ValueError, KeyError):
        pass
    return pd.DataFrame(columns=list(NAMES), dtype=float)
