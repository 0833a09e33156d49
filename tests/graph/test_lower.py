"""From spaces to graphs: names, edges, shapes, sharing, and no limit of depth."""

import pytest
from hypothesis import given
from strategies import IN_SHAPE, spaces

import trinas as tn
from trinas._core.errors import ShapeError, SpaceError

conv = tn.conv(3, 4)
AB = tn.choice(a=tn.relu(), b=tn.seq(), name="slot")


def lower(space, shape=(4, 8, 8)) -> tn.Graph:
    graph = tn.lower(space, shape)
    tn.lint(graph)
    return graph


def nodes(space) -> list[str]:
    return list(lower(space))[1:]


def sources(graph: tn.Graph, node: str) -> list[str]:
    return [source.node for source in graph.sources(node)]


@given(spaces())
def test_every_space_lowers_to_a_graph_that_keeps_the_contract(space):
    graph = lower(space)

    assert graph.out_shape.numbers() == IN_SHAPE
    assert graph.out_shape.symbols == ()


@given(spaces())
def test_lowering_is_a_function(space):
    first, second = lower(space), lower(space)

    assert first == second
    assert hash(first) == hash(second)
    assert first.digest == second.digest


# ------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (conv, ["conv"]),
        (conv.named("stem"), ["stem"]),
        (tn.seq(conv, tn.relu()), ["conv", "relu"]),
        (tn.seq(conv, tn.relu(), conv), ["conv[0]", "relu", "conv[1]"]),
        (tn.seq(conv, tn.seq(tn.relu(), conv)), ["conv[0]", "relu", "conv[1]"]),
        (tn.seq(conv, tn.seq(conv, name="body")), ["conv", "body/conv"]),
        (tn.seq(conv, name="body"), ["body/conv"]),
        (AB, ["slot/a", "slot"]),
        (tn.seq(AB, AB), ["slot[0]/a", "slot[0]", "slot[1]/a", "slot[1]"]),
        (tn.choice(a=tn.seq(conv, tn.relu()), b=conv), ["choice/a/conv", "choice/a/relu"]),
        (tn.choice(a=conv), ["choice/a"]),
        (tn.repeat(conv, 2), ["repeat[0]", "repeat[1]"]),
        (tn.repeat(tn.seq(conv, conv), 1), ["repeat[0]/conv[0]", "repeat[0]/conv[1]"]),
        (tn.repeat(tn.repeat(conv, 1), 1), ["repeat[0][0]"]),
        (tn.residual(conv), ["residual/conv", "residual"]),
        (tn.residual(tn.seq(conv, conv)), ["residual/conv[0]", "residual/conv[1]", "residual"]),
        (tn.residual(conv, skip=conv), ["residual/conv", "residual/skip", "residual"]),
        (tn.concat(conv, conv), ["parallel/conv[0]", "parallel/conv[1]", "parallel"]),
        (
            tn.parallel(tn.seq(conv), conv, tn.seq(conv)),
            ["parallel/branch[0]/conv", "parallel/conv", "parallel/branch[1]/conv", "parallel"],
        ),
        (
            tn.cell(1, conv, inputs=(conv, None), merge="sum"),
            ["cell/in[0]", "cell/edge[0,2]", "cell/edge[1,2]", "cell/node[2]", "cell"],
        ),
        (tn.stack(conv, tn.relu(), conv), ["stack/conv[0]", "stack/relu", "stack/conv[1]"]),
        (tn.tree(a=conv, at_most={"a": 2}), ["tree/a", "tree/a-a", "tree"]),
        (tn.trellis(a=conv, at_most={"a": 2}), ["trellis/a1/a", "trellis/a2/a"]),
        (tn.share("key", conv), ["key"]),
        (tn.share("key", conv, name="here"), ["here"]),
    ],
)
def test_names(space, names):
    assert names == nodes(space)[: len(names)]


