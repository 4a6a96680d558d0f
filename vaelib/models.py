"""The five models behind one contract: `encode`, `decode`, `forward`, `sample`; and the registry."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import nets
from .config import InputError, ModelConfig, one_of

BLOCK = 64  # codes that are decoded at a time where gradients are not wanted


class Posterior(NamedTuple):
    """Diagonal Gaussian q(z|x): `mean` and `logvar`, each (B, L); conditional models add `class_logits` (B, C)."""

    mean: Tensor
    logvar: Tensor
    class_logits: Tensor | None = None

    def rsample(self, draw: Callable[[Tensor], Tensor] = torch.randn_like) -> Tensor:
        """(B, L): one reparametrised draw; `draw` gives standard normal noise like the mean (B, L)."""
        return self.mean + draw(self.mean) * torch.exp(0.5 * self.logvar)


class VAEOutput(NamedTuple):
    """What `forward` returns: reconstruction (B, 1, F, T) in [0, 1], code z (B, L), posterior, prior mean (B, L)."""

    recon: Tensor
    z: Tensor
    posterior: Posterior
    prior_mean: Tensor


def centred(x: Tensor) -> Tensor:
    """[0, 1] → [-2, 2]: a language classifier on the same convolutions learned about twice as fast so."""
    return 4.0 * x - 2.0


class VAE(nn.Module):
    """The contract and what all five share: two Gaussian heads, a sigmoid output and one learned σ.

    Labels `y` are class indices (B,) with -1 for unknown, or class probabilities (B, C). Models without a
    condition ignore them.

    Kingma & Welling 2014, arXiv:1312.6114; the shared learned σ: Rybkin et al. 2021, arXiv:2006.13202.
    """

    backbone = "conv"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        try:
            self._build()
        except ValueError as e:
            raise InputError(f"model {config.name!r} cannot be built for input {config.input_shape}: {e}") from e
        self.log_sigma = nn.Parameter(torch.tensor(-1.5))

    def _build(self) -> None:
        c = self.config
        self.encoder, self.decoder = nets.backbone(self.backbone, c.input_shape, c.latent, c.dropout)
        self.heads = nets.GaussianHeads(self.encoder.features, c.latent)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Posterior:
        """(B, 1, F, T) → q(z|x)."""
        return Posterior(*self.heads(self.encoder(centred(x))))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, L) → (B, 1, F, T) in [0, 1]."""
        return torch.sigmoid(self.decoder(z).float())

    def prior_mean(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, L): mean of p(z) or p(z|y); its covariance is the identity."""
        return torch.zeros_like(z)

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        sample: bool = True,
        draw: Callable[[Tensor], Tensor] = torch.randn_like,
    ) -> VAEOutput:
        """Encode, draw (see `Posterior.rsample`; or take the mean with `sample=False`), decode."""
        posterior = self.encode(x, y)
        z = posterior.rsample(draw) if sample else posterior.mean
        if posterior.class_logits is not None:  # unknown classes are the class head's choice here too
            given = torch.full((len(x),), -1, device=x.device) if y is None else y
            y = self.probabilities(given, posterior.class_logits)
        return VAEOutput(self.decode(z, y), z, posterior, self.prior_mean(z, y))

    @torch.inference_mode()
    def sample(
        self,
        n: int,
        y: Tensor | None = None,
        temperature: float = 1.0,
        seed: int | None = None,
        shared: bool = False,
    ) -> Tensor:
        """Draw from the prior and decode.

        Args:
            n: Number of samples.
            y: (n,) classes of a conditional model, components of a mixture; drawn when None.
            temperature: Scale of the prior's standard deviation.
            seed: Same seed, same samples.
            shared: One draw for all `n`, which then differ in nothing but `y`.

        Returns:
            (n, 1, F, T) in [0, 1].
        """
        generator = torch.Generator().manual_seed(seed) if seed is not None else None
        noise = temperature * torch.randn(1 if shared else n, self.config.latent, generator=generator).expand(n, -1)
        z, y = self._from_prior(noise.to(self.log_sigma.device), y, generator)
        return self.decode_in_blocks(z, y)

    @torch.inference_mode()
    def decode_in_blocks(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """`decode` of any number of codes: the layers' activations of a few hundred full windows take gigabytes."""
        labels = repeat(None) if y is None else y.split(BLOCK)
        return torch.cat([self.decode(*block) for block in zip(z.split(BLOCK), labels, strict=False)])

    def _from_prior(
        self, noise: Tensor, y: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        return noise, None

    def parameter_count(self) -> int:
        """Trainable parameters, the shared σ included."""
        return sum(p.numel() for p in self.parameters())


class BasicVAE(VAE):
    """Fully connected 512-256-128 with BatchNorm, ReLU and Dropout, mirrored."""

    backbone = "fc"


class ConvVAE(VAE):
    """Four 4×4 convolutions of stride 2 (32-64-128-256 channels), mirrored."""


class BetaVAE(ConvVAE):
    """The Conv VAE with β = 4 (Higgins et al. 2017, openreview Sy2fzU9gl): the objective differs, not the network."""


class ConditionalVAE(VAE):
    """Convolutional VAE that is told the class (Sohn et al. 2015; the head q(y|x): Kingma et al. 2014).

    Features (256) and a class embedding (64) are concatenated before the latent heads; the decoder gets the code
    and the embedding. Unknown labels are inferred by a class head on the features. The prior is N(0, I), or
    N(μ_y, I) with class means that are fixed and orthogonal, or learned (`config.prior`).
    """

    FEATURES, EMBEDDING = 256, 64

    def _build(self) -> None:
        c = self.config
        if len(c.classes) < 2:
            raise ValueError("a conditional model needs at least two classes of its condition")
        n = len(c.classes)
        self.encoder, self.decoder = nets.backbone("conv", c.input_shape, c.latent + self.EMBEDDING, c.dropout)
        self.features = nn.Linear(self.encoder.features, self.FEATURES)
        self.features.apply(nets.he_init)
        embedding = nets.normal_init(torch.empty(n, self.EMBEDDING), 1.0)
        self.embedding = nn.Embedding.from_pretrained(embedding, freeze=False)
        self.heads = nets.GaussianHeads(self.FEATURES + self.EMBEDDING, c.latent)
        self.class_head = nn.Linear(self.FEATURES, n)
        if c.prior == "fixed":
            self.register_buffer("class_means", nets.orthogonal_means(n, c.latent, c.prior_distance))
        elif c.prior == "learned":
            self.class_means = nn.Parameter(nets.normal_init(torch.empty(n, c.latent), 0.1))

    def probabilities(self, y: Tensor, logits: Tensor | None = None) -> Tensor:
        """(B, C): one-hot rows for known classes; unknown ones (-1) take the most likely class of `logits`."""
        if y.is_floating_point():
            return y
        if logits is not None:
            y = torch.where(y < 0, logits.argmax(1), y)
        return functional.one_hot(y, len(self.config.classes)).float()

    def embed_features(self, x: Tensor) -> Tensor:
        """(B, 1, F, T) → (B, 256): what the encoder knows before it is told the class."""
        return functional.relu(self.features(self.encoder(centred(x))))

    def encode_features(self, h: Tensor, y: Tensor | None = None) -> Posterior:
        """(B, 256) → q(z|x, y), labels as in `encode`."""
        logits = self.class_head(h).float()
        given = torch.full((len(h),), -1, device=h.device) if y is None else y
        embedded = self.probabilities(given, logits).to(h.dtype) @ self.embedding.weight.to(h.dtype)
        mean, logvar = self.heads(torch.cat([h, embedded], 1))
        return Posterior(mean, logvar, logits)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Posterior:
        """q(z|x, y); with `y=None` the class is inferred, with probabilities (B, C) it is marginalised."""
        return self.encode_features(self.embed_features(x), y)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, L) and labels → (B, 1, F, T).

        Raises:
            InputError: no labels given.
        """
        if y is None:
            raise InputError("a conditional model decodes with labels: pass y, class indices (B,)")
        return super().decode(torch.cat([z, self.probabilities(y) @ self.embedding.weight], 1))

    def prior_mean(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.config.prior == "standard" or y is None:
            return torch.zeros_like(z)
        return (self.probabilities(y) @ self.class_means).float()

    def _from_prior(
        self, noise: Tensor, y: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        if y is None:
            y = torch.randint(len(self.config.classes), (len(noise),), generator=generator).to(noise.device)
        return noise + self.prior_mean(noise, y), y


class VaDE(VAE):
    """VAE with a mixture of Gaussians as its prior (Jiang et al. 2017, arXiv:1611.05148).

    π, μ and Σ (diagonal) are parameters; `responsibilities` are p(c|z). The windows of one clip can share a
    cluster variable.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.backbone = config.backbone
        super().__init__(config)
        k = config.components
        self.mixture = nn.ParameterDict({
            "logits": torch.zeros(k),
            "means": nets.normal_init(torch.empty(k, config.latent), 1.0),
            "logvars": torch.zeros(k, config.latent),
        })  # fmt: skip
        self.register_buffer("mixture_ready", torch.tensor(False))

    def log_weights(self) -> Tensor:
        """(K,) log π."""
        return functional.log_softmax(self.mixture["logits"].float(), 0)

    def component_logvars(self) -> Tensor:
        """(K, L) log-variances of the components, kept in a range where the bound stays finite."""
        return self.mixture["logvars"].float().clamp(-8.0, 4.0)

    def log_likelihoods(self, z: Tensor) -> Tensor:
        """(B, K): log N(z; μ_c, Σ_c)."""
        logvar, means = self.component_logvars(), self.mixture["means"].float()
        squares = (z.float()[:, None] - means).square() * torch.exp(-logvar)
        return -0.5 * (squares + logvar + torch.log(torch.tensor(2 * torch.pi))).sum(2)

    def responsibilities(self, z: Tensor, windows: int = 1) -> Tensor:
        """log p(c|z), in log space and fp32.

        Args:
            z: (B · windows, L), the windows of a clip after each other.
            windows: Windows that share one cluster variable; their log-likelihoods are summed.

        Returns:
            (B, K) log-probabilities.
        """
        joint = self.log_likelihoods(z).unflatten(0, (-1, windows)).sum(1)
        return functional.log_softmax(joint + self.log_weights(), 1)

    @torch.no_grad()
    def set_mixture(self, weights: Tensor, means: Tensor, variances: Tensor) -> None:
        """Set π (K,), μ (K, L) and Σ (K, L)."""
        self.mixture["logits"].copy_(weights.clamp_min(1e-4).log())
        self.mixture["means"].copy_(means)
        self.mixture["logvars"].copy_(variances.clamp_min(1e-3).log())
        self.mixture_ready.fill_(True)

    def _from_prior(
        self, noise: Tensor, y: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        if y is None:
            weights = self.log_weights().exp().cpu()
            y = torch.multinomial(weights, len(noise), replacement=True, generator=generator)
        y = y.to(noise.device)
        return self.mixture["means"][y] + noise * torch.exp(0.5 * self.component_logvars()[y]), None


MODELS: dict[str, Callable[[ModelConfig], VAE]] = {
    "basic_vae": BasicVAE,
    "conv_vae": ConvVAE,
    "beta_vae": BetaVAE,
    "cvae": ConditionalVAE,
    "vade": VaDE,
}


def build(config: ModelConfig) -> VAE:
    """The model that `config` describes.

    Raises:
        InputError: unknown name, or sizes that do not fit.
    """
    return MODELS[one_of("model", config.name, MODELS)](config)
