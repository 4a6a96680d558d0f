"""What a clusterer sees without a trained model: principal components and MFCC statistics of spectrograms.

Windows are (N, W, F, T): clips, evenly spaced windows of a clip, mel bands, frames; log-mel on any linear scale.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dct
from sklearn.decomposition import PCA


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
