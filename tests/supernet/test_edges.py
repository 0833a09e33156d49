"""Which inputs a cell's steps keep: decided by logits of their own, or by the rule of DARTS."""

import itertools
import math

import pytest
import torch
from example_spaces import ALL

import trinas as tn
from examples.cell_spaces import darts, nas_bench_201
from trinas.search.patience import Patience
from trinas.search.report import spreads

DARTS_RULE = {"operation": tn.relax.Softmax(), "inputs": "strongest"}
SHAPE = (3, 8, 8)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def ops():
    return tn.choice(a=tn.conv(3, 3), b=tn.conv(1, 3))


def cell(edge=ops, keep=1, inputs=3, steps=1):
    body = tn.cell(steps, lambda i, j: edge(), inputs=(None,) * inputs, keep=keep, merge="sum")
    return tn.lower(body, SHAPE)


def factors(values=(1.0, 3.0, -2.0, 5.0), keep=2):
    """A step over edges that multiply by numbers, either number or its double."""

    def edge(i, j):
        return tn.choice(a=tn.affine(values[i], 0.0), b=tn.affine(2 * values[i], 0.0))

    body = tn.cell(1, edge, inputs=(None,) * len(values), keep=keep, merge="last")
    return tn.lower(body, (1, 1, 1))


def by_hand(net, values, mixture):
    """The step of `factors`, from its weights."""
    weights, graph = mixture.weights, net.graph
    node = next(p for p, d in graph.decisions.items() if d.kind == "inputs")
    total = 0.0
    for i, value in enumerate(values):
        at = graph.offsets[f"cell/edge[{i},{len(values)}]"]
        mixed = value * weights[at] + 2 * value * weights[at + 1]
        total = total + weights[graph.offsets[node] + i] * mixed
    return total


def test_inputs_have_logits_in_groups_of_equally_many_kept():
    two = tn.cell(1, lambda i, j: ops(), inputs=(None,) * 3, keep=2, merge="sum")
    one = tn.cell(3, lambda i, j: ops(), inputs=(None,) * 2, keep=1, merge="sum")
    net = tn.compile_supernet(tn.lower(tn.seq(two, one), SHAPE))
    groups = net.architecture.groups

    assert [(g.name, g.keep, len(g.decisions)) for g in groups] == [
        ("alpha_2", 1, 3 + 2 + 3 + 4),
        ("delta_3", 2, 1),
        ("delta_2", 1, 1),
        ("delta_3_1", 1, 1),
        ("delta_4", 1, 1),
    ]
    path = groups[1].decisions[0].path
    assert net.logits(path).shape == (3,)
    assert sum(net.weights()[path]) == pytest.approx(2)


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("relax", [None, tn.relax.Softmax(), tn.relax.Sparsemax()])
def test_a_step_adds_its_inputs_by_their_weights(relax, share):
    """Value and gradients are those of the sum written down, of edges and operations alike."""
    values = (1.0, 3.0, -2.0, 5.0)
    net = tn.compile_supernet(factors(values), relax, init_std=1.0, generator=rng(3)).double()
    net.progress = share
    parameters = list(net.arch_parameters().values())
    found = []
    for compute in (lambda m: net(torch.ones(1, 1, 1, 1).double(), at=m).sum(), None):
        mixture = net.mixture()
        y = by_hand(net, values, mixture) if compute is None else compute(mixture)
        first = torch.autograd.grad(y**2, parameters, create_graph=True)
        second = torch.autograd.grad(sum(g.sum() for g in first), parameters, allow_unused=True)
        found.append((y, first, [torch.zeros(()) if g is None else g for g in second]))

    torch.testing.assert_close(*found)
    assert share == 1.0 or all(g.abs().sum() > 0 for g in found[0][1])


