"""What a clusterer sees without a trained model: principal components and MFCC statistics of spectrograms.

Windows are (N, W, F, T): clips, evenly spaced windows of a clip, mel bands, frames; log-mel on any linear scale.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.fft import dct
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning


def pca_codes(train: np.ndarray, test: np.ndarray, dims: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of whole windows, fitted on train, averaged over the windows of a clip.

    Args:
        train: (N, W, F, T).
        test: (M, W, F, T).
        dims: Components; fewer if there are fewer windows or bins.
        seed: Of the randomised solver.

    Returns:
        (N, dims) and (M, dims).
    """
    flat = train.reshape(train.shape[0] * train.shape[1], -1)
    pca = PCA(min(dims, *flat.shape), svd_solver="randomized", random_state=seed).fit(flat)
    mean = lambda x: pca.transform(x.reshape(-1, flat.shape[1])).reshape(*x.shape[:2], -1).mean(1)  # noqa: E731
    return mean(train), mean(test)


def component_codes(train: np.ndarray, x: np.ndarray, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Principal and independent components of single windows, fitted on train: linear rivals of a disentangled code.

    FastICA (Hyvärinen & Oja 2000) turns the whitened principal components until they are as independent as it can.

    Args:
        train: (N, F, T).
        x: (M, F, T).
        n: Components; fewer if there are fewer windows.

    Returns:
        (M, n) principal components and (M, n) independent ones.
    """
    flat = train.reshape(len(train), -1)
    pca = PCA(min(n, *flat.shape), random_state=seed).fit(flat)
    codes, spread = pca.transform(x.reshape(len(x), -1)), pca.transform(flat).std(0) + 1e-12
    ica = FastICA(whiten="unit-variance", max_iter=2000, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica.fit(pca.transform(flat) / spread)
    return codes, ica.transform(codes / spread)


def mfcc_statistics(windows: np.ndarray, coefficients: int = 20) -> np.ndarray:
    """Mean and standard deviation over time of the mel cepstrum's first coefficients, (N, 2 · coefficients).

    The classical summary of timbre (Tzanetakis & Cook 2002); DCT-II as in librosa's `mfcc`.
    """
    cepstrum = dct(np.asarray(windows, np.float32), axis=2, norm="ortho")[:, :, :coefficients]
    return np.concatenate([cepstrum.mean((1, 3)), cepstrum.std((1, 3))], axis=1)


def standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with mean 0 and deviation 1 per column of train; a constant column stays 0."""
    # rounding gives a constant column a deviation that is not quite 0
    mean, deviation = train.mean(0), np.where(np.ptp(train, axis=0) > 0, train.std(0), 1.0)
    return (train - mean) / deviation, (test - mean) / deviation
