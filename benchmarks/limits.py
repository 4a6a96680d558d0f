"""What the hardware could do at best: measured rates, and the arithmetic and bytes that a training step needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

MATRIX = {"cpu": 2048, "cuda": 8192}  # rows and columns: large enough that a larger one is not faster
COPIED = {"cpu": 1 << 28, "cuda": 1 << 32}  # bytes: many times the caches

SECONDS = 1.0  # of trying


def best_rate(work: Callable[[], object], amount: float, device: torch.device) -> float:
    """`amount` per second of the fastest of many repetitions: a limit is what was possible once."""
    finish = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    work()
    finish()
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        started = time.perf_counter()
        work()
        finish()
        best = min(best, time.perf_counter() - started)
    return amount / best


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of one large matrix product (a multiplication and an addition are two)."""
    n = MATRIX[device.type]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty(n, n, device=device, dtype=dtype)
    return best_rate(lambda: torch.mm(a, b, out=out), 2.0 * n**3, device)


def memory_rate(device: torch.device) -> float:
    """Bytes per second read and written by one large copy."""
    n = COPIED[device.type]
    source = torch.ones(n, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return best_rate(lambda: target.copy_(source), 2.0 * n, device)


def rates(device: torch.device) -> dict[str, float]:
    """FLOP/s in both precisions, and bytes/s."""
    return {
        "matrix_fp32": matrix_rate(device, torch.float32),
        "matrix_bf16": matrix_rate(device, torch.bfloat16),
        "memory": memory_rate(device),
    }


def flops(forward: Callable[[], Tensor]) -> int:
    """FLOP of convolutions and matrix products in `forward`, which returns the scalar loss, and its backward pass."""
    counter = FlopCounterMode(display=False)
    with counter:
        forward().backward()
    return counter.get_total_flops()


def weight_bytes(model: nn.Module, low_precision: bool) -> int:
    """Least bytes that a step moves for its weights, whatever the batch.

    Weights are read forward and backward in the precision of the arithmetic; in fp32 the gradients are written, read
    for their norm and again for the update, which reads and writes the weights and AdamW's two moments.
    """
    n = sum(p.numel() for p in model.parameters())
    return n * (2 * (2 if low_precision else 4) + 3 * 4 + 2 * 3 * 4)


@contextmanager
def counted_activations(model: nn.Module, low_precision: bool) -> Iterator[list[int]]:
    """Least bytes of each layer's output, layer by layer: it is written and read, and so is its gradient."""
    moved: list[int] = []
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    size = 4 * (2 if low_precision else 4)
    hooks = [m.register_forward_hook(lambda m, given, out: moved.append(size * out.numel())) for m in layers]
    yield moved
    for hook in hooks:
        hook.remove()


def roofline(flop_per_clip: float, bytes_per_clip: float, bytes_per_step: float, batch: int, matrix: float,
             memory: float) -> dict:  # fmt: skip
    """The most clips per second that arithmetic and memory allow, and which of the two is the bound.

    `matrix`: FLOP/s, `memory`: bytes/s; see `weight_bytes`, `counted_activations`. A real step needs more.
    """
    arithmetic, moving = flop_per_clip * batch / matrix, (bytes_per_clip * batch + bytes_per_step) / memory
    bound = "arithmetic" if arithmetic >= moving else "memory"
    return {"limit": batch / max(arithmetic, moving), "bound": bound}
