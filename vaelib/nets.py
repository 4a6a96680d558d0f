"""Encoder and decoder blocks: fully connected and convolutional, for any input size."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

HIDDEN = (512, 256, 128)  # fully connected layers of the Basic VAE
CHANNELS = (32, 64, 128, 256)  # convolutions of the Conv VAE
LOGVAR_RANGE = (-12.0, 6.0)  # keeps exp() finite under bf16 without touching any useful posterior


def conv_sizes(size: int, layers: int = len(CHANNELS)) -> list[int]:
    """Lengths along one axis through `layers` convolutions of kernel 4, stride 2, padding 1.

    Raises:
        ValueError: `size` is too small for so many halvings.
    """
    sizes = [size]
    for _ in range(layers):
        sizes.append(sizes[-1] // 2)
    if sizes[-1] == 0:
        raise ValueError(f"size {size} is too small for {layers} halvings; it needs at least {2**layers}")
    return sizes


def normal_init(tensor: Tensor, std: float) -> Tensor:
    """Fill with N(0, std²), and return it; not where a tensor has a shape and no values.

    There, PyTorch's own would load its compiler: seconds of imports in every process that opens a run.
    """
    return tensor if tensor.is_meta else nn.init.normal_(tensor, std=std)


def he_init(module: nn.Module) -> None:
    """He et al. 2015 (arXiv:1502.01852) for layers in front of a ReLU; use with `module.apply`.

    PyTorch's default shrinks the signal at every ReLU layer; after four convolutions without normalisation the
    codes of different clips would hardly differ, and training would spend its first epochs undoing that.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        fan_in = module.in_channels * prod(module.kernel_size)
        if isinstance(module, nn.ConvTranspose2d):
            fan_in /= prod(module.stride)  # only every stride-th tap meets an input
        normal_init(module.weight, (2 / fan_in) ** 0.5)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        normal_init(module.weight, (2 / module.in_features) ** 0.5)
        nn.init.zeros_(module.bias)


def _dense(n_in: int, n_out: int, dropout: float) -> list[nn.Module]:
    return [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(), nn.Dropout(dropout)]


class DenseEncoder(nn.Sequential):
    """(B, 1, F, T) → (B, features): flatten, then Linear + BatchNorm + ReLU + Dropout per layer."""

    def __init__(self, shape: tuple[int, int], dropout: float, hidden: tuple[int, ...] = HIDDEN) -> None:
        layers = [m for a, b in pairwise((prod(shape), *hidden)) for m in _dense(a, b, dropout)]
        super().__init__(nn.Flatten(), *layers)
        self.features = hidden[-1]


class DenseDecoder(nn.Sequential):
    """(B, code) → (B, 1, F, T) before the sigmoid: the mirror of `DenseEncoder`."""

    def __init__(self, code: int, shape: tuple[int, int], dropout: float, hidden: tuple[int, ...] = HIDDEN) -> None:
        layers = [m for a, b in pairwise((code, *hidden[::-1])) for m in _dense(a, b, dropout)]
        super().__init__(*layers, nn.Linear(hidden[0], prod(shape)), nn.Unflatten(1, (1, *shape)))


class ConvEncoder(nn.Sequential):
    """(B, 1, F, T) → (B, features): Conv2d 4×4, stride 2, padding 1 + ReLU per layer, then flatten."""

    def __init__(self, shape: tuple[int, int], channels: tuple[int, ...] = CHANNELS) -> None:
        layers: list[nn.Module] = []
        for a, b in pairwise((1, *channels)):
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.ReLU()]
        super().__init__(*layers, nn.Flatten())
        self.apply(he_init)
        self.map_shape = (channels[-1], *(conv_sizes(s, len(channels))[-1] for s in shape))
        self.features = prod(self.map_shape)


class ConvDecoder(nn.Sequential):
    """(B, code) → (B, 1, F, T) before the sigmoid: the mirror of `ConvEncoder`.

    Each ConvTranspose2d restores the exact size of its mirror image by output padding, so no interpolation.
    """

    def __init__(self, code: int, shape: tuple[int, int], channels: tuple[int, ...] = CHANNELS) -> None:
        sizes = [conv_sizes(s, len(channels))[::-1] for s in shape]
        small = (channels[-1], sizes[0][0], sizes[1][0])
        layers: list[nn.Module] = [nn.Linear(code, prod(small)), nn.ReLU(), nn.Unflatten(1, small)]
        for i, (a, b) in enumerate(pairwise((*channels[::-1], 1))):
            odd = tuple(axis[i + 1] - 2 * axis[i] for axis in sizes)
            layers += [nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, output_padding=odd), nn.ReLU()]
        super().__init__(*layers[:-1])
        self.apply(he_init)


class GaussianHeads(nn.Module):
    """(B, features) → mean and log-variance, each (B, L)."""

    def __init__(self, features: int, latent: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, latent)
        self.logvar = nn.Linear(features, latent)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(h).float(), self.logvar(h).float().clamp(*LOGVAR_RANGE)


def backbone(kind: str, shape: tuple[int, int], code: int, dropout: float) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of a kind: `fc` or `conv`. `code` is the width of the decoder's input."""
    if kind == "fc":
        return DenseEncoder(shape, dropout), DenseDecoder(code, shape, dropout)
    return ConvEncoder(shape), ConvDecoder(code, shape)


def orthogonal_means(n: int, latent: int, distance: float, seed: int = 0) -> Tensor:
    """(n, latent) points on orthogonal axes (randomly rotated), every pair `distance` apart.

    Raises:
        ValueError: more points than dimensions.
    """
    if n > latent:
        raise ValueError(f"{n} orthogonal class means need at least {n} latent dimensions, not {latent}")
    if torch.get_default_device().type == "meta":
        return torch.empty(n, latent)  # as in `normal_init`
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(latent, latent, generator=generator))
    return q[:n] * (distance / 2**0.5)
