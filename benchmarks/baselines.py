"""What the Conv VAE's training is held against: pythae's trainer, and the plain loop of a tutorial.

Both get the same network, batch size and clips; their windows are already cut and in fp32, which ours cuts and converts
in every step.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from vaelib.models import GaussianHeads, centred, conv_network
from vaelib.windows import Clips

from .turns import Candidate

LATENT = 128
TITLES = {
    "pythae": ("Conv, trained by pythae", "its default, fp32"),
    "plain": ("Conv, plain loop", "fp32"),
}


def available(
    clips: Clips, batch_size: int, device: torch.device
) -> tuple[dict[str, Callable[[], Candidate]], list[str]]:
    """The baselines that can be built here, and a sentence about each that cannot."""
    found = {"plain": lambda: plain(clips, batch_size, device)}
    try:
        import pythae.trainers  # noqa: F401
    except ModuleNotFoundError as e:
        return found, [f"pythae's trainer was left out: {e.name} is not installed (`pip install -e '.[bench]'`)."]
    return {"pythae": lambda: by_pythae(clips, batch_size, device), **found}, []


class Encoder(nn.Module):
    """The Conv VAE's encoder and heads: (B, 1, F, T) → mean and log-variance, (B, L)."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.body, _, features = conv_network(shape, LATENT)
        self.heads = GaussianHeads(features, LATENT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.body(centred(x)))


class Decoder(nn.Module):
    """The Conv VAE's decoder: (B, L) → (B, 1, F, T)."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.body = conv_network(shape, LATENT)[1]

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.body(z))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cut(clips: Clips) -> Tensor:
    """(clip, 1, mel, width) float32: one window of every clip."""
    every = torch.arange(len(clips), device=clips.mel.device)
    return torch.cat([clips.even_windows(i, 1).flatten(0, 1) for i in every.split(64)])


def plain(clips: Clips, batch_size: int, device: torch.device) -> Candidate:
    """fp32, eager, Adam, the usual memory format; the windows lie on the device and batches are indexed there."""
    torch.manual_seed(0)
    data, shape = _cut(clips), (clips.mel.shape[1], clips.width)
    encoder, decoder = Encoder(shape).to(device), Decoder(shape).to(device)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-4)

    def run(steps: int) -> int:
        for _ in range(steps):
            x = data[torch.randint(len(data), (batch_size,), device=device)]
            mean, logvar = encoder(x)
            recon = decoder(mean + torch.randn_like(mean) * torch.exp(0.5 * logvar))
            error = 0.5 * functional.mse_loss(recon, x, reduction="none").flatten(1).sum(1)
            kl = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(1)
            loss = (error + kl).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        _wait(device)
        return steps * batch_size

    return Candidate("plain", run)


def by_pythae(clips: Clips, batch_size: int, device: torch.device) -> Candidate:
    """`BaseTrainer` as its users have it: `VAE`, in-memory data, its loader, progress bar and defaults.

    A turn is one call of the trainer's own epoch, `train_step`, on a data set of as many batches as the turn has steps.
    """
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    shape = (clips.mel.shape[1], clips.width)
    data = _cut(clips).cpu()  # where its users' data lie

    class Network(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Encoder(shape)

        def forward(self, x: Tensor) -> ModelOutput:
            return ModelOutput(**dict(zip(("embedding", "log_covariance"), self.inner(x), strict=True)))

    class Mirror(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Decoder(shape)

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.inner(z))

    class Repeated(BaseDataset):
        """As many clips as a turn needs, the same ones over and over."""

        length = batch_size

        def __len__(self) -> int:
            return self.length

        def __getitem__(self, index: int):
            return super().__getitem__(index % len(self.data))

    torch.manual_seed(0)
    dataset = Repeated(data, torch.zeros(len(data)))
    folder = tempfile.TemporaryDirectory(prefix="vaelib-bench-pythae-")
    config = BaseTrainerConfig(
        output_dir=folder.name, per_device_train_batch_size=batch_size, no_cuda=device.type != "cuda"
    )
    model = VAE(VAEConfig(input_dim=(1, *shape), latent_dim=LATENT), Network(), Mirror())
    with _quiet():
        trainer = BaseTrainer(model, dataset, training_config=config)
        trainer.prepare_training()
    epoch = 0

    def run(steps: int) -> int:
        nonlocal epoch
        epoch += 1
        dataset.length = steps * batch_size
        trainer.train_loader = trainer.get_train_dataloader(dataset)  # its length was fixed when it was made
        with _quiet():
            trainer.train_step(epoch)
            trainer.callback_handler.on_epoch_end(config)  # closes the bar
            _wait(device)
        return steps * batch_size

    run.folder = folder  # lives as long as the candidate
    return Candidate("pythae", run)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pythae's log lines and progress bar go nowhere; the bar is still made, as for its users."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
