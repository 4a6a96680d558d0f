"""The five models (notebooks 02 to 06 explain one each) behind one contract, their blocks, and the registry."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import InputError, ModelConfig, one_of

HIDDEN = (512, 256, 128)  # fully connected layers of the Basic VAE
CHANNELS = (32, 64, 128, 256)  # convolutions of the Conv VAE
FEATURES, EMBEDDING = 256, 64  # of the Conditional VAE: numbers that a window and a class become
LOGVAR_RANGE = (-12.0, 6.0)  # keeps exp() finite under bf16 without touching any useful posterior


def normal_init(tensor: Tensor, std: float) -> Tensor:
    """Fill with N(0, std²) and return it, but not on the meta device: there PyTorch would import its compiler."""
    return tensor if tensor.is_meta else nn.init.normal_(tensor, std=std)


def he_init(module: nn.Module) -> None:
    """He et al. 2015 (arXiv:1502.01852) for layers in front of a ReLU: by default the codes of clips would be alike."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        fan_in = module.weight[0].numel()
        if isinstance(module, nn.ConvTranspose2d):  # only every stride-th tap meets an input
            fan_in = module.weight[:, 0].numel() / math.prod(module.stride)
        normal_init(module.weight, (2 / fan_in) ** 0.5)
        nn.init.zeros_(module.bias)


class FirstConv(nn.Conv2d):
    """A convolution (kernel 4, stride 2, padding 1) of one channel; on a GPU a matrix product, several times faster."""

    def forward(self, x: Tensor) -> Tensor:
        return self.as_product(x) if x.is_cuda else super().forward(x)

    def as_product(self, x: Tensor) -> Tensor:
        """(B, 1, F, T) → (B, C, F // 2, T // 2): the weights times every patch of 4 × 4 bins."""
        patches = functional.pad(x, (1, 1, 1, 1)).squeeze(1).unfold(1, 4, 2).unfold(2, 4, 2)
        return functional.linear(patches.flatten(3), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class LastConv(nn.ConvTranspose2d):
    """The mirror of `FirstConv`, to one channel."""

    def forward(self, x: Tensor) -> Tensor:
        return self.as_product(x) if x.is_cuda else super().forward(x)

    def as_product(self, x: Tensor) -> Tensor:
        """(B, C, f, t) → (B, 1, F, T): each place gives a patch of 4 × 4 bins, and patches overlap by half."""
        patches = functional.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1).T).float()  # (B, f, t, 16)
        # a patch is four quarters of 2 × 2 bins: four pictures (quarter row, quarter column, B, 2 f, 2 t), laid over
        quarters = patches.unflatten(3, (2, 2, 2, 2)).permute(3, 5, 0, 1, 4, 2, 6).flatten(5).flatten(3, 4)
        summed = sum(
            functional.pad(quarters[i, j], (2 * j, 2 - 2 * j, 2 * i, 2 - 2 * i)) for i in range(2) for j in range(2)
        )
        rows, columns = (2 * size + odd for size, odd in zip(x.shape[2:], self.output_padding, strict=True))
        return summed[:, None, 1 : 1 + rows, 1 : 1 + columns] + self.bias


def dense_network(shape: tuple[int, int], code: int, dropout: float) -> tuple[nn.Sequential, nn.Sequential, int]:
    """Encoder (B, 1, F, T) → (B, features), its mirror (B, code) → (B, 1, F, T) before the sigmoid, and `features`."""

    def dense(*sizes: int) -> Iterator[nn.Module]:
        for a, b in pairwise(sizes):
            yield from (nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(dropout))

    bins = math.prod(shape)
    encoder = nn.Sequential(nn.Flatten(), *dense(bins, *HIDDEN))
    decoder = nn.Sequential(*dense(code, *HIDDEN[::-1]), nn.Linear(HIDDEN[0], bins), nn.Unflatten(1, (1, *shape)))
    return encoder, decoder, HIDDEN[-1]


def conv_network(shape: tuple[int, int], code: int) -> tuple[nn.Sequential, nn.Sequential, int]:
    """As `dense_network`, of convolutions with kernel 4, stride 2, padding 1; InputError: the window is too small."""
    if min(shape) < 2 ** len(CHANNELS):
        raise InputError(f"input size {min(shape)} is too small for {len(CHANNELS)} convolutions that each halve it")
    layers = list(enumerate(pairwise((1, *CHANNELS))))
    down: list[nn.Module] = []
    for i, (a, b) in layers:
        down += [(nn.Conv2d if i else FirstConv)(a, b, 4, stride=2, padding=1), nn.ReLU()]
    encoder = nn.Sequential(*down, nn.Flatten()).apply(he_init)
    smallest = (CHANNELS[-1], *(size >> len(CHANNELS) for size in shape))
    up = [nn.Linear(code, math.prod(smallest)), nn.ReLU(), nn.Unflatten(1, smallest)]
    for i, (a, b) in reversed(layers):
        odd = tuple((size >> i) % 2 for size in shape)  # halving has rounded it down
        up += [(nn.ConvTranspose2d if i else LastConv)(b, a, 4, stride=2, padding=1, output_padding=odd), nn.ReLU()]
    return encoder, nn.Sequential(*up[:-1]).apply(he_init), math.prod(smallest)


