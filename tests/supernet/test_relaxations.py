"""Relaxations in a supernet: those of trinas, and ones that users bring."""

import math

import pytest
import torch
from example_spaces import ALL, trilevel

import trinas as tn

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Sigmoid(tn.relax.Relaxation):
    """FairDARTS: independent gates, which need not add up to 1."""

    def forward(self, logits, *, progress=1.0, order=None, generator=None):
        return logits.sigmoid()


class Short(tn.relax.Relaxation):
    def forward(self, logits, *, progress=1.0, order=None, generator=None):
        return logits.softmax(-1)[:, :-1]


class Undefined(tn.relax.Relaxation):
    def forward(self, logits, *, progress=1.0, order=None, generator=None):
        return logits / 0.0


def test_a_relaxation_of_ones_own():
    net = tn.compile_supernet(trilevel(), Sigmoid())
    net(X).square().sum().backward()

    assert net.weights()["trunk"] == pytest.approx([0.5] * 5, abs=1e-2)
    assert all(p.grad.abs().sum() > 0 for p in net.arch_parameters().values())


@pytest.mark.parametrize(
    "relax",
    [
        tn.relax.SortedSparsestmax(),
        tn.relax.SortedSparsestmax(form="strict"),
        tn.relax.GumbelSoftmax(hard=False),
        {"width": tn.relax.Sparsestmax(), "operation": tn.relax.Sparsemax()},
    ],
)
@pytest.mark.parametrize("name", ["depths", "trilevel"])
def test_every_relaxation_serves_every_kind(name, relax):
    """Sorted ones too where paths (of a trellis) or operations have no order."""
    graph = ALL[name]()
    net = tn.compile_supernet(graph, relax)
    net.progress = 0.5
    net(torch.rand(2, *graph.in_shape.numbers())).square().sum().backward()

    assert all(torch.isfinite(p.grad).all() for p in net.arch_parameters().values())
    assert tn.derive(net)


def test_hard_draws_of_operations_run_one_branch():
    net = tn.compile_supernet(trilevel(), tn.relax.GumbelSoftmax())
    mixture = net.mixture(generator=torch.Generator().manual_seed(0))
    live = net.network.plan.order(mixture.alive).lives

    assert all(len(step.inputs) == 1 for step in live if step.step.kind == "mix")


def test_odds_of_a_draw_are_those_of_its_logits():
    net = tn.compile_supernet(trilevel(), tn.relax.GumbelSoftmax())
    with torch.no_grad():
        net.logits("trunk").copy_(torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]))
    mixture = net.mixture(generator=torch.Generator().manual_seed(0))

    assert sorted(mixture.by_path()["trunk"]) == [0, 0, 0, 0, 1]
    expected = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]).softmax(0).tolist()
    assert mixture.odds_by_path()["trunk"] == pytest.approx(expected)
    assert net.odds()["trunk"] == pytest.approx(expected)
    assert net.weights()["trunk"] == [0, 1, 0, 0, 0]


def test_kept_inputs_follow_the_odds_not_the_draw():
    graph = ALL["cells"]()
    relax = {"operation": tn.relax.GumbelSoftmax(), "inputs": "strongest"}
    net = tn.compile_supernet(graph, relax)
    strong = "normal/edge[0,3]", "normal/edge[2,3]"
    with torch.no_grad():
        for path in strong:
            net.logits(path)[graph.decisions[path].index("sep_conv_3x3")] = 8.0
    start = graph.offsets["normal/node[3]"]

    for seed in range(3):
        mixture = net.mixture(generator=torch.Generator().manual_seed(seed))
        assert mixture.odds[start : start + 3].tolist() == [1.0, 0.0, 1.0]
    assert tn.derive(net)["normal/node[3]"] == (0, 2)


def test_nan_logits_name_their_decision():
    """And not those in which -inf rules an option out."""
    net = tn.compile_supernet(trilevel(), tn.relax.Softmax())
    with torch.no_grad():
        net.logits("trunk/a/slot[0]")[0] = -math.inf
        assert net(X).isfinite().all()
        net.logits("trunk/a/slot[1]")[0] = math.nan

    with pytest.raises(tn.errors.RelaxationError, match=r"at trunk/a/slot\[1\] \(alpha_4\)"):
        net(X)


@pytest.mark.parametrize(
    ("relax", "text"),
    [
        (Short(), r"one weight for each logit; got shape \(6, 3\) for \(6, 4\); at .*alpha_4"),
        (Undefined(), r"weights are finite numbers; got -?inf; at trunk"),
    ],
)
def test_weights_that_cannot_be_used(relax, text):
    net = tn.compile_supernet(trilevel(), relax)

    with pytest.raises(tn.errors.RelaxationError, match=text):
        net(X)


@pytest.mark.parametrize(
    ("relax", "text"),
    [
        ({"operations": tn.relax.Softmax()}, r"got operations.*operation, path"),
        ({"path": tn.relax.Softmax}, r"is an instance of .*at relax\['path'\]"),
        ("softmax", r"is an instance of .*; got softmax; at relax\. Pass one"),
        (tn.relax.Softmax, r"is an instance of"),
    ],
)
def test_relaxations_that_are_none(relax, text):
    with pytest.raises(tn.errors.SpaceError, match=text):
        tn.compile_supernet(trilevel(), relax)


def test_vectors_of_another_length_are_no_mixture():
    graph = trilevel()
    weights = torch.ones(graph.slots)

    with pytest.raises(tn.errors.RelaxationError, match=r"odds of a mixture .* got shape \(3,\)"):
        tn.Mixture.from_weights(graph, weights, weights[:3])
