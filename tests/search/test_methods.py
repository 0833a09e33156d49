"""Methods of the literature as chains, against their loops written out in plain torch."""

import copy

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

import trinas as tn
from examples.cell_spaces import darts as darts_space

STEPS = 3


def batches(stream):
    def batch(step):
        generator = torch.Generator().manual_seed(1000 * stream + step)
        x = torch.rand(4, 3, 8, 8, generator=generator)
        return x, torch.randint(10, (4,), generator=generator)

    return batch


def cells():
    graph = tn.lower(darts_space(c=4, layers=3, steps=2), (3, 8, 8))
    published = {"operation": tn.relax.Softmax(), "inputs": "strongest"}
    return tn.compile_supernet(graph, published, seed=0)


def by_the_book(net, order):
    """DARTS, Algorithm 1, with the settings of its Section 3.1: torch's own loop and optimisers."""
    net.train()
    weights = dict(net.network.named_parameters())
    arch = list(net.arch_parameters().values())
    outer = torch.optim.SGD(weights.values(), lr=0.025, momentum=0.9, weight_decay=3e-4)
    inner = torch.optim.Adam(arch, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    losses = []
    for step in range(STEPS):
        share = step / STEPS
        cosine = torch.cos(torch.tensor(torch.pi * share)).item()
        for group in outer.param_groups:
            group["lr"] = 0.001 + (0.025 - 0.001) * 0.5 * (1 + cosine)
        net.progress = share
        (x, y), (u, v) = batches(0)(step), batches(1)(step)
        outer.zero_grad()
        loss = F.cross_entropy(net(x, at=net.mixture().detached()), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 5.0)
        outer.step()
        inner.zero_grad()
        if order == 1:
            second = F.cross_entropy(net(u), v)
        else:
            mixture = net.mixture()
            first = F.cross_entropy(functional_call(net.network, weights, (x, mixture)), y)
            gradients = torch.autograd.grad(first, list(weights.values()), create_graph=True)
            rate = outer.param_groups[0]["lr"]
            moved = {n: w - rate * g for (n, w), g in zip(weights.items(), gradients)}
            second = F.cross_entropy(functional_call(net.network, moved, (u, mixture)), v)
        for parameter, gradient in zip(arch, torch.autograd.grad(second, arch)):
            parameter.grad = gradient
        inner.step()
        losses.append((loss.item(), second.item()))
    return losses


@pytest.mark.parametrize("order", [1, 2])
def test_darts_is_darts(order):
    net = cells()
    book = copy.deepcopy(net)
    method = tn.methods.darts(order)
    run = tn.run(method, net, F.cross_entropy, batches(0), batches(1), steps=STEPS)
    ours = [(report.loss, report.arch_loss) for report in run]

    torch.testing.assert_close(ours, by_the_book(book, order), rtol=1e-4, atol=1e-5)
    for (name, mine), theirs in zip(net.named_parameters(), book.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4, msg=name)


def test_a_step_of_darts_is_one_pass_over_each_half():
    net = cells()
    passes = []
    net.network.register_forward_hook(lambda *_: passes.append(1))
    run = tn.run(tn.methods.darts(1), net, F.cross_entropy, batches(0), batches(1), steps=1)
    run.advance()

    assert len(passes) == 2


def test_a_config_is_a_chain():
    config = tn.SearchConfig(
        order=2, unroll_lr=0.1, cost=tn.CostControl(target=1e6), order_penalty=0.1, prune_after=7
    )
    weights, architecture, cost, ordered, prune = tn.methods.trilevel(config)

    assert weights == tn.weights(
        tn.adam(1e-2),
        passes=config.search_passes,
        pretrain_passes=config.pretrain_passes,
        schedule=tn.Halving(),
        clip=5.0,
    )
    assert architecture.signal == tn.signals.unrolled(0.1)
    assert architecture.sampled == tn.signals.differences(4)
    assert cost == config.cost == tn.expected_cost(1e6)
    assert (ordered, prune) == (tn.ordered(0.1), tn.prune(after=7))


def test_search_is_run_with_that_chain():
    config = tn.SearchConfig(pretrain_steps=1, search_steps=3)
    losses = []
    for short in (True, False):
        net = cells()
        if short:
            run = tn.Search(net, F.cross_entropy, batches(0), batches(1), config)
        else:
            method = tn.methods.trilevel(config)
            run = tn.run(method, net, F.cross_entropy, batches(0), batches(1), pretrain=1, steps=3)
        losses.append([(r.phase, r.loss, r.arch_loss == r.arch_loss and r.arch_loss) for r in run])

    assert losses[0] == losses[1]
