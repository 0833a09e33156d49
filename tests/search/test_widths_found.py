"""Planted widths: a search by soft widths ends at the one that the data were made with."""

import pytest
import torch
from torch.nn import functional as F

import trinas as tn

PATH = "conv[0]/w"
RELAX = {
    "sparsestmax": tn.relax.Sparsestmax(),
    "sorted": tn.relax.SortedSparsestmax(0.01, "linear"),
}


def space(normal):
    """One width of (1, 2, 4, 8) between two convolutions, without batch norm or with it."""
    width = tn.width(values=(1, 2, 4, 8), name="w")
    norm = (tn.batch_norm(),) if normal else ()
    body = tn.seq(tn.conv(3, width, bias=not normal), *norm, tn.relu(), tn.conv(3, 3))
    return tn.lower(body, (3, 10, 10))


def made_by(kernels, seed):
    """Batches whose targets a network of so many random kernels makes, of variance near 1."""
    generator = torch.Generator().manual_seed(1000 + seed)
    first = torch.randn(kernels, 3, 3, 3, generator=generator)
    second = torch.randn(3, kernels, 3, 3, generator=generator)

    def batches(part):
        def batch(step):
            generator = torch.Generator().manual_seed(2 * step + part)
            x = torch.randn(8, 3, 10, 10, generator=generator)
            y = F.conv2d(F.conv2d(x, first, padding=1).relu(), second, padding=1)
            return x, y / (2 * (18 * kernels) ** 0.5)

        return batch

    return batches(0), batches(1)


def search(relax, *, normal, kernels, seed, **settings):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = tn.compile_supernet(space(normal), {"width": RELAX[relax]}, generator=generator)
    config = tn.SearchConfig(
        **{"pretrain_steps": 80, "search_steps": 260, **settings},
        weight_lr=1e-2,
        arch_lr=2e-2,
        seed=seed,
    )
    for _ in tn.Search(net, F.mse_loss, *made_by(kernels, seed), config):
        pass
    return net


@pytest.mark.parametrize("normal", [False, True])
def test_the_width_that_is_needed_is_found(normal):
    """A third of the steps will do."""
    net = search("sorted", normal=normal, kernels=8, seed=0, pretrain_steps=25, search_steps=85)

    assert net.weights()[PATH] == [0, 0, 0, 1]


@pytest.mark.long
@pytest.mark.parametrize("normal", [False, True])
@pytest.mark.parametrize("relax", RELAX)
def test_the_width_that_is_needed_is_found_from_every_seed(relax, normal):
    found = [search(relax, normal=normal, kernels=8, seed=s).weights()[PATH] for s in range(10)]

    assert found.count([0, 0, 0, 1]) >= 9


def least(net, kernels, seed, control):
    """The width of least loss plus cost, each run alone with the weights of the supernet."""
    x, y = made_by(kernels, seed)[1](99_999)
    totals = {}
    with torch.no_grad(), tn.batch_statistics(net):
        for width in (1, 2, 4, 8):
            genotype = tn.Genotype.of(net.graph, {PATH: width})
            share = tn.cost.macs(net.graph, genotype) / control.target
            price = control.weight * (1 - control.share_structure) * share
            totals[width] = float(F.mse_loss(net(x, at=genotype), y)) + price
    return min(totals, key=lambda width: totals[width])


def thrifty(normal, seed, **settings):
    """The width found for a target by 2 kernels under a small cost, and the best there is."""
    control = tn.CostControl(target=tn.cost.macs(space(normal), {PATH: 2}), weight=0.1)
    net = search("sorted", normal=normal, kernels=2, seed=seed, cost=control, **settings)
    assert max(net.weights()[PATH]) == 1
    return tn.derive(net)[PATH], least(net, 2, seed, control)


def test_with_a_small_cost_it_ends_at_the_few_kernels_that_do():
    assert thrifty(True, 0, pretrain_steps=40, search_steps=130) == (2, 2)


@pytest.mark.long
@pytest.mark.parametrize("normal", [False, True])
def test_with_a_small_cost_it_ends_where_loss_and_cost_are_least(normal):
    """That is 2 where the shared weights came to know them: of a network of 2 kernels trained
    by itself, too, about half the seeds do in so many steps.
    """
    found = [thrifty(normal, seed) for seed in range(10)]

    assert sum(width == best for width, best in found) >= 9
    assert all(width > 1 for width, _ in found)
