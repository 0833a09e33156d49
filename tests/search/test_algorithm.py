"""One step of Algorithm 1, written out once more; and what it costs in memory."""

import copy
import gc
import random

import attrs
import pytest
import torch
from torch.nn import functional as F

import trinas as tn
from trinas.search.cost_term import hold_all_but

GREEK = ("alpha", "beta", "gamma")


def small_net(relax=None):
    c = tn.width(values=(2, 4))
    slot = tn.choice(conv1=tn.conv_relu(1, c), conv3=tn.conv_relu(3, c), name="slot")
    cell = tn.residual(tn.seq(slot, tn.conv(1, 4)), scale=0.5)
    trunk = tn.tree(a=cell, b=tn.conv(3, 4), first="a", at_most={"a": 2, "b": 1}, name="trunk")
    torch.manual_seed(0)
    return tn.compile_supernet(
        tn.lower(tn.seq(tn.conv(3, 4), trunk, tn.conv(3, 1)), (1, 6, 6)), relax, init_std=0.1
    )


def batch(stream):
    generator = torch.Generator().manual_seed(stream)
    return torch.rand(2, 1, 6, 6, generator=generator), torch.rand(2, 1, 6, 6, generator=generator)


TRAIN, VALID = batch(1), batch(2)
TARGET = 5e3
CONFIG = tn.SearchConfig(
    paths="mixture",
    search_steps=4,
    weight_lr=1e-2,
    arch_lr=1e-2,
    clip=0.05,
    search_passes=("sampled", "widest", "narrowest", "random"),
    arch_passes=("sampled", "widest", "narrowest", "random"),
    cost=tn.CostControl(target=TARGET, weight=0.3),
    order_penalty=0.2,
)


def search_of(net, config=CONFIG):
    return tn.Search(net, F.l1_loss, lambda step: TRAIN, lambda step: VALID, config)


def one_step_by_the_book(net):
    """Lines 14 to 23 at the start of the search, from autograd and Adam alone."""
    generator, rng = torch.Generator().manual_seed(CONFIG.seed), random.Random(CONFIG.seed)
    net.train()
    net.progress = 0.0
    weights = list(net.network.parameters())
    arch = net.arch_parameters()
    outer = torch.optim.Adam(weights, lr=CONFIG.weight_lr)
    inner = torch.optim.Adam(arch.values(), lr=CONFIG.arch_lr, betas=(0.5, 0.999))

    mixture = net.mixture(generator=generator)

    def data_term(pair):
        x, y = pair
        passes = [mixture.with_widths(w, rng=rng) for w in CONFIG.search_passes]
        return sum(F.l1_loss(net(x, at=m), y) for m in passes)

    first = data_term(TRAIN)
    gradients = torch.autograd.grad(first, weights, allow_unused=True, retain_graph=True)
    for weight, gradient in zip(weights, gradients):
        weight.grad = gradient
    torch.nn.utils.clip_grad_norm_(weights, CONFIG.clip)
    outer.step()

    second = data_term(VALID)
    expected = tn.cost.ExpectedCost(net.graph, target=TARGET)
    widest, even = mixture.odds.clone(), mixture.odds.clone()
    for path, start in net.graph.offsets.items():
        decision = net.graph.decisions[path]
        own = slice(start, start + len(decision.options))
        if decision.kind == "width":
            widest[own] = F.one_hot(torch.tensor(len(decision.options) - 1), 2).float()
        else:
            even[own] = 1 / len(decision.options)
    order = net.graph.decisions["trunk"].order
    beta = net.logits("trunk")
    term = sum(beta[i] - beta[p] for i, p in enumerate(order) if p >= 0)
    cost = 2 / 7 * expected(widest) + 5 / 7 * expected(even)
    total = second + CONFIG.cost.weight * cost + CONFIG.order_penalty * term
    for parameter, gradient in zip(arch.values(), torch.autograd.grad(total, [*arch.values()])):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(arch.values(), CONFIG.clip)
    inner.step()
    return first, second, cost


def test_a_step_is_that_of_algorithm_1():
    net = small_net()
    book = copy.deepcopy(net)
    report = search_of(net).advance()
    first, second, cost = one_step_by_the_book(book)

    assert report.loss == pytest.approx(first.item())
    assert report.arch_loss == pytest.approx(second.item())
    assert report.cost == pytest.approx(cost.item())
    for (name, ours), theirs in zip(net.named_parameters(), book.parameters()):
        torch.testing.assert_close(ours, theirs, msg=name)


def test_the_cost_term_has_structure_and_widths_apart():
    graph = small_net().graph
    held, constants = hold_all_but(graph, "structure")
    other, even = hold_all_but(graph, "widths")
    kinds = [d.kind for d in graph.decisions.values() for _ in d.options]

    assert [kind == "width" for kind in kinds] == held == [not h for h in other]
    assert [c for c, h in zip(constants, held) if h] == [0.0, 1.0] * (sum(held) // 2)
    assert even[kinds.index("path")] == pytest.approx(1 / 5)


def test_which_inputs_are_kept_is_structure():
    cell = tn.cell(1, lambda i, j: tn.conv(1, 4), inputs=(None,) * 4, keep=2)
    graph = tn.lower(cell, (4, 4, 4))

    assert hold_all_but(graph, "structure")[0] == [False] * 4
    assert hold_all_but(graph, "widths") == ([True] * 4, [2 / 4] * 4)


def test_the_learning_rate_of_weights_follows_its_schedule_in_each_phase():
    config = attrs.evolve(CONFIG, pretrain_steps=4)
    reports = list(search_of(small_net(), config))

    assert [r.lr for r in reports] == [1e-2 * 0.5**k for k in range(4)] * 2


class _Saved:
    """A tensor kept for backward; counts how much there is at once."""

    present = peak = 0

    def __init__(self, tensor):
        self.tensor = tensor.detach()
        self.size = tensor.numel() * tensor.element_size()
        _Saved.present += self.size
        _Saved.peak = max(_Saved.peak, _Saved.present)

    def __del__(self):
        _Saved.present -= self.size


def _peak(*passes):
    search = search_of(small_net(), attrs.evolve(CONFIG, search_passes=passes, arch_passes=passes))
    gc.collect()
    _Saved.present = _Saved.peak = 0
    with torch.autograd.graph.saved_tensors_hooks(_Saved, lambda saved: saved.tensor):
        search.advance()
    return _Saved.peak


def test_memory_is_that_of_the_largest_pass():
    widest, narrowest = _peak("widest"), _peak("narrowest")

    assert narrowest < widest
    assert _peak("widest", "narrowest", "widest") == _peak("narrowest", "widest") == widest


def test_a_step_brings_weights_to_the_host_once(monkeypatch):
    """One relaxation serves both halves; the reports read nothing by themselves."""
    search = search_of(small_net())
    reads = []
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: reads.append(1) or original(t))
    search.advance()

    assert len(reads) == 1