def test_decisions_are_named_after_their_node():
    space = tn.seq(
        tn.repeat(AB, (1, 2)),
        tn.tree(a=conv, at_most={"a": 2}),
        tn.cell(2, conv, keep=1, merge="sum"),
    )
    graph = lower(space)
    kinds = {path: d.kind for path, d in graph.decisions.items()}

    expected = {
        "repeat": "depth",
        "repeat[0]": "operation",
        "repeat[1]": "operation",
        "tree": "path",
        "cell/node[2]": "inputs",
    }
    assert expected == kinds


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (tn.conv(3, 4, name="input"), "two parts of a space have different paths; got input"),
        (
            tn.residual(tn.seq(conv, tn.relu(name="skip")), skip=conv, name="r"),
            "two parts of a space have different paths; got r/skip",
        ),
        (
            tn.seq(
                tn.conv(3, tn.width(values=(2, 4), name="slot")),
                tn.conv(3, 4),
                AB,
                name="body",
            ),
            None,
        ),
        (
            # A width and a choice that are decided at one place.
            tn.seq(
                conv,
                *[tn.conv(1, w) for w in [tn.width(values=(2, 4))] * 2],
                conv,
                AB.named("width"),
            ),
            "two decisions of a space have different paths; got width",
        ),
    ],
)
def test_names_that_collide(space, text):
    if text is None:
        lower(space)
        return
    with pytest.raises(SpaceError, match=text) as caught:
        lower(space)

    assert "Name one of them otherwise" in str(caught.value)


# ------------------------------------------------------------ every kind of node


def test_a_choice_mixes_its_options():
    graph = lower(tn.choice(a=conv, b=tn.seq(), none=tn.zero(), search_only="none", name="c"))
    decision = graph.decisions["c"]

    assert decision.options == ("a", "b", "none")
    assert decision.derivable == ("a", "b")
    assert sources(graph, "c") == ["c/a", "input", "c/none"]
    assert [source.option for source in graph.sources("c")] == ["a", "b", "none"]


def test_a_residual_adds():
    graph = lower(tn.residual(tn.seq(), scale=0.2))

    assert sources(graph, "residual") == ["input", "input"]
    assert graph.vertex("residual")["coefs"] == (1.0, 0.2)


@pytest.mark.parametrize(
    ("merge", "kind", "coefs", "channels"),
    [
        ("sum", "sum", (), 4),
        ("mean", "sum", (0.5, 0.5), 4),
        ("product", "product", (), 4),
        ("concat", "concat", (), 8),
    ],
)
def test_a_parallel_merges(merge, kind, coefs, channels):
    graph = lower(tn.parallel(conv, conv, merge=merge, name="p"))
    vertex = graph.vertex("p")

    assert (kind, coefs, channels) == (vertex["kind"], vertex["coefs"], graph.out_shape.channels)


def test_the_depths_of_a_repeat_are_results_on_the_way():
    graph = lower(tn.repeat(conv, (0, 1, 3)))

    assert sources(graph, "repeat") == ["input", "repeat[0]", "repeat[2]"]
    assert graph.decisions["repeat"].order == (-1, 0, 1)
    assert graph.decisions["repeat"].options == (0, 1, 3)


def test_a_fixed_repeat_is_a_chain():
    graph = lower(tn.repeat(conv, 3))

    assert dict(graph.decisions) == {}
    assert graph.output == "repeat[2]"


def test_a_cell_adds_up_edges_from_all_before():
    graph = lower(tn.cell(2, conv, inputs=(None, None)))

    assert sources(graph, "cell/node[2]") == ["cell/edge[0,2]", "cell/edge[1,2]"]
    assert sources(graph, "cell/node[3]") == ["cell/edge[0,3]", "cell/edge[1,3]", "cell/edge[2,3]"]
    assert sources(graph, "cell") == ["cell/node[2]", "cell/node[3]"]
    assert sources(graph, "cell/edge[2,3]") == ["cell/node[2]"]


