"""Convolutions that read one input: one by one, or as one convolution whose result is split.

The first layers of a slot's options read the same tensor, so their weights can be joined:
exact, and fewer and larger kernels, for a copy of the weights and slices that do not lie
together. What that is worth is measured here on the first layers of the reference slot.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Options, Row, interleaved

SIZES = ((64, 3, 32), (24, 3, 32), (16, 3, 32), (64, 48, 32))


def measure(options: Options) -> list[Row]:
    """Forward and backward, joined as a multiple of one by one."""
    rows = []
    for channels, batch, side in SIZES[2:3] if options.quick else SIZES:
        separate, joined = works(channels, batch, side, options.device)
        samples = interleaved({"separate": separate, "joined": joined}, options)
        rows.append(
            {
                "case": f"{channels} channels, batch {batch}, {side}x{side}",
                "separate ms": 1e3 * samples.median("separate"),
                "joined ms": 1e3 * samples.median("joined"),
                "ratio": samples.ratio("joined", "separate"),
            }
        )
    return rows


def layers(channels: int, batch: int, side: int, device: torch.device) -> tuple[Tensor, ...]:
    """An input, two 1x1 and two 3x3 weights: `conv1x1`, `dwsblock`, `conv3x3`, `resblock`."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, channels, side, side)]
    shapes += [(n * channels, channels, k, k) for n, k in ((1, 1), (4, 1), (1, 3), (1, 3))]
    return tuple(
        torch.randn(shape, generator=generator)
        .to(device, memory_format=torch.channels_last)
        .requires_grad_()
        for shape in shapes
    )


def separately(x: Tensor, *weights: Tensor) -> list[Tensor]:
    """Four convolutions, each with its ReLU."""
    return [torch.relu(F.conv2d(x, w, padding=w.shape[-1] // 2)) for w in weights]


def together(x: Tensor, *weights: Tensor) -> list[Tensor]:
    """The same by two convolutions."""
    results = []
    for pair in (weights[:2], weights[2:]):
        y = F.conv2d(x, torch.cat(pair), padding=pair[0].shape[-1] // 2)
        results += [torch.relu(part) for part in y.split([len(w) for w in pair], dim=1)]
    return results


def works(
    channels: int, batch: int, side: int, device: torch.device
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward and backward of both."""
    tensors = layers(channels, batch, side, device)

    def step(compute: Callable[..., list[Tensor]]) -> None:
        results = compute(*tensors)
        torch.autograd.grad(results, tensors, [torch.ones_like(y) for y in results])

    return lambda: step(separately), lambda: step(together)
