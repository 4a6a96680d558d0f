"""The factors of a collection, and which of them each latent dimension of a run knows; explained in notebook 04.

Where there are none, audio descriptors stand in, estimates: tempo is often off by an octave, key often by a fifth.
"""

from __future__ import annotations

import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import librosa
import numpy as np
import pandas as pd
from tqdm import tqdm

from . import audio
from .config import InputError, code_version, digest, write_atomic
from .metrics import disentanglement as dis
from .runs import Run
from .store import Store

NAMES = ("tempo", "onset_rate", "loudness", "centroid", "key", "key_strength")
FFT, HOP = 2048, 512  # samples
KEY_FFT = 4096  # samples; half as long, a window does not part the semitones around middle C
BLOCK = 128  # clips between two writings of the cache
MAIN_FACTORS = ("tempo", "key", "energy", "brightness", "vocal_level")  # of the claims
MOST_FACTORS = 20  # that are scored: trees and nulls of hundreds would take hours
LIVE_KL = 0.05  # nats, mean over test clips; below this a dimension carries next to nothing

# Perceived fit of C, C#, … B in C major and in C minor: Krumhansl & Kessler 1982, Psychological Review 89(4), 334-368.
_C_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_C_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


def measure(wave: np.ndarray, rate: int) -> dict[str, float]:
    """Describe one clip, (samples,) in [-1, 1] at about 22,050 Hz, by `NAMES`; nan where there is nothing to say.

    `tempo`, bpm (of two onsets or more), `onset_rate`, per second, and `centroid`, Hz, are librosa's; `loudness`, dB re
    full scale, is the root mean square without the mean, at least -100. `key`, 0 (C) to 11 (B), is the tonic of the key
    whose profile correlates best with the mean chroma (Krumhansl 1990, ch. 4), `key_strength` that correlation.
    """
    found, wave = dict.fromkeys(NAMES, np.nan), np.asarray(wave, np.float32)
    power = np.var(wave, dtype=np.float64)
    found["loudness"] = float(10 * np.log10(max(power, audio.FLOOR)))
    if not power > audio.FLOOR or len(wave) < KEY_FFT:  # nan too
        return found
    wave = wave - wave.mean()
    spectrum = np.abs(librosa.stft(wave, n_fft=FFT, hop_length=HOP, center=False))  # padding would add two onsets
    found["centroid"] = float(librosa.feature.spectral_centroid(S=spectrum.mean(1, keepdims=True), sr=rate).item())
    mel = librosa.power_to_db(librosa.feature.melspectrogram(S=spectrum**2, sr=rate))
    envelope = librosa.onset.onset_strength(S=mel, sr=rate, center=False)
    onsets = librosa.onset.onset_detect(onset_envelope=envelope, sr=rate, hop_length=HOP)
    count = len(onsets) if envelope.max() > 0.5 else 0  # dB; lower: a steady sound
    found["onset_rate"] = count * rate / len(wave)
    if count > 1:
        found["tempo"] = float(librosa.feature.tempo(onset_envelope=envelope, sr=rate, hop_length=HOP).item())
    spectrum = np.abs(librosa.stft(wave, n_fft=KEY_FFT, hop_length=KEY_FFT // 2, center=False))
    # weighted around 310 Hz, where the notes are: higher up are their overtones, the fifth first among them
    chroma = librosa.feature.chroma_stft(S=spectrum, sr=rate, n_fft=KEY_FFT, tuning=0.0, ctroct=3.5, octwidth=1.0)
    profiles, heard = [np.roll(mode, tonic) for mode in (_C_MAJOR, _C_MINOR) for tonic in range(12)], chroma.mean(1)
    fit = np.corrcoef(heard, profiles)[0, 1:] if heard.std() > 1e-9 else np.zeros(24)
    return found | {"key": float(fit.argmax() % 12), "key_strength": float(fit.max().clip(0, 1))}


def describe(store: Store) -> pd.DataFrame:
    """Describe every clip of a store, (row, `NAMES`), once: the values are kept in `<store>.descriptors-….csv`.

    Interrupted work continues; what another corpus, front end, librosa or code gave is measured again. Clips that
    cannot be read are nan, with one warning, and tried again at the next call. InputError: no clip can be read.
    """
    made = [store.attrs[key] for key in ("corpus", "fingerprint", "front_end")]
    made += [librosa.__version__, code_version(("audio", "descriptors"))]
    made += [store.table[[c for c in ("path", "start_s", "asked_s") if c in store.table]].to_dict()]
    cache = store.path.with_suffix(f".descriptors-{digest(made)}.csv")
    known = pd.DataFrame(columns=list(NAMES), dtype=float)
    if cache.is_file():
        known = pd.read_csv(cache, index_col="row", dtype=dict.fromkeys(NAMES, float))
    if todo := store.rows()[~np.isin(store.rows(), known.index)].tolist():
        measure(np.random.default_rng(0).standard_normal(FFT * 8), 22_050)  # librosa compiles, in one thread
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in tqdm(range(0, len(todo), BLOCK), "descriptors", unit="block", file=sys.stdout):
                rows = todo[start : start + BLOCK]
                found = zip(rows, pool.map(partial(_measure_row, store), rows), strict=True)
                block = {row: values for row, values in found if values}
                known = pd.concat([known, pd.DataFrame.from_dict(block, "index", float, list(NAMES))])
                write_atomic(cache, known.to_csv(index_label="row"))
    if len(failed := store.table.index.difference(known.index)):
        some = f"{len(failed)} of {len(store.table)} clips of {store.path.name} have no descriptors"
        why = f"their audio is not what it was (the first: {store.audio_path(failed[0])})"
        message = f"{some}: {why}; put it back, or preprocess the corpus again"
        if known.empty:
            raise InputError(message)
        warnings.warn(message, stacklevel=2)
    return known.reindex(store.table.index)


def _measure_row(store: Store, row: int) -> dict[str, float] | None:
    """The descriptors of one clip, or None where its audio is not what it was when it was preprocessed."""
    try:
        wave = store.load(row).numpy()
    except audio.UnreadableAudio:
        return None
    frames = min(len(wave) // store.front_end.hop + 1, store.log_mel.shape[2])
    return measure(wave, store.front_end.sample_rate) if frames == store.table.loc[row, "n_frames"] else None


# --- factors, and dimensions that know them ---


class Meaning(NamedTuple):
    """What a live dimension stands for."""

    factor: str = ""  # that it is named after, in words, or "" where none stands clear
    unit: str = ""  # of the factor
    slope: float = 0.0  # the factor is about slope · z + offset; 0 where a line says less than half of it
    offset: float = 0.0


def factors_of(run: Run) -> pd.DataFrame:
    """Factors (clip, K) that every clip has and that vary: the main ones if there are any, else `MOST_FACTORS`.

    Without any, `measured` (in its `attrs`) audio descriptors of the clips that have them; its index is the clips' rows
    in the store. InputError: nothing could be measured.
    """
    table, there = run.store.table.loc[run.store.rows()], run.store.factors
    there = [f for f in there if table[f].notna().all() and table[f].nunique() > 1]
    if there:
        table = table[[f for f in MAIN_FACTORS if f in there] or there[:MOST_FACTORS]]
    else:
        table = describe(run.store).loc[run.store.rows()]
        table = table.loc[:, table.notna().mean() > 0.5].dropna()
    if table.empty:
        raise InputError(
            f"{run.store.attrs['corpus']} has no factors, and most of its clips no descriptors: fill a column of its "
            "manifest, or use clips that are neither silent nor shorter than a fifth of a second"
        )
    if "key" in table and table["key"].nunique() <= 24:
        table = table.assign(key=table["key"].round().astype(int))  # a class: B lies next to C
    table.attrs = {"measured": not there}
    return table


def words(factors: pd.DataFrame) -> dict[str, str]:
    """Names of factors in words: `vocal level`, `measured loudness`."""
    measured = "measured " if factors.attrs["measured"] else ""
    return {name: measured + name.replace("_", " ") for name in factors}


def codes_of(run: Run, rows: np.ndarray, sampled: bool = False) -> np.ndarray:
    """(clip, L) posterior means of the clips `rows`, or one draw from each posterior."""
    every = run.embed(None)
    means, logvars = (values[np.searchsorted(every.rows, rows)] for values in (every.means, every.logvars))
    noise = np.random.default_rng(run.config.training.seed).standard_normal(means.shape)
    return means + noise * np.exp(0.5 * logvars) if sampled else means


def live_dimensions(run: Run) -> np.ndarray:
    """Dimensions whose mean KL over the test clips exceeds `LIVE_KL`, most informative first (at least one)."""
    kl = run.embed("test").kl
    return np.argsort(-kl)[: max(1, int((kl > LIVE_KL).sum()))]


def meanings(run: Run) -> dict[int, Meaning]:
    """What each live dimension stands for (`best_known`): the names of sliders, and of the rows of every matrix."""
    found = {int(d): Meaning() for d in live_dimensions(run)}
    try:
        factors = factors_of(run)
    except InputError:
        return found
    codes = codes_of(run, factors.index)
    permuted = dis.permuted_scores(codes, factors, run.config.training.seed)
    for d, name in dis.best_known(dis.mig(codes, factors), permuted, np.array([*found])).items():
        if name:
            z, v = codes[:, d], factors[name].to_numpy(float)
            straight = name != "key" and np.corrcoef(z, v)[0, 1] ** 2 > 0.5
            line = np.polyfit(z, v, 1).tolist() if straight else (0.0, 0.0)
            found[d] = Meaning(words(factors)[name], run.store.units.get(name, ""), *line)
    return found


def label(dimension: int, found: dict[int, Meaning]) -> str:
    """`z17 · drums`, or `z17` where no factor stands clear (or the dimension is dead)."""
    factor = found.get(dimension, Meaning()).factor
    return f"z{dimension} · {factor}" if factor else f"z{dimension}"