def test_a_step_chooses_only_where_there_is_a_choice():
    graph = lower(tn.cell(3, conv, keep=2, merge="sum"))

    assert graph.vertex("cell/node[1]")["kind"] == "sum"
    assert graph.vertex("cell/node[2]")["kind"] == "sum"
    assert graph.vertex("cell/node[3]")["kind"] == "keep"
    assert [(d.keep, d.options) for d in graph.decisions.values()] == [(2, (0, 1, 2))]


def test_the_last_step_can_be_the_output():
    assert lower(tn.cell(2, conv, merge="last")).output == "cell/node[2]"


def _two(merge="sum"):
    return tn.cell(1, tn.relu(), inputs=(None, None), merge=merge)


def test_a_stack_hands_on_the_last_two_results():
    graph = lower(tn.stack(_two(), _two(), _two()))

    assert [sources(graph, f"stack/cell[0]/edge[{i},2]")[0] for i in range(2)] == ["input", "input"]
    assert [sources(graph, f"stack/cell[1]/edge[{i},2]")[0] for i in range(2)] == [
        "input",
        "stack/cell[0]",
    ]
    assert [sources(graph, f"stack/cell[2]/edge[{i},2]")[0] for i in range(2)] == [
        "stack/cell[0]",
        "stack/cell[1]",
    ]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda cell: tn.share("key", cell),
        lambda cell: tn.choice(a=cell),
        lambda cell: tn.seq(cell),
        lambda cell: tn.seq(cell, name="named"),
        lambda cell: tn.repeat(cell, 1),
        lambda cell: tn.residual(cell),
        lambda cell: tn.parallel(cell),
        lambda cell: tn.tree(a=cell, at_most={"a": 1}),
        lambda cell: tn.trellis(a=cell, at_most={"a": 1}),
    ],
)
def test_whatever_holds_a_cell_hands_on_the_history(wrap):
    graph = lower(tn.stack(conv, wrap(_two())))
    firsts = [node for node in graph if node.endswith("edge[0,2]")]

    assert sources(graph, firsts[0]) == ["input"]


def test_a_cell_with_more_inputs_than_there_is_history_repeats_the_oldest():
    graph = lower(tn.stack(conv, tn.cell(1, tn.relu(), inputs=(None,) * 3, merge="sum")))
    ends = [sources(graph, f"stack/cell/edge[{i},3]")[0] for i in range(3)]

    assert ends == ["input", "input", "stack/conv"]


def test_a_long_memory():
    cell = tn.cell(1, tn.relu(), inputs=(None,) * 3, merge="sum")
    graph = lower(tn.stack(conv, conv, cell, memory=3))
    ends = [sources(graph, f"stack/cell/edge[{i},3]")[0] for i in range(3)]

    assert ends == ["input", "stack/conv[0]", "stack/conv[1]"]


def test_the_paths_of_a_tree_share_prefixes_and_never_merge():
    graph = lower(tn.tree(a=conv, b=tn.relu(), at_most={"a": 1, "b": 1}))

    assert list(graph)[1:] == ["tree/a", "tree/a-b", "tree/b", "tree/b-a", "tree"]
    assert sources(graph, "tree/a-b") == ["tree/a"]
    assert graph.decisions["tree"].options == ("a", "a-b", "b", "b-a")
    assert graph.decisions["tree"].order == (-1, 0, -1, 2)


def test_the_order_of_exits_skips_nodes_that_are_none():
    """The nearest exit on the way is the one before, also over a gap."""
    blocks = {"a": conv, "b": tn.relu()}
    tree = tn.tree(blocks, at_most={"a": 2, "b": 1}, exit_at={"b": 1})
    decision = lower(tree).decisions["tree"]

    assert decision.options == ("a-a-b", "a-b", "a-b-a", "b", "b-a", "b-a-a")
    assert decision.order == (-1, -1, 1, -1, 3, 4)


