"""288 networks for noisy digits, each trained alone with three seeds.

The images are the 1,797 of scikit-learn, 8 by 8 pixels, with noise: without it every
network of the space reaches about the same accuracy, and there is nothing to find.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trinas._core.errors import ConfigError
from trinas.bench.benchmark import Benchmark, Truth
from trinas.bench.problem import Measured, Problem, Recipe
from trinas.bench.table import Table
from trinas.graph import lower
from trinas.ops import (
    avg_pool,
    batch_norm,
    conv_bn_relu,
    dwconv,
    flatten,
    global_avg_pool,
    linear,
)
from trinas.search import Batches
from trinas.space import Node, cell, choice, residual, seq, tree, width

NOISE = 0.3
"""Standard deviation of the noise on pixels in [0, 1]: drawn anew for every batch of training,
once and for all in what networks are measured on."""

SPLIT = (600, 1000)
"""Images before the first number train weights, those up to the second validate
architectures, the rest test."""

COPIES = 4
"""How often each image is measured, each time under other noise."""


def space() -> Node:
    """Two widths, an operation, a path and two steps of a cell that keep one input each.

    >>> import trinas as tn
    >>> tn.cardinality(space())
    288
    """
    stem, body = width(values=(4, 16), name="stem"), width(values=(8, 16), name="body")
    light = seq(dwconv(3), batch_norm(), conv_bn_relu(1, body))
    return seq(
        conv_bn_relu(3, stem),
        choice(
            avg_pool=avg_pool(3),
            conv_1x1=conv_bn_relu(1, stem),
            conv_3x3=conv_bn_relu(3, stem),
            name="first",
        ),
        conv_bn_relu(3, body, stride=2),
        tree(a=residual(conv_bn_relu(3, body)), b=residual(light), at_most={"a": 1, "b": 1}),
        cell(
            2,
            lambda i, j: conv_bn_relu(3 if j == 2 else 1, body),
            inputs=(conv_bn_relu(1, body), avg_pool(3)),
            keep=1,
            merge="sum",
        ),
        global_avg_pool(),
        flatten(),
        linear(10),
    )


@cache
def images() -> tuple[Tensor, Tensor]:
    """All images `[1797, 1, 8, 8]` in [0, 1] and their classes, in a fixed random order.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError(
            "the digits are those of scikit-learn",
            got=str(error),
            fix="Install it: pip install 'trinas[bench]'.",
        ) from None
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(x).float().view(-1, 1, 8, 8) / 16
    return pixels[order], torch.from_numpy(y).long()[order]


def _noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + NOISE * torch.randn(x.shape, generator=generator)


def batches(part: slice, seed: int, size: int) -> Batches:
    """Batches of a part of the images by step, drawn with replacement, under fresh noise."""

    def batch(step: int) -> tuple[Tensor, Tensor]:
        x, y = (tensor[part] for tensor in images())
        # Distinct streams for every seed and part, as long as a run has under 10^6 steps.
        stream = (2 * seed + bool(part.start)) * 1_000_000 + step
        generator = torch.Generator().manual_seed(stream)
        chosen = torch.randint(len(y), (size,), generator=generator)
        return _noisy(x[chosen], generator), y[chosen]

    return batch


TRAIN, VALID, TEST = slice(0, SPLIT[0]), slice(*SPLIT), slice(SPLIT[1], None)


@cache
def _measured_on() -> tuple[tuple[Tensor, Tensor], ...]:
    parts = []
    for number, part in enumerate((VALID, TEST)):
        x, y = (torch.cat([tensor[part]] * COPIES) for tensor in images())
        parts.append((_noisy(x, torch.Generator().manual_seed(number)), y))
    return tuple(parts)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of right answers, in percent."""
    return 100 * float((model(x).argmax(1) == y).double().mean())


def measure(model: nn.Module) -> Measured:
    """Accuracy in percent on the validation and on the test images."""
    return Measured(*(accuracy(model, *part) for part in _measured_on()))


@cache
def digits_problem() -> Problem:
    """The space with its data and its recipe."""
    return Problem(
        graph=lower(space(), (1, 8, 8)),
        loss=cross_entropy,
        train=lambda seed, size: batches(TRAIN, seed, size),
        valid=lambda seed, size: batches(VALID, seed, size),
        measure=measure,
        recipe=Recipe(steps=200, batch=64, lr=2e-2),
    )


@cache
def digits() -> Benchmark:
    """The table of the digits as a benchmark: accuracy in percent under noise.

    A network is scored by its mean accuracy on the test images over three trainings; `noisy`
    is the accuracy of one of them on the validation images. Scoring needs no images, only
    `Benchmark.task` does.

    Raises:
        DataError: the table is not there.
        ConfigError: a task is asked for and scikit-learn is not installed.
    """
    with as_file(files("trinas.bench") / "data" / "digits.json") as path:
        truth = Truth.of(Table.load(path))
    problem = digits_problem()
    return Benchmark(
        name="digits",
        about="288 networks on noisy 8x8 digits: two widths, an operation, a path, a cell's edges.",
        unit="%",
        graph=problem.graph,
        truth=truth,
        problem=problem,
    )
