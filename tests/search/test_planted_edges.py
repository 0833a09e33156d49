"""A cell with one input that matters: a search keeps it, wherever it is."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import trinas as tn

STEPS = {"pretrain_steps": 80, "search_steps": 260}


@tn.operation("planted_channel")
class Channel(tn.Operation):
    """One channel of the input, the others at zero."""

    index: int

    def forward(self, x):
        own = torch.arange(x.shape[1], device=x.device) == self.index
        return x * own[:, None, None]


def planted(position: int, seed: int) -> tn.Search:
    """A step that keeps one of three inputs; the target is made from one of them."""
    torch.manual_seed(seed)

    def edge(i: int, j: int) -> tn.Node:
        return tn.choice(a=tn.conv(3, 4), b=tn.conv(1, 4))

    cell = tn.cell(1, edge, inputs=tuple(Channel(i) for i in range(3)), keep=1)
    graph = tn.lower(tn.seq(cell, tn.conv(1, 1)), (3, 8, 8))
    kernel = torch.randn(1, 1, 3, 3)

    def batches(stream):
        def batch(step):
            source = torch.Generator().manual_seed(10_000 * (2 * seed + stream) + step)
            x = torch.randn(8, 3, 8, 8, generator=source)
            return x, F.conv2d(x[:, position : position + 1], kernel, padding=1)

        return batch

    net = tn.compile_supernet(graph, generator=torch.Generator().manual_seed(seed))
    config = tn.SearchConfig(
        **STEPS,
        weight_lr=1e-2,
        arch_lr=2e-2,
        pretrain_passes=("sampled",),
        search_passes=("sampled",),
        seed=seed,
    )
    return tn.Search(net, F.mse_loss, batches(0), batches(1), config)


def kept(position: int, seed: int) -> tuple[int, ...]:
    search = planted(position, seed)
    for _ in search:
        pass
    (found,) = [v for k, v in tn.derive(search.net).items() if "node" in k]
    return found


def test_the_input_that_matters_is_kept():
    """The last one, which nothing but its logits could make win."""
    assert kept(2, 0) == (2,)


@pytest.mark.long
@pytest.mark.parametrize("position", range(3))
def test_it_is_kept_in_nine_of_ten_seeds(position):
    assert sum(kept(position, seed) == (position,) for seed in range(10)) >= 9