def test_edges_and_operations_left_alone_on_them_both_take_gradients():
    """One call does the work of both where an edge has a single operation left."""
    values = (1.0, 3.0, -2.0, 5.0)
    relax = {"operation": tn.relax.GumbelSoftmax(), "inputs": tn.relax.Softmax()}
    net = tn.compile_supernet(factors(values), relax, init_std=1.0, generator=rng(1))
    found = []
    for skip in (True, False):
        net.network.skip = skip
        mixture = net.mixture(generator=rng(2))
        y = net(torch.ones(1, 1, 1, 1), at=mixture).sum()
        grads = torch.autograd.grad(y, [*net.arch_parameters().values()])
        assert y.item() == pytest.approx(by_hand(net, values, mixture).item())
        found.append((y, grads))
    live = net.network.plan.order(mixture.alive).joined

    torch.testing.assert_close(*found)
    assert all(g.abs().sum() > 0 for g in found[0][1])
    assert not [v for v in live if v.step.kind == "mix"]


def test_edges_of_weight_zero_are_not_run():
    net = tn.compile_supernet(cell(keep=2, inputs=4), init_std=1.0, generator=rng(0))
    net.progress = 1.0
    ran = {v.step.node for v in net.network.plan.order(net.mixture().alive).lives}
    kept = tn.derive(net)["cell/node[4]"]

    assert {i for i in range(4) if any(f"edge[{i},4]" in node for node in ran)} == set(kept)


SPACES = {
    "darts": lambda: darts(c=4, layers=3, steps=3, classes=3),
    "bench": lambda: nas_bench_201(c=4, n=1, classes=3),
    "no choice on an edge": lambda: tn.cell(
        3, lambda i, j: tn.relu_conv_bn(1, 3), inputs=(None, None), keep=1, merge="sum"
    ),
}
DRAWN = tn.relax.GumbelSoftmax()


@pytest.mark.parametrize("relax", [None, {"operation": DRAWN, "inputs": DRAWN}], ids=["", "drawn"])
@pytest.mark.parametrize("name", SPACES)
def test_the_end_of_a_search_is_the_derived_cell(name, relax):
    graph = tn.lower(SPACES[name](), (3, 16, 16))
    x = torch.rand(2, 3, 16, 16, generator=rng(9))
    genotypes = set()
    for seed in range(6):
        torch.manual_seed(seed)
        net = tn.compile_supernet(graph, relax, init_std=1.0, generator=rng(seed)).eval()
        net.progress = 1.0
        genotype = tn.derive(net)
        model = tn.build(graph, genotype, inherit=net).eval()
        genotypes.add(genotype)
        with torch.no_grad():
            torch.testing.assert_close(model(x), net(x), atol=1e-5, rtol=1e-5)
            net.network.skip = False
            torch.testing.assert_close(model(x), net(x), atol=1e-5, rtol=1e-5)

    assert len(genotypes) > 3