class GaussianHeads(nn.Module):
    """(B, features) → mean and log-variance, each (B, L)."""

    def __init__(self, features: int, latent: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, latent)
        self.logvar = nn.Linear(features, latent)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(h).float(), self.logvar(h).float().clamp(*LOGVAR_RANGE)


class Posterior(NamedTuple):
    """Diagonal Gaussian q(z|x): `mean` and `logvar`, each (B, L); conditional models add `class_logits` (B, C)."""

    mean: Tensor
    logvar: Tensor
    class_logits: Tensor | None = None


class VAEOutput(NamedTuple):
    """What `forward` returns: reconstruction (B, 1, F, T) in [0, 1], code z (B, L), posterior, prior mean (B, L)."""

    recon: Tensor
    z: Tensor
    posterior: Posterior
    prior_mean: Tensor


def centred(x: Tensor) -> Tensor:
    """[0, 1] → [-2, 2]: a classifier on the same convolutions learned about twice as fast so."""
    return 4.0 * x - 2.0


class VAE(nn.Module):
    """The contract (`encode`, `decode`, `forward`, `draw`) and what all share: two heads, a sigmoid, one learned σ.

    Labels `y` are class indices (B,) with -1 for unknown, or class probabilities (B, C); models without a condition
    ignore them. Kingma & Welling 2014, arXiv:1312.6114; the learned σ: Rybkin et al. 2021, arXiv:2006.13202.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self._build(config)
        self.log_sigma = nn.Parameter(torch.tensor(-1.5))

    def _build(self, c: ModelConfig) -> None:
        fc = c.name == "basic_vae" or (c.name == "vade" and c.backbone == "fc")
        network = dense_network(c.input_shape, c.latent, c.dropout) if fc else conv_network(c.input_shape, c.latent)
        self.encoder, self.decoder, features = network
        self.heads = GaussianHeads(features, c.latent)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Posterior:
        """(B, 1, F, T) → q(z|x)."""
        return Posterior(*self.heads(self.encoder(centred(x))))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, L) → (B, 1, F, T) in [0, 1]."""
        return torch.sigmoid(self.decoder(z).float())

    def prior_mean(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, L): mean of p(z) or p(z|y); its covariance is the identity."""
        return torch.zeros_like(z)

    def forward(self, x: Tensor, y: Tensor | None = None, draw: Callable = torch.randn_like) -> VAEOutput:
        """Encode, draw a code with `draw`'s standard normal noise (`torch.zeros_like`: take the mean), decode."""
        q = self.encode(x, y)
        z = q.mean + draw(q.mean) * torch.exp(0.5 * q.logvar)
        if q.class_logits is not None:  # unknown classes are the class head's choice here too
            y = self.probabilities(y, q.class_logits)
        return VAEOutput(self.decode(z, y), z, q, self.prior_mean(z, y))

    def draw(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, seed: int = 0, shared: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Codes (n, L) from the prior, its deviations times `temperature`, and the classes that they are decoded with.

        `y`, (n,): classes of a conditional model or components of a mixture; None: drawn too. With `shared` all get
        the same noise and differ in nothing but `y`, which where classes have means of their own moves the code too.
        """
        generator = torch.Generator().manual_seed(seed)
        noise = temperature * torch.randn(1 if shared else n, self.config.latent, generator=generator).expand(n, -1)
        return self._from_prior(noise.to(self.log_sigma.device), y, generator)

    def _from_prior(self, noise: Tensor, y: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Codes (n, L) made of standard normal noise (n, L), and what they are decoded with."""
        return noise, None

    def parameter_count(self) -> int:
        """Trainable parameters, the shared σ included."""
        return sum(p.numel() for p in self.parameters())


class ConditionalVAE(VAE):
    """Convolutional VAE that is given the class (Sohn et al. 2015; the head q(y|x): Kingma et al. 2014).

    Latent heads and decoder get a class embedding beside their input; unknown labels are inferred by a class head. The
    prior is N(0, I), or N(μ_y, I) with class means that are fixed and orthogonal, or learned (`config.prior`).
    """

    def _build(self, c: ModelConfig) -> None:
        n = len(c.classes)
        if n < 2:
            raise InputError("a conditional model needs at least two classes of its condition")
        self.encoder, self.decoder, features = conv_network(c.input_shape, c.latent + EMBEDDING)
        self.features = nn.Linear(features, FEATURES).apply(he_init)
        self.embedding = nn.Embedding.from_pretrained(normal_init(torch.empty(n, EMBEDDING), 1.0), freeze=False)
        self.heads = GaussianHeads(FEATURES + EMBEDDING, c.latent)
        self.class_head = nn.Linear(FEATURES, n)
        if c.prior == "fixed":  # orthogonal axes, randomly rotated but always alike
            if n > c.latent:
                raise InputError(f"{n} orthogonal class means need at least {n} latent dimensions, not {c.latent}")
            square = torch.randn(c.latent, c.latent, generator=torch.Generator().manual_seed(0), device="cpu")
            self.register_buffer("class_means", torch.linalg.qr(square)[0][:n] * (c.prior_distance / 2**0.5))
        elif c.prior == "learned":
            self.class_means = nn.Parameter(normal_init(torch.empty(n, c.latent), 0.1))

    def probabilities(self, y: Tensor | None, logits: Tensor | None = None) -> Tensor:
        """(B, C): one-hot rows for known classes; unknown ones (-1, None) take the most likely class of `logits`."""
        if y is not None and y.is_floating_point():
            return y
        if logits is not None:
            likely = logits.argmax(1)
            y = likely if y is None else torch.where(y < 0, likely, y)
        return functional.one_hot(y, len(self.config.classes)).float()

    def encode(self, x: Tensor, y: Tensor | None = None) -> Posterior:
        """q(z|x, y); with `y=None` the class is inferred, with probabilities (B, C) it is marginalised."""
        h = functional.relu(self.features(self.encoder(centred(x))))  # (B, 256), before any class comes in
        logits = self.class_head(h).float()
        embedded = self.probabilities(y, logits).to(h.dtype) @ self.embedding.weight.to(h.dtype)
        return Posterior(*self.heads(torch.cat([h, embedded], 1)), logits)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, L) and labels, which may not be missing → (B, 1, F, T)."""
        return super().decode(torch.cat([z, self.probabilities(y) @ self.embedding.weight], 1))

    def prior_mean(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        standard = self.config.prior == "standard" or y is None
        return torch.zeros_like(z) if standard else (self.probabilities(y) @ self.class_means).float()

    def _from_prior(self, noise: Tensor, y: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        if y is None:
            y = torch.randint(len(self.config.classes), (len(noise),), generator=generator).to(noise.device)
        return noise + self.prior_mean(noise, y), y


class VaDE(VAE):
    """VAE with a mixture of Gaussians π, μ, Σ (diagonal) as its prior (Jiang et al. 2017, arXiv:1611.05148)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        k, latent = config.components, config.latent
        means = normal_init(torch.empty(k, latent), 1.0)
        self.mixture = nn.ParameterDict({"logits": torch.zeros(k), "means": means, "logvars": torch.zeros(k, latent)})
        self.register_buffer("mixture_ready", torch.tensor(False))

    def log_weights(self) -> Tensor:
        """(K,) log π."""
        return functional.log_softmax(self.mixture["logits"].float(), 0)

    def component_logvars(self) -> Tensor:
        """(K, L) log-variances of the components, kept in a range where the bound stays finite."""
        return self.mixture["logvars"].float().clamp(-8.0, 4.0)

    def responsibilities(self, z: Tensor, windows: int = 1) -> Tensor:
        """(B, K) log p(c|z) of codes (B · windows, L); the windows of a clip follow each other and share one c."""
        logvar, means = self.component_logvars(), self.mixture["means"].float()
        squares = (z.float()[:, None] - means).square() * torch.exp(-logvar)
        likelihoods = -0.5 * (squares + logvar + math.log(2 * math.pi)).sum(2)  # (B · windows, K) log N(z; μ_c, Σ_c)
        return functional.log_softmax(likelihoods.unflatten(0, (-1, windows)).sum(1) + self.log_weights(), 1)

    @torch.no_grad()
    def set_mixture(self, weights: Tensor, means: Tensor, variances: Tensor) -> None:
        """Set π (K,), μ (K, L) and Σ (K, L)."""
        self.mixture["logits"].copy_(weights.clamp_min(1e-4).log())
        self.mixture["means"].copy_(means)
        self.mixture["logvars"].copy_(variances.clamp_min(1e-3).log())
        self.mixture_ready.fill_(True)

    def _from_prior(self, noise: Tensor, y: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        if y is None:
            weights = self.log_weights().exp().cpu()
            y = torch.multinomial(weights, len(noise), replacement=True, generator=generator)
        y = y.to(noise.device)
        return self.mixture["means"][y] + noise * torch.exp(0.5 * self.component_logvars()[y]), None


# Beta is the Conv VAE with β = 4 (Higgins et al. 2017, openreview Sy2fzU9gl): the objective differs, not the network
MODELS = {"basic_vae": VAE, "conv_vae": VAE, "beta_vae": VAE, "cvae": ConditionalVAE, "vade": VaDE}


def build(config: ModelConfig) -> VAE:
    """The model that `config` describes; InputError for an unknown name, or sizes that do not fit."""
    return MODELS[one_of("model", config.name, MODELS)](config)