def test_one_exit_is_no_decision_and_what_leads_nowhere_is_not_built():
    graph = lower(tn.tree(a=conv, at_most={"a": 3}, exit_at={"a": 2}))

    assert dict(graph.decisions) == {}
    assert list(graph) == ["input", "tree/a", "tree/a-a"]


def test_the_first_block_of_all_paths():
    graph = lower(tn.tree(a=conv, b=tn.relu(), at_most={"a": 1, "b": 1}, first="b"))

    assert graph.decisions["tree"].options == ("b", "b-a")


def test_a_trellis_merges_where_equally_many_blocks_have_passed():
    graph = lower(tn.trellis(a=conv, b=tn.relu(), at_most={"a": 1, "b": 1}))

    expected = ["trellis/a0-b1/b", "trellis/a1-b0/a", "trellis/a1-b1/a", "trellis/a1-b1/b"]
    assert expected == list(graph)[1:-1]
    assert list(graph.decisions) == ["trellis/a1-b1"]
    assert graph.decisions["trellis/a1-b1"].options == ("a", "b")
    assert sources(graph, "trellis/a1-b1/a") == ["trellis/a0-b1/b"]


def test_the_exits_of_a_trellis():
    graph = lower(tn.trellis(a=conv, b=tn.relu(), at_most={"a": 1, "b": 1}, exit_at={"a": 1}))
    decision = graph.decisions["trellis"]

    assert (decision.options, decision.order) == (("a1-b0", "a1-b1"), None)


# ------------------------------------------------------------ sharing


def test_shared_decisions_have_weights_of_their_own():
    shared = tn.share("key", tn.choice(a=conv, b=tn.seq()))
    graph = lower(tn.seq(shared, shared))

    assert list(graph.decisions) == ["key"]
    assert [graph.vertex(n)["weights"] for n in graph if n[-1] == "a"] == ["key[0]/a", "key[1]/a"]


def test_shared_weights():
    shared = tn.share("key", tn.seq(conv, tn.relu()), weights=True)
    graph = lower(tn.seq(shared, shared))

    expected = ["key/conv", "key/relu"] * 2
    assert expected == [graph.vertex(node)["weights"] for node in list(graph)[1:]]


@pytest.mark.parametrize("first", [True, False])
def test_a_share_can_stand_where_its_key_is_its_path(first):
    at_the_root, inside = tn.share("key", AB), tn.seq(tn.share("key", AB), name="body")
    graph = lower(tn.seq(at_the_root, inside) if first else tn.seq(inside, at_the_root))

    assert list(graph.decisions) == ["key"]


def test_bodies_with_the_same_decisions_can_differ_otherwise():
    wide = tn.seq(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), tn.conv(1, 4))
    narrow = tn.seq(tn.choice(a=tn.conv(3, 2), b=tn.conv(1, 2), name="slot"), tn.conv(1, 4))
    graph = lower(tn.seq(tn.share("key", wide), tn.share("key", narrow)))

    assert list(graph.decisions) == ["key/slot"]


def test_shared_inside_shared():
    inner = tn.share("inner", AB)
    graph = lower(tn.seq(tn.share("outer", tn.seq(AB, inner)), inner))

    assert list(graph.decisions) == ["outer/slot", "inner"]