@pytest.mark.long
def test_the_end_of_a_search_is_the_derived_cell_over_many_seeds():
    graph = tn.lower(darts(c=4, layers=4, steps=4, classes=3), (3, 16, 16))
    x = torch.rand(2, 3, 16, 16, generator=rng(9))
    for seed in range(100):
        net = tn.compile_supernet(graph, init_std=1.0, generator=rng(seed)).eval()
        net.progress = 1.0
        model = tn.build(graph, tn.derive(net), inherit=net).eval()
        with torch.no_grad():
            torch.testing.assert_close(model(x), net(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("relax", [None, tn.relax.Softmax(), tn.relax.GumbelSoftmax()])
def test_the_logits_say_which_edges_are_kept(relax):
    graph = cell(keep=2, inputs=4)
    for kept in itertools.combinations(range(4), 2):
        net = tn.compile_supernet(graph, relax, generator=rng(1))
        with torch.no_grad():
            net.logits("cell/node[4]")[list(kept)] += 1.0
        for net.progress in (0.0, 0.5, 1.0):
            assert tn.derive(net)["cell/node[4]"] == kept


def test_ties_fall_to_the_logit_then_to_the_stronger_edge_then_to_the_first():
    graph = cell(keep=1)
    net = tn.compile_supernet(graph, tn.relax.Softmax(), init_std=0.0)
    node, logits = "cell/node[3]", net.logits("cell/edge[1,3]").data

    assert tn.derive(net)[node] == (0,)
    logits[0] = 3.0
    assert tn.derive(net)[node] == (1,)
    net.logits(node).data[2] = 1e-3
    assert tn.derive(net)[node] == (2,)
    # Sparsemax gives both all the weight there is; the larger logit wins.
    sparse = tn.compile_supernet(graph, tn.relax.Sparsestmax(0.0), init_std=0.0)
    sparse.logits(node).data.copy_(torch.tensor([-9.0, 0.0, 0.0]))
    sparse.logits("cell/edge[2,3]").data[0] = 3.0
    assert tn.derive(sparse)[node] == (2,)


@pytest.mark.parametrize("relax", [tn.relax.Softmax(), DARTS_RULE], ids=["tie", "rule"])
@pytest.mark.parametrize(
    ("edge", "last"),
    [
        (ops, True),
        (lambda: tn.seq(ops(), tn.dropout(0.2)), True),
        (lambda: tn.seq(ops(), tn.batch_norm()), True),
        (lambda: tn.seq(tn.relu(), ops(), tn.batch_norm(), tn.dropout(0.1)), True),
        (lambda: tn.residual(ops()), False),
        (lambda: tn.conv(1, 3), False),
    ],
)
def test_the_strength_of_an_edge_is_seen_through_what_stands_behind_its_choice(edge, last, relax):
    net = tn.compile_supernet(cell(edge), relax, init_std=0.0)
    for path, decision in net.graph.decisions.items():
        if decision.kind == "operation" and "edge[2,3]" in path:
            net.logits(path).data[0] = 5.0

    assert tn.derive(net)["cell/node[3]"] == ((2,) if last else (0,))


def test_the_strength_of_an_edge_is_not_that_of_one_before():
    """An edge that passes its input on must not be rated by the step before it."""
    edges = {(0, 1): ops(), (0, 2): ops(), (1, 2): tn.relu()}
    body = tn.cell(2, lambda i, j: edges[i, j], keep=1, merge="last")
    net = tn.compile_supernet(tn.lower(body, SHAPE), tn.relax.Softmax(), init_std=0.0)
    net.logits("cell/edge[0,1]").data[0] = -9.0

    # Sure of its operation, as there is none to choose: strength 1 beats 1/2.
    assert tn.derive(net)["cell/node[2]"] == (1,)


def test_the_rule_of_darts_has_no_logits_and_adds_all_edges():
    graph = factors((1.0, 3.0, -2.0, 5.0), keep=2)
    net = tn.compile_supernet(graph, DARTS_RULE, init_std=0.0)
    mixture = net.mixture()
    y = net(torch.ones(1, 1, 1, 1), at=mixture)

    assert list(net.arch_parameters()) == ["alpha_2"]
    assert y.item() == pytest.approx(1.5 * (1 + 3 - 2 + 5))
    assert net.weights()["cell/node[4]"] == [1.0] * 4
    assert "cell/node[4]" not in net.odds()
    start = graph.offsets["cell/node[4]"]
    assert mixture.odds[start : start + 4].tolist() == [1, 1, 0, 0]
    with pytest.raises(tn.errors.SpaceError, match="inputs that are kept by strength follow from"):
        net.logits("cell/node[4]")
    with pytest.raises(tn.errors.SpaceError, match="learned inputs are dropped"):
        net.prune({"cell/node[4]": [0]})


def test_the_rule_of_darts_and_its_gradients_are_as_before():
    """The sum of the mixtures, with gradients of operations alone."""
    net = tn.compile_supernet(ALL["cells"](), DARTS_RULE, generator=rng(0))
    y = net(torch.rand(2, 3, 8, 8))
    y.square().mean().backward()

    assert not [name for name in net.arch_parameters() if "delta" in name]
    assert all(p.grad.abs().sum() > 0 for p in net.arch_parameters().values())


class Plain(tn.relax.Relaxation):
    """Of a user who knows nothing of several."""

    def forward(self, logits, *, progress=1.0, order=None, generator=None):
        return logits.softmax(-1)


def test_what_chooses_one_serves_inputs_where_one_is_kept():
    for relax in (Plain(), tn.relax.ReinMax(), tn.relax.SortedSparsestmax()):
        one = tn.compile_supernet(cell(keep=1), relax)
        several = tn.compile_supernet(cell(keep=2), relax)

        assert one.architecture.relax["inputs"] is relax
        assert type(several.architecture.relax["inputs"]) is tn.relax.Sparsestmax
        for net in (one, several):
            net(torch.rand(2, *SHAPE)).square().sum().backward()
            assert tn.derive(net)
        with pytest.raises(
            tn.errors.SpaceError, match=r"got \w+, of one, where 2 are kept; at rel"
        ):
            tn.compile_supernet(cell(keep=2), {"inputs": relax})
    assert (
        tn.compile_supernet(cell(keep=2), tn.relax.Softmax()).architecture.relax["inputs"].subsets
    )


@pytest.mark.parametrize("value", ["weakest", tn.relax.Softmax, None])
def test_other_rules_are_refused(value):
    with pytest.raises(tn.errors.SpaceError, match=r"relax\['inputs'\].*inputs may be strongest"):
        tn.compile_supernet(cell(), {"inputs": value})
    with pytest.raises(tn.errors.SpaceError, match=r"relax\['operation'\]"):
        tn.compile_supernet(cell(), {"operation": "strongest"})


def test_draws_keep_as_many_and_have_their_odds():
    relax = {"inputs": tn.relax.GumbelSoftmax()}
    net = tn.compile_supernet(cell(keep=2, inputs=4), relax, init_std=1.0, generator=rng(0))
    path, seen = "cell/node[4]", set()
    for seed in range(20):
        row = net.mixture(generator=rng(seed)).by_path()[path]
        assert sorted(row) == [0, 0, 1, 1]
        seen.add(tuple(row))
    logits = net.logits(path)

    assert len(seen) > 1
    assert net.odds()[path] == pytest.approx(tn.relax.softmax(logits, k=2).tolist())
    top = set(logits.topk(2).indices.tolist())
    assert net.weights()[path] == [float(i in top) for i in range(4)]


def test_options_that_are_searched_only_leave_before_the_end():
    def none_of(relax, progress, **settings):
        space = tn.choice(
            none=tn.zero(), a=tn.conv(1, 3), b=tn.relu(), search_only="none", name="s"
        )
        net = tn.compile_supernet(tn.lower(space, SHAPE), relax, init_std=0.0, **settings)
        net.progress = progress
        net.logits("s").data.copy_(torch.tensor([0.5, 0.2, 0.0]))
        assert sum(net.weights()["s"]) == pytest.approx(1)
        return net.weights()["s"][0], net.odds()["s"][0]

    assert none_of(None, 0.74)[0] > 0
    for relax in (None, tn.relax.Sparsestmax(), tn.relax.SortedSparsestmax(form="hinge")):
        if not isinstance(relax, tn.relax.SortedSparsestmax):
            assert none_of(relax, 0.75) == (0, 0)
            assert none_of(relax, 1.0) == (0, 0)
        else:
            assert relax.ends_one_hot
    for relax in (tn.relax.GumbelSoftmax(), tn.relax.ReinMax()):
        assert none_of(relax, 0.7) != (0, 0)
        assert none_of(relax, 0.75) == (0, 0)
    for relax in (
        tn.relax.Softmax(),
        tn.relax.Sparsestmax(0.5),
        tn.relax.GumbelSoftmax(hard=False),
    ):
        assert none_of(relax, 1.0)[1] > 0
    assert none_of(None, 0.5, search_only_until=0.5) == (0, 0)
    assert none_of(None, 0.9, search_only_until=1.0)[0] > 0
    assert none_of(None, 1.0, search_only_until=1.0) == (0, 0)
    for value in (-0.1, 1.1, math.nan):
        with pytest.raises(tn.errors.SpaceError, match="a share of the search"):
            none_of(None, 0.5, search_only_until=value)


def test_expected_cost_of_kept_inputs():
    """Linear in each weight, exact at the end, and its gradient reaches the logits of edges."""
    graph = tn.lower(
        tn.cell(
            1,
            lambda i, j: tn.conv((1, 3, 5, 7)[i], 3, bias=False),
            inputs=(None,) * 4,
            keep=2,
            merge="sum",
        ),
        SHAPE,
    )
    net = tn.compile_supernet(graph, init_std=1.0, generator=rng(0))
    expected = tn.cost.ExpectedCost(graph, "params")
    costs = torch.tensor([9.0 * k * k for k in (1, 3, 5, 7)])
    for net.progress in (0.0, 0.5, 0.9):
        odds = net.mixture().odds
        assert expected(odds).item() == pytest.approx((odds * costs).sum().item())
    (grad,) = torch.autograd.grad(expected(net.mixture().odds), net.arch_parameters()["delta_4"])
    assert grad.abs().sum() > 0
    net.progress = 1.0
    assert expected(net.mixture().odds).item() == tn.cost.params(graph, tn.derive(net))


def test_inputs_are_pruned_down_to_those_that_are_kept():
    graph = cell(keep=2, inputs=4)
    torch.manual_seed(0)
    net = tn.compile_supernet(graph, init_std=1.0, generator=rng(2))
    net.progress, node = 1.0, "cell/node[4]"
    kept = tn.derive(net)[node]
    out = [i for i in range(4) if i not in kept]
    x = torch.rand(2, *SHAPE)
    before = net(x)
    gone = net.prune({node: out})

    assert len(gone) == 2 * 2 * 2
    assert net.pruned == {node: tuple(out)}
    torch.testing.assert_close(net(x), before)
    assert tn.derive(net)[node] == kept
    net.progress = 0.3
    assert [net.weights()[node][i] for i in kept] == [1, 1]
    with pytest.raises(
        tn.errors.SpaceError, match=r"2 options that can be derived are left.*Keep 2"
    ):
        net.prune({node: kept[0]})
    model = tn.build(graph, tn.derive(net), inherit=net)
    torch.testing.assert_close(model(x), net(x, at=tn.derive(net)))
    twin = tn.compile_supernet(graph)
    twin.load_state_dict(net.state_dict())
    assert twin.pruned == net.pruned
    torch.testing.assert_close(twin(x), net(x))


def test_patience_counts_inputs_and_leaves_those_that_are_kept():
    net = tn.compile_supernet(cell(keep=2, inputs=4), init_std=1.0, generator=rng(2))
    net.progress = 1.0
    watch = Patience(net, 2)
    host = net.mixture().host

    for steps, gone in ((1, 0), (2, 2)):
        watch.counts = watch.counted(host)
        found = watch.exhausted(watch.counts, net.pruned)
        assert len(found.get("cell/node[4]", ())) == gone, steps


def test_the_spread_of_inputs():
    net = tn.compile_supernet(cell(keep=2, inputs=4), init_std=0.0)
    start = spreads(net.graph, net.odds())["inputs"]
    even, certain, half = ([0.5] * 4, [1, 0, 0, 1], [1, 0.5, 0.5, 0])
    found = [spreads(net.graph, {"cell/node[4]": row})["inputs"] for row in (even, certain, half)]

    assert (start.entropy, start.decided, start.dead) == (1, 0, 0)
    assert [round(spread.entropy, 9) for spread in found] == [1, 0, 0.5]
    assert [spread.decided for spread in found] == [0, 1, 0]
    assert [spread.dead for spread in found] == [0, 2, 1]
    assert "inputs" not in spreads(net.graph, tn.compile_supernet(net.graph, DARTS_RULE).odds())


def test_a_search_reports_and_resumes_with_inputs():
    graph = cell(keep=2, inputs=4)
    batch = torch.rand(2, *SHAPE), torch.rand(2, *SHAPE)

    def search():
        torch.manual_seed(0)
        net = tn.compile_supernet(graph, generator=rng(0))
        config = tn.SearchConfig(search_steps=6, arch_lr=1e-2, weight_lr=1e-2, prune_after=2)
        loss = torch.nn.functional.mse_loss
        return tn.Search(net, loss, lambda _: batch, lambda _: batch, config)

    whole, first, second = search(), search(), search()
    reports = list(whole)
    for _ in range(3):
        first.advance()
    second.load_state_dict(first.state_dict())
    rest = list(second)

    assert reports[-1].spread["inputs"].entropy == 0
    assert reports[-1].spread["inputs"].decided == 1
    assert [r.loss for r in reports[3:]] == [r.loss for r in rest]
    assert tn.derive(whole.net) == tn.derive(second.net)
    assert whole.net.pruned == second.net.pruned


def test_a_drawing_shows_the_edges_that_are_kept():
    net = tn.compile_supernet(ALL["cells"](), init_std=1.0, generator=rng(0))
    for net.progress in (0.3, 1.0):
        assert tn.draw(net).dot.startswith("digraph")
        assert tn.draw(net, tn.derive(net)).dot.startswith("digraph")
