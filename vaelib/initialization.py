"""Where a training starts: VaDE's mixture on K-Means, and codes on independent components of the windows.

Notebook 06 explains the first, notebook 04 the second.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from .config import InputError
from .models import VAE, VaDE
from .windows import Clips


def init_mixture(model: VaDE, codes: Tensor, seed: int) -> None:
    """Set VaDE's mixture without labels: K-Means on clip means, variances plus those between a clip's windows.

    Without the within-clip variance the components are too narrow for single windows. With fewer clips than
    components the surplus ones start at random clips.

    Args:
        codes: (clip, window, L) posterior means of training clips.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means = codes.mean(1).cpu().double().numpy()
    within = codes.var(1, unbiased=False).mean(0).cpu().double().numpy()
    k, n = model.config.components, len(means)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the same audio under several names: fewer distinct clips
        found = KMeans(min(k, n), n_init=10, random_state=seed).fit(means)  # as K-Means afterwards is given
    extra = np.random.default_rng(seed).integers(0, n, k - min(k, n))
    centres = np.concatenate([found.cluster_centers_, means[extra]])
    pooled = np.mean((means - found.cluster_centers_[found.labels_]) ** 2, 0)
    counts = np.bincount(found.labels_, minlength=k)
    variances = np.empty_like(centres)
    for c in range(k):
        own = means[found.labels_ == c]
        # five pseudo-members with the pooled variance: a component of one clip must not be a point
        variances[c] = (((own - centres[c]) ** 2).sum(0) + 5 * pooled) / (len(own) + 5) + within
    weights = (counts + 1) / (counts + 1).sum()
    tensors = (torch.as_tensor(a, dtype=torch.float32, device=codes.device) for a in (weights, centres, variances))
    model.set_mixture(*tensors)


@torch.no_grad()
def start_on_components(model: VAE, clips: Clips, n: int, seed: int) -> None:
    """Let the first `n` latent means be independent components of the training windows; no label is used.

    FastICA (Hyvärinen & Oja 2000; scikit-learn) on the `n` first principal components; the mean head's rows are the
    ridge regression of these on what the untrained encoder makes of the windows, its other rows are 0. Posteriors are
    narrow (log-variance -3) where there is a component, and the prior's elsewhere.

    Args:
        model: Before training; changed in place.
        clips: Training clips; the middle window of each is used.

    Raises:
        InputError: fewer windows than components.
    """
    from sklearn.decomposition import PCA, FastICA
    from sklearn.exceptions import ConvergenceWarning

    _settle(model, clips)
    features, windows = [], []
    # what the heads are given, whatever the model puts in front of them
    watch = model.heads.register_forward_pre_hook(lambda module, given: features.append(given[0].double()))
    for x in _middle_windows(clips):
        windows.append(x)
        model.encode(x)
    watch.remove()
    flat = torch.cat(windows).flatten(1).cpu().numpy()
    if min(flat.shape) < n:
        raise InputError(f"{n} components cannot be found in {len(flat)} windows: ask for fewer start_components")
    principal = PCA(n, random_state=seed).fit_transform(flat)
    principal /= principal.std(0) + 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = FastICA(n, whiten="unit-variance", max_iter=2000, random_state=seed).fit_transform(principal)
    h = torch.cat(features)
    wanted = torch.from_numpy(found / found.std(0)).to(h)
    centre = h.mean(0)
    gram = (h - centre) @ (h - centre).T
    gram += 1e-2 * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
    weight = (h - centre).T @ torch.linalg.solve(gram, wanted)  # (features, n)
    head, spread = model.heads.mean, model.heads.logvar
    for tensor in (head.weight, head.bias, spread.weight, spread.bias):
        tensor.zero_()
    head.weight[:n].copy_(weight.T)
    head.bias[:n].copy_(-(centre @ weight))
    spread.bias[:n].fill_(-3.0)


def _middle_windows(clips: Clips) -> Iterator[Tensor]:
    """The middle window of every clip, 64 (B, 1, F, T) at a time."""
    for index in torch.arange(len(clips), device=clips.mel.device).split(64):
        yield clips.even_windows(index, 1).squeeze(1)


def _settle(model: VAE, clips: Clips) -> None:
    """Give batch normalisation the statistics of the windows: those that training will use; then evaluation mode."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    usual = [m.momentum for m in norms]
    model.eval()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # the mean over all batches
        m.train()
    for x in _middle_windows(clips) if norms else ():
        if len(x) > 1:
            model.encode(x)
    for m, momentum in zip(norms, usual, strict=True):
        m.momentum = momentum
    model.eval()