@pytest.mark.parametrize(
    ("space", "error", "text"),
    [
        (
            tn.seq(tn.share("key", AB), tn.share("key", tn.choice(a=conv, c=conv))),
            SpaceError,
            r"a shared decision offers the same options everywhere; got \['a', 'c'\] after "
            r"\['a', 'b'\]; at key",
        ),
        (
            tn.seq(tn.share("key", tn.seq(AB)), tn.share("key", tn.seq(AB, AB.named("more")))),
            SpaceError,
            "a shared subspace holds the same decisions at all its places; got key/more at some "
            r"places only; at key\[1\], declared at test_lower.py:",
        ),
        (
            tn.seq(AB, tn.seq(tn.share("slot", AB), name="body")),
            SpaceError,
            "two decisions of a space have different paths; got slot",
        ),
        (
            tn.seq(tn.seq(tn.share("slot", AB), name="body"), AB),
            SpaceError,
            "two decisions of a space have different paths; got slot",
        ),
        (
            tn.seq(conv, tn.seq(tn.share("conv", conv, weights=True), name="body")),
            SpaceError,
            "two sets of weights have different names; got conv; at body/conv and conv",
        ),
        (
            tn.seq(
                tn.share("key", tn.conv(3, 8), weights=True),
                tn.share("key", tn.conv(3, 8), weights=True),
            ),
            ShapeError,
            "weights are shared between equal operations on equally many channels; got "
            r"conv\(kernel=3, channels=8\) on 8x8x8 after .* on 4x8x8; at key\[1\] and key\[0\]",
        ),
    ],
)
def test_what_cannot_be_shared(space, error, text):
    with pytest.raises(error, match=text):
        lower(space)


# ------------------------------------------------------------ shapes


def test_the_scale_is_that_of_the_height():
    graph = lower(tn.seq(tn.conv(3, 4, stride=2), tn.upsample(3), tn.flatten(), tn.linear(2)))
    scales = [graph.vertex(node)["scale"] for node in graph]

    assert [str(scale) for scale in scales] == ["1", "1/2", "3/2", "None", "None"]


@pytest.mark.parametrize("shape", [(3,), (3, 7), [3, 8, 8]])
def test_inputs_of_every_rank(shape):
    assert tuple(shape) == lower(tn.relu(), shape).out_shape.numbers()


@pytest.mark.parametrize("shape", [(), (0, 8, 8), (3, 8.0, 8), (3, True, 8), ("3",)])
def test_input_shapes_that_cannot_be(shape):
    with pytest.raises(ShapeError, match="an input shape is") as caught:
        tn.lower(conv, shape)

    assert "test_lower.py:" in str(caught.value)


def test_in_is_the_width_in_force():
    w = tn.width(values=(2, 4))
    graph = lower(tn.seq(tn.conv(1, w), tn.conv(1, tn.IN * 3), tn.conv(1, 4)))

    assert str(graph.vertex("conv[1]")["shape"].channels) == "3*conv[0]/width"


def test_a_gate_multiplies_every_position():
    graph = lower(tn.parallel(conv, tn.seq(conv, tn.global_avg_pool()), merge="product"))

    assert graph.out_shape.numbers() == (4, 8, 8)


def test_a_vector_is_no_gate():
    vector = tn.seq(tn.global_avg_pool(), tn.flatten())
    with pytest.raises(ShapeError, match="what is multiplied has one shape"):
        lower(tn.parallel(conv, vector, merge="product"))


def test_gates_alone_can_be_multiplied():
    gate = tn.global_avg_pool()

    assert lower(tn.parallel(gate, gate, merge="product")).out_shape.numbers() == (4, 1, 1)


# ------------------------------------------------------------ size and depth


def deep(depth: int) -> dict[str, tn.Node]:
    kinds = {
        "residual": tn.residual,
        "unnamed seq": lambda body: tn.seq(body, tn.relu()),
        "named seq": lambda body: tn.seq(body, name="s"),
        "choice": lambda body: tn.choice(a=body, b=tn.seq()),
        "parallel": tn.parallel,
        "repeat": lambda body: tn.repeat(body, (0, 1)),
        "cell": lambda body: tn.cell(1, body, merge="last"),
        "stack": tn.stack,
        "tree": lambda body: tn.tree(a=body, at_most={"a": 1}),
        "trellis": lambda body: tn.trellis(a=body, at_most={"a": 1}),
    }
    found = {}
    for kind, wrap in kinds.items():
        node: tn.Node = tn.relu()
        for _ in range(depth):
            node = wrap(node)
        found[kind] = node
    return found


@pytest.mark.parametrize("kind", deep(1))
def test_depth_is_not_limited_by_recursion(kind):
    lower(deep(1500)[kind])
