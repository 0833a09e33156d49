"""Passes: graph in, graph out, names kept, contract kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import IN_SHAPE, small_spaces, spaces

import trinas as tn
from trinas._core.errors import GenotypeError, ShapeError
from trinas.graph import remove_dead

seeds = st.integers(0, 3)


@given(spaces(), seeds)
def test_a_genotype_settles_everything(space, seed):
    graph = tn.lower(space, IN_SHAPE)
    plain = tn.specialise(graph, tn.sample(graph, seed))

    tn.lint(plain)
    assert dict(plain.decisions) == {}
    assert plain.out_shape.numbers() == IN_SHAPE
    assert set(plain) <= set(graph)


@given(spaces(), seeds, st.data())
def test_decisions_can_be_settled_in_any_order(space, seed, data):
    graph = tn.lower(space, IN_SHAPE)
    genotype = tn.sample(graph, seed)
    first = data.draw(st.sets(st.sampled_from(sorted(genotype)))) if genotype else set()
    half = tn.specialise(graph, {path: genotype[path] for path in first})
    rest = {path: value for path, value in genotype.items() if path in half.decisions}

    tn.lint(half)
    assert not first & set(half.decisions)
    assert tn.specialise(graph, genotype) == tn.specialise(half, rest)


@given(small_spaces(50))
def test_different_genotypes_that_differ_in_an_option_leave_different_traces(space):
    """Each is settled into a graph of its own nodes; equal ones only where options are equal."""
    graph = tn.lower(space, IN_SHAPE)
    for genotype in tn.enumerate_genotypes(graph):
        tn.lint(tn.specialise(graph, genotype))


@given(spaces())
def test_nothing_settled_is_nothing_changed(space):
    graph = tn.lower(space, IN_SHAPE)

    assert graph == tn.specialise(graph, {})
    assert graph is remove_dead(graph)


def choice_graph() -> tn.Graph:
    inner = tn.seq(tn.choice(x=tn.conv(1, 4), y=tn.seq(), name="inner"))
    return tn.lower(
        tn.seq(tn.choice(a=inner, b=tn.conv(3, 4), c=tn.seq(), name="slot"), tn.relu()), (4, 8, 8)
    )


def test_consumers_read_the_option_that_was_picked():
    plain = tn.specialise(choice_graph(), {"slot": "b"})

    assert list(plain) == ["input", "slot/b", "relu"]
    assert plain.sources("relu")[0] == ("slot/b", None)


def test_decisions_inside_what_was_not_picked_go_too():
    assert list(tn.specialise(choice_graph(), {"slot": "b"}).decisions) == []
    assert list(tn.specialise(choice_graph(), {"slot": "a"}).decisions) == ["slot/a/inner"]


def test_an_inner_decision_can_be_settled_first():
    half = tn.specialise(choice_graph(), {"slot/a/inner": "x"})

    assert list(half.decisions) == ["slot"]
    assert list(half.sources("slot")) == [("slot/a/inner/x", "a"), ("slot/b", "b"), ("input", "c")]


def test_the_identity_lets_the_input_through():
    plain = tn.specialise(choice_graph(), {"slot": "c"})

    assert plain.sources("relu")[0] == ("input", None)


def test_the_output_itself_can_be_an_alias():
    graph = tn.lower(tn.choice(a=tn.seq(), b=tn.conv(3, 4), name="slot"), (4, 8, 8))

    assert tn.specialise(graph, {"slot": "a"}).output == "input"
    assert tn.specialise(graph, {"slot": "b"}).output == "slot/b"


@pytest.mark.parametrize(
    ("kept", "kind", "inputs"),
    [
        ((1, 2), "sum", ["cell/edge[1,3]", "cell/edge[2,3]"]),
        ((0, 2), "sum", ["cell/edge[0,3]", "cell/edge[2,3]"]),
    ],
)
def test_kept_edges_are_added_up(kept, kind, inputs):
    graph = tn.lower(tn.cell(3, tn.conv(3, 4), keep=2, merge="last"), (4, 8, 8))
    plain = tn.specialise(graph, {"cell/node[3]": kept})

    assert kind == plain.vertex("cell/node[3]")["kind"]
    assert inputs == [source.node for source in plain.sources("cell/node[3]")]
    assert all(source.option is None for source in plain.sources("cell/node[3]"))


def test_one_kept_edge_is_a_plain_connection():
    graph = tn.lower(tn.cell(2, tn.conv(3, 4), keep=1, merge="last"), (4, 8, 8))
    plain = tn.specialise(graph, {"cell/node[2]": (0,)})

    assert list(plain) == ["input", "cell/edge[0,2]"]


def test_widths_become_numbers_everywhere():
    w = tn.width(values=(4, 8))
    space = tn.seq(tn.conv(3, w), tn.residual(tn.conv(3, w)), tn.conv(1, w * 2 + 1))
    graph = tn.lower(space, (3, 8, 8))
    plain = tn.specialise(graph, {"width": 8})

    assert [plain.vertex(n)["shape"].segments for n in plain] == [(3,), (8,), (8,), (8,), (17,)]
    assert str(plain.operation("conv[1]")) == "conv(kernel=1, channels=17)"


def test_one_of_several_widths_can_be_settled():
    a, b = tn.width(values=(2, 4), name="a"), tn.width(values=(2, 6), name="b")
    joined = tn.concat(tn.conv(1, a), tn.conv(1, b))
    graph = tn.lower(tn.seq(joined, tn.batch_norm(), tn.conv(1, 4)), (4, 8, 8))
    path = next(p for p in graph.decisions if p.endswith("a"))
    half = tn.specialise(graph, {path: 2})

    tn.lint(half)
    assert half.vertex("batch_norm")["shape"].segments[0] == 2
    assert len(half.vertex("batch_norm")["shape"].symbols) == 1


def test_a_shortcut_to_another_width_follows_one_piece():
    """Cut piece by piece, a tensor that has to become one piece would be cut wrongly."""
    a, b, c = (tn.width(values=(2, 4), name=name) for name in "abc")
    pieces = tn.concat(tn.conv(1, a), tn.conv(1, c))

    with pytest.raises(ShapeError, match=r"in one piece; got .*a, .*c; at shortcut .* Put a 1x1"):
        tn.lower(tn.seq(pieces, tn.shortcut(b + c)), (4, 8, 8))
    pieces = tn.concat(tn.conv(1, a), tn.conv(1, c))
    graph = tn.lower(tn.seq(pieces, tn.shortcut(a + c), tn.conv(1, 4)), (4, 8, 8))
    assert len(graph.vertex("shortcut")["shape"].segments) == 2


@pytest.mark.parametrize(
    ("picked", "text"),
    [
        ({"slto": "a"}, "a genotype names decisions of its space; got slto; at slto. Did you mean"),
        ({"slot": "z"}, "an outcome is one of the options of its decision; got 'z'; at slot. The"),
        ({"slot": 0}, "an outcome is one of the options of its decision; got 0; at slot."),
    ],
)
def test_what_cannot_be_settled(picked, text):
    """An unknown path or outcome is an error, never left out."""
    with pytest.raises(GenotypeError, match=text):
        tn.specialise(choice_graph(), picked)


def test_a_width_that_is_no_whole_number_is_refused():
    graph = tn.lower(tn.conv(3, tn.width(values=(4, 8))), (3, 8, 8))

    with pytest.raises(GenotypeError, match=r"got 8\.0; at conv/width. The options are 4, 8"):
        tn.specialise(graph, {"conv/width": 8.0})


def test_dead_nodes_and_their_decisions_are_removed():
    graph = choice_graph()
    cut = tn.Graph(graph.nx, graph.decisions, graph.input, "slot/a/inner")
    alive = remove_dead(cut)

    tn.lint(alive)
    assert list(alive) == ["input", "slot/a/inner/x", "slot/a/inner"]
    assert list(alive.decisions) == ["slot/a/inner"]
