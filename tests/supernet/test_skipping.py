"""What takes part in a pass, and that leaving the rest out changes nothing."""

import pytest
import torch
from example_spaces import ALL, trilevel

import trinas as tn


class Plain(tn.relax.Relaxation):
    """Weights are the logits: an entry at zero may well leave it again."""

    def forward(self, logits, *, progress=1.0, order=None, generator=None):
        return logits * 1.0


class Counted(Plain):
    closed_at_zero = True


def gradients(graph, relax, *, skip, zero=(), progress=0.5):
    """All gradients and the output, with what was skipped at a gradient of zero."""
    torch.manual_seed(0)
    net = tn.compile_supernet(graph, relax, init_std=0.5).double()
    net.network.skip, net.progress = skip, progress
    with torch.no_grad():
        for path, index in zero:
            net.logits(path)[index] = 0.0
    x = torch.rand(2, *graph.in_shape.numbers(), dtype=torch.float64, requires_grad=True)
    mixture = net.mixture(generator=torch.Generator().manual_seed(5))
    y = net(x, at=mixture)
    y.square().sum().backward()
    tensors = {"x": x, **dict(net.named_parameters())}
    found = {n: torch.zeros_like(t) if t.grad is None else t.grad for n, t in tensors.items()}
    return {**found, "y": y.detach()}, mixture


def assert_skip_changes_nothing(graph, relax, **settings):
    skipped, mixture = gradients(graph, relax, skip=True, **settings)
    full, _ = gradients(graph, relax, skip=False, **settings)

    assert 0.0 in mixture.host
    for key, value in skipped.items():
        # Where batches normalise, a skipped layer's statistics are not updated.
        torch.testing.assert_close(value, full[key], atol=1e-9, rtol=1e-7, msg=key)
    return skipped


