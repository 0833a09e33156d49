"""Settling decisions: only those that matter are asked, each outcome comes once."""

import random
from collections import Counter

import attrs
import pytest
from hypothesis import given
from strategies import IN_SHAPE, small_spaces, spaces

import trinas as tn
from trinas.graph import outcomes, settle
from trinas.graph.walk import outcome_count
from trinas.space.decision import Decision

AB = tn.seq(tn.choice(a=tn.relu(), b=tn.seq(), name="inner"))


def lowered(space) -> tn.Graph:
    return tn.lower(space, IN_SHAPE)


@given(spaces())
def test_asked_is_what_the_network_depends_on(space):
    """Everything that was asked is active, and settling it leaves nothing open."""
    graph = lowered(space)
    picked = settle(graph, lambda decision: outcomes(decision)[-1])
    plain = tn.specialise(graph, picked)

    assert dict(plain.decisions) == {}
    # Leaving any of them out leaves it open.
    for path in list(picked)[:3]:
        rest = {p: v for p, v in picked.items() if p != path}
        assert path in tn.specialise(graph, rest).decisions


@given(spaces())
def test_outcomes_come_in_the_order_of_the_graph(space):
    graph = lowered(space)
    picked = settle(graph, lambda decision: outcomes(decision)[0])

    assert [path for path in graph.decisions if path in picked] == list(picked)


def test_options_that_were_not_picked_are_not_looked_into():
    graph = lowered(tn.choice(a=AB, b=tn.tanh(), name="outer"))

    assert settle(graph, lambda d: "b") == {"outer": "b"}
    assert settle(graph, lambda d: "a" if d.path == "outer" else "b") == {
        "outer": "a",
        "outer/a/inner": "b",
    }


def test_every_decision_is_asked_once_however_often_it_occurs():
    asked = Counter()
    shared = tn.share("key", AB)
    settle(lowered(tn.seq(shared, shared)), lambda d: asked.update([d.path]) or "a")

    assert asked == {"key/inner": 1}


def test_an_input_that_is_not_kept_leaves_a_part_unused():
    cell = tn.cell(1, tn.relu(), inputs=(None, None), keep=1, merge="sum")
    graph = lowered(tn.stack(AB, cell))

    assert list(settle(graph, lambda d: outcomes(d)[-1])) == [
        "stack/seq/inner",
        "stack/cell/node[2]",
    ]
    assert list(settle(graph, lambda d: outcomes(d)[0])) == ["stack/cell/node[2]"]


@attrs.frozen
class Hidden(tn.Operation):
    """An operation with a width that its result does not show."""

    inner: tn.Value
    registered = "hidden"

    def forward(self, x):
        return x


def test_a_width_inside_an_operation_is_a_decision_too():
    space = Hidden(tn.width(values=(2, 4)))
    graph = lowered(space)
    tn.lint(graph)

    assert list(graph.decisions) == ["hidden/width"]
    assert [dict(genotype) for genotype in tn.enumerate_genotypes(graph)] == [
        {"hidden/width": 2},
        {"hidden/width": 4},
    ]
    assert str(tn.specialise(graph, {"hidden/width": 4}).operation("hidden")) == "hidden(inner=4)"


DECISIONS = [
    (Decision("d", "operation", ("a", "b")), ["a", "b"]),
    (Decision("d", "operation", ("a", "b", "c"), never=("b",)), ["a", "c"]),
    (Decision("d", "depth", (0, 2)), [0, 2]),
    (Decision("d", "inputs", (0, 1, 2), keep=2), [(0, 1), (0, 2), (1, 2)]),
    (Decision("d", "inputs", (0, 1), keep=1), [(0,), (1,)]),
]


@pytest.mark.parametrize(("decision", "expected"), DECISIONS)
def test_the_outcomes_of_a_decision(decision, expected):
    assert expected == outcomes(decision)
    assert len(expected) == outcome_count(decision)
    assert all(map(decision.allows, expected))


@pytest.mark.parametrize(
    ("decision", "value"),
    [
        (DECISIONS[0][0], "z"),
        (DECISIONS[0][0], 0),
        (DECISIONS[0][0], None),
        (DECISIONS[0][0], ("a",)),
        (DECISIONS[1][0], "b"),
        (DECISIONS[2][0], 1),
        (DECISIONS[2][0], "2"),
        (DECISIONS[2][0], 2.0),
        (DECISIONS[2][0], False),
        (DECISIONS[3][0], 1),
        (DECISIONS[3][0], (0,)),
        (DECISIONS[3][0], (1, 0)),
        (DECISIONS[3][0], (1, 1)),
        (DECISIONS[3][0], (0, 3)),
        (DECISIONS[3][0], (False, True)),
        (DECISIONS[3][0], (0, "1")),
        (DECISIONS[3][0], (0.0, 1.0)),
    ],
)
def test_what_is_no_outcome(decision, value):
    assert not decision.allows(value)


@given(small_spaces(100))
def test_enumeration_and_sampling_agree_on_what_there_is(space):
    graph = lowered(space)
    all_of_them = set(tn.enumerate_genotypes(graph))

    assert len(all_of_them) == tn.cardinality(space)
    assert {tn.sample(graph, seed) for seed in range(10)} <= all_of_them


def test_enumeration_has_a_fixed_order():
    graph = lowered(tn.seq(AB, tn.repeat(tn.tanh(), (1, 2))))
    found = [tuple(genotype.values()) for genotype in tn.enumerate_genotypes(graph)]

    assert found == [tuple(genotype.values()) for genotype in tn.enumerate_genotypes(graph)]
    assert {("a", 1), ("b", 1), ("a", 2), ("b", 2)} == set(found)


def test_a_space_without_decisions_has_one_network():
    assert [dict(genotype) for genotype in tn.enumerate_genotypes(lowered(tn.relu()))] == [{}]


def test_samples_follow_their_seed_or_generator():
    graph = lowered(tn.seq(*[AB] * 20))

    assert tn.sample(graph, 3) == tn.sample(graph, 3)
    assert tn.sample(graph, 3) != tn.sample(graph, 4)
    rng = random.Random(3)
    assert tn.sample(graph, 3) == tn.sample(graph, rng)
    assert tn.sample(graph, rng) != tn.sample(graph, 3)
    assert tn.sample(graph) != tn.sample(graph)


def test_samples_are_even_over_the_options_of_each_decision():
    graph = lowered(tn.choice(a=AB, b=tn.tanh(), name="outer"))
    rng = random.Random(0)
    seen = Counter(tn.sample(graph, rng) for _ in range(4000))
    shares = {tuple(genotype.values()): n / 4000 for genotype, n in seen.items()}

    assert shares == pytest.approx({("b",): 0.5, ("a", "a"): 0.25, ("a", "b"): 0.25}, abs=0.03)
