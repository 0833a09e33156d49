"""What would be believed without a check, or be of no use, is refused in words."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import trinas as tn
from trinas._core.errors import ConfigError

GRAPH = tn.lower(
    tn.seq(
        tn.conv(3, 4),
        tn.repeat(tn.conv(3, 4), (1, 2, 3), name="depth"),
        tn.choice(a=tn.conv(3, 3), b=tn.conv(1, 3), name="slot"),
    ),
    (3, 8, 8),
)
ALL = list(tn.enumerate_genotypes(GRAPH))
X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def data(step):
    return X, X


def net(relax=None):
    return tn.compile_supernet(GRAPH, relax, seed=0)


def rank(supernet, candidates=ALL, **settings):
    return tn.rank(supernet, F.l1_loss, data, candidates, **settings)


@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (lambda: rank(net(), model=nn.Conv2d(3, 3, 1)), "model that contains it; got a Conv2d"),
        (lambda: rank(net(), model=nn.Sequential(net())), "contains it; got a Sequential without"),
        (lambda: rank(net(), batches=0), "whole number of at least 1; got 0; at rank"),
        (lambda: rank(net(), batches="2"), "whole number of at least 1; got '2'"),
        (lambda: rank(net(), [{"depth": 1}]), "candidates are genotypes; got {'depth': 1}"),
        (lambda: rank(nn.Conv2d(3, 3, 1)), "chosen by a supernet; got a Conv2d; at rank"),
        (lambda: rank(net(), within=3), "within is a Budget or None; got 3; at rank"),
        (
            lambda: rank(net(), within=tn.Budget(1e12, at_least=1e11)),
            "rank, a limit of 1,000,000,000,000.0, at least 100,000,000,000.0. Raise",
        ),
        (lambda: tn.likely(net(), 2, within=100), "within is a Budget or None; got 100; at likely"),
        (lambda: tn.likely(net(), 2, temperature=None), "a positive, finite number; got None"),
        (lambda: tn.likely(nn.Linear(1, 1), 2), "chosen by a supernet; got a Linear; at likely"),
        (
            lambda: tn.likely(net(), 2, within=tn.Budget(1e12, at_least=1e11)),
            "at least 100,000,000,000.0. Raise the limit, ask for less",
        ),
        (lambda: tn.SearchConfig(arch_passes=("path",)), 'mix its options; .* Leave "path" to'),
        (lambda: tn.architecture(passes=("network",)), 'mix its options; .* Leave "network" to'),
        (lambda: tn.term(lambda m: m.odds[0], name="loss"), "none of lr, loss, .*; got 'loss'"),
        (
            lambda: tn.Search(net(), F.l1_loss, data, None, tn.SearchConfig(pretrain_steps=5)),
            "learned on data of its own; got valid=None",
        ),
    ],
)
def test_it_is_refused(misuse, words):
    with pytest.raises(ConfigError, match=words):
        misuse()


@pytest.mark.parametrize("radius", [tn.relax.Linear(0.0, 1.0, warmup=w) for w in (0.0, 0.25)])
def test_paths_wait_no_longer_than_nothing_is_ruled_out(radius):
    """Else the noise of the first logits chooses before the first step is taken."""
    supernet = net({"depth": tn.relax.SortedSparsestmax(0.01, radius=radius)})
    start = supernet.logits("depth").tolist()
    config = tn.SearchConfig(search_steps=20, wait=0.9)
    moved = {}
    for report in tn.Search(supernet, F.l1_loss, data, data, config):
        moved[report.progress] = supernet.logits("depth").tolist() != start

    assert all(on == (radius(at) > 0) for at, on in moved.items())