@pytest.mark.parametrize("progress", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("name", ["trilevel", "depths", "bench", "cells"])
def test_of_sparse_branches(name, progress):
    assert_skip_changes_nothing(ALL[name](), None, progress=progress)


@pytest.mark.parametrize("name", ["trilevel", "depths", "bench", "cells"])
def test_of_operations_and_paths_that_were_not_drawn(name):
    found = assert_skip_changes_nothing(ALL[name](), tn.relax.GumbelSoftmax())

    assert any(v.abs().sum() > 0 for k, v in found.items() if "alpha" in k)


def test_what_was_not_drawn_has_no_say_in_the_gradient():
    """The gradient is that of the drawn branch alone, times that of its soft weight."""
    space = tn.choice(a=tn.conv(1, 1, bias=False), b=tn.conv(1, 1, bias=False), name="s")
    net = tn.compile_supernet(tn.lower(space, (1, 1, 1)), tn.relax.GumbelSoftmax(1.0))
    mixture = net.mixture(generator=torch.Generator().manual_seed(0))
    drawn = mixture.host.index(1.0)
    y = net(torch.ones(1, 1, 1, 1), at=mixture)
    y.sum().backward()
    (expected,) = torch.autograd.grad(
        net.mixture(generator=torch.Generator().manual_seed(0)).weights[drawn],
        net.arch_parameters()["alpha_2"],
    )

    torch.testing.assert_close(net.arch_parameters()["alpha_2"].grad, expected * y.item())


def slot():
    return tn.lower(
        tn.choice(a=tn.conv(3, 2), b=tn.conv(1, 2), c=tn.conv(1, 2), name="s"), (3, 4, 4)
    )


def test_a_branch_that_may_come_back_is_not_skipped():
    found = assert_skip_changes_nothing(slot(), Plain(), zero=[("s", 1)])

    assert found["architecture.alpha_3"][0, 1] != 0


def test_closed_at_zero_says_that_it_is_skipped():
    found = assert_skip_changes_nothing(slot(), Counted(), zero=[("s", 1)])

    assert found["architecture.alpha_3"][0, 1] == 0


def test_without_gradients_nothing_of_weight_zero_runs():
    net = tn.compile_supernet(slot(), Plain())
    with torch.no_grad():
        net.logits("s").copy_(torch.tensor([1.0, 0.0, 2.0]))
        assert net.mixture().alive == b"\1\0\1"

    assert net.mixture().alive == b"\1\1\1"


def test_a_decision_without_any_weight_is_named():
    net = tn.compile_supernet(slot(), Counted())
    with torch.no_grad():
        net.logits("s").zero_()

    with pytest.raises(tn.errors.RelaxationError, match=r"weight other than 0; .*at s\. Does the"):
        net(torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize("seed", range(3))
def test_a_genotype_gives_the_same_with_and_without(seed):
    """Inputs that a cell's step drops are dropped, skipped or not."""
    graph = ALL["cells"]()
    net = tn.compile_supernet(graph).eval()
    x = torch.rand(2, *graph.in_shape.numbers())
    genotype = tn.sample(graph, seed)
    expected = net(x, at=genotype)
    net.network.skip = False

    torch.testing.assert_close(net(x, at=genotype), expected, atol=1e-5, rtol=1e-5)


def test_dead_branches_are_not_computed():
    net = tn.compile_supernet(trilevel()).eval()
    net.progress = 1.0
    ran = []
    for name, module in net.network.layers.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    # Cut layers run through their operation, not through the module: look at the plan too.
    live = {s.step.node for s in net.network.plan.order(net.mixture().alive).lives}
    needed = set(tn.specialise(net.graph, tn.derive(net)))
    net(torch.rand(2, 3, 8, 8))

    assert {n for n in live if net.graph.vertex(n)["kind"] == "op"} <= needed
    assert set(ran) - {""} <= needed


def test_other_widths_are_no_other_plan():
    net = tn.compile_supernet(trilevel())
    plan = net.network.plan
    alive = [net.mixture(generator=torch.Generator().manual_seed(s)).alive for s in range(4)]

    assert len(set(alive)) > 1
    assert len({id(plan.order(a)) for a in alive}) == 1


def test_plans_that_are_not_used_are_forgotten():
    from trinas.supernet.plan import Plan

    graph = tn.lower(
        tn.seq(*(tn.choice(a=tn.conv(1, 3), b=tn.relu()) for _ in range(4))), (3, 2, 2)
    )
    plan = Plan(graph, remembered=2)
    one, two, three = (bytes([1, 0] * k + [0, 1] * (4 - k)) for k in range(3))
    first = plan.order(one)

    assert plan.order(one) is first
    plan.order(two)
    plan.order(three)
    assert plan.order(one) is not first


@pytest.mark.parametrize(
    "relax", [tn.relax.ReinMax(), tn.relax.GumbelSoftmax(1.0, all_options=True)], ids=["r", "g"]
)
def test_some_draws_give_every_option_its_gradient(relax):
    """All options run, so that the gradient is that of the whole row of losses."""
    space = tn.choice(
        a=tn.affine(1.0, 0.0), b=tn.affine(3.0, 0.0), c=tn.affine(-2.0, 0.0), name="s"
    )
    net = tn.compile_supernet(tn.lower(space, (1, 1, 1)), relax)
    mixture = net.mixture(generator=torch.Generator().manual_seed(0))
    y = net(torch.ones(1, 1, 1, 1), at=mixture)
    y.sum().backward()
    again = net.mixture(generator=torch.Generator().manual_seed(0)).weights
    (expected,) = torch.autograd.grad(
        again @ torch.tensor([1.0, 3.0, -2.0]), net.arch_parameters()["alpha_3"]
    )

    assert sorted(mixture.host) == [0.0, 0.0, 1.0]
    assert y.item() == [1.0, 3.0, -2.0][mixture.host.index(1.0)]
    assert mixture.alive == b"\1\1\1"
    torch.testing.assert_close(net.arch_parameters()["alpha_3"].grad, expected)
    with torch.no_grad():
        assert sum(net.mixture().alive) == 1
    assert_skip_changes_nothing(trilevel(), relax)
