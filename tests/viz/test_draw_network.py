"""Drawings of graphs, genotypes and supernets: what is on them."""

from __future__ import annotations

import pytest
from example_spaces import ALL
from viz.dot_reader import flow, read
from viz.drawn_spaces import Weighed, paper_graph, small_space, table_9, weighed

import trinas as tn


@pytest.fixture(scope="module")
def paper() -> tn.Graph:
    return paper_graph()


@pytest.fixture
def small() -> tn.Graph:
    return tn.lower(small_space(), (3, 8, 8))


# ------------------------------------------------------------ every operation


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", range(3))
def test_all_operations_and_their_edges_are_drawn(name, seed):
    """At the finest level a derived network is drawn edge for edge."""
    genotype = tn.sample(ALL[name](), seed)
    graph = tn.specialise(genotype.graph, genotype)

    drawn = flow(read(tn.draw(genotype, detail="operations").dot))

    edges = {(source.node, node) for node in graph for source in graph.sources(node)}
    assert drawn == edges | {(graph.output, "#output")}


@pytest.mark.parametrize("name", ALL)
def test_an_open_graph_is_drawn_edge_for_edge(name):
    """Options that do nothing get a box; the rest is the graph."""
    graph = ALL[name]()

    drawn = read(tn.draw(graph, detail="operations").dot)

    skips = set(drawn.nodes) - set(graph) - {"#output"}
    skips = {node for node in skips if drawn.nodes[node].get("shape") != "point"}
    edges = {(t, h) for t, h in flow(drawn) if not {t, h} & (skips | {"#output"})}
    short = {(s.node, n) for n in graph for s in graph.sources(n)}
    bridged = {(t, h) for skip in skips for t, s in flow(drawn) if s == skip
               for s2, h in flow(drawn) if s2 == skip}  # fmt: skip
    assert edges | bridged == short


@pytest.mark.parametrize("name", ["trilevel", "upsampling", "concatenated"])
@pytest.mark.parametrize("seed", range(4))
def test_blocks_are_the_contracted_network(name, seed):
    """Every node belongs to the box of its longest path; the arrows follow."""
    genotype = tn.sample(ALL[name](), seed)
    graph = tn.specialise(genotype.graph, genotype)
    drawn = read(tn.draw(genotype).dot)

    def box(node: str) -> str:
        while node not in drawn.nodes:
            node = node.rpartition("/")[0]
            if not node:
                return ""
        return node

    contracted = {(box(s.node), box(n)) for n in graph for s in graph.sources(n)}
    # Activations stand in the box before them, so they have none of their own.
    expected = {(t, h) for t, h in contracted if t != h and t and h}
    assert expected <= flow(drawn)
    assert all(label for node, label in drawn.labels().items()
               if drawn.nodes[node].get("shape") != "point")  # fmt: skip


# ------------------------------------------------------------ the paper's network


def test_the_network_of_table_9(paper):
    """Five cells of five slots, a convolution behind them, channels in and out."""
    drawn = read(tn.draw(table_9(paper), title="TrilevelNAS-B").dot)
    labels = drawn.labels()

    assert labels["stem"] == "stem|conv 3×3|3 → 64"
    assert labels["trunk/a-a/slot[2]/dwsblock"] == "dwsblock|40 → 56"
    assert labels["trunk/a-a-a-a-a-b"] == "a-a-a-a-a-b|conv 3×3|64 → 64"
    assert labels["pixel_shuffle"] == "pixel shuffle ×4|→ tanh → affine|48×32×32 → 3×128×128"
    cells = [name for name in drawn.clusters if name.startswith("cluster trunk/")]
    assert [drawn.clusters[c]["label"] for c in cells] == [
        f"{'-'.join('a' * n)}|" for n in range(1, 6)
    ]
    assert all(len(drawn.inside[c]) == 7 for c in cells)  # entry, five slots, the sum
    assert drawn.graph["label"] == "TrilevelNAS-B"


def test_residual_arrows_are_drawn(paper):
    drawn = read(tn.draw(table_9(paper)).dot)

    assert drawn.arrow("trunk/a#entry", "trunk/a").get("headlabel") is None
    body = drawn.arrow("trunk/a/slot[4]/conv1x1", "trunk/a")
    assert body["headlabel"] == " ×0.2 "
    assert ("stem", "trunk/a") in flow(drawn)


def test_a_long_network_is_broken_into_lanes(paper):
    """Lanes joined by one arrow each; a short network stays in one piece."""
    lanes = [c for c in read(tn.draw(table_9(paper)).dot).clusters if "#lane" in c]
    corners = [n for n in read(tn.draw(table_9(paper)).dot).nodes if n.startswith("#turn")]
    assert len(lanes) > 1
    assert len(corners) == len(lanes) - 1

    short = read(tn.draw(tn.lower(tn.conv(3, 4), (3, 8, 8))).dot)
    assert [c for c in short.clusters if "#lane" in c] == ["cluster #lane0"]


def test_a_specialised_graph_looks_like_its_genotype():
    genotype = tn.sample(ALL["trilevel"](), 1)
    graph = tn.specialise(genotype.graph, genotype)

    assert tn.draw(graph).dot == tn.draw(genotype).dot


# ------------------------------------------------------------ options, weights


def test_options_stand_beside_each_other(small):
    """A choice is a frame with its options and what joins them; doing nothing is a box."""
    drawn = read(tn.draw(small).dot)

    assert drawn.inside["cluster residual/slot"] == [
        "residual/slot/conv3", "residual/slot/skip", "residual/slot",
    ]  # fmt: skip
    assert "dashed" in drawn.clusters["cluster residual/slot"]["style"]
    assert {("stem", "residual/slot/skip"), ("residual/slot/skip", "residual/slot")} <= flow(drawn)


def test_weights_are_numbers_and_strength(small):
    drawn = read(tn.draw(Weighed(small, {"residual/slot": [0.75, 0.25]})).dot)
    strong = drawn.arrow("residual/slot/conv3", "residual/slot")
    weak = drawn.arrow("residual/slot/skip", "residual/slot")

    assert (strong["label"], weak["label"]) == (" 0.75 ", " 0.25 ")
    assert float(strong["penwidth"]) > float(weak["penwidth"])
    assert strong["color"] < weak["color"]  # darker


def test_zero_weight_is_faint(small):
    drawn = read(tn.draw(Weighed(small, {"residual/slot": [1.0, 0.0]})).dot)

    assert drawn.arrow("residual/slot/skip", "residual/slot")["style"] == "dashed"
    assert "dashed" in drawn.nodes["residual/slot/skip"]["style"]
    assert drawn.arrow("residual/slot/conv3", "residual/slot").get("style") is None


def test_a_genotype_is_brought_out(small):
    """On its graph, what a genotype leaves out is faint."""
    genotype = tn.Genotype.of(small, {"residual/slot": "skip"})
    drawn = read(tn.draw(small, genotype).dot)

    assert "dashed" in drawn.nodes["residual/slot/conv3"]["style"]
    assert drawn.arrow("residual/slot/conv3", "residual/slot")["style"] == "dashed"
    assert drawn.arrow("residual/slot/skip", "residual/slot").get("style") is None


def test_a_genotype_is_brought_out_on_a_supernet(small):
    """The weights stay; the genotype says what is faint."""
    genotype = tn.Genotype.of(small, {"residual/slot": "skip"})
    drawn = read(tn.draw(Weighed(small, {"residual/slot": [0.75, 0.25]}), genotype).dot)

    assert drawn.arrow("residual/slot/conv3", "residual/slot")["style"] == "dashed"
    assert drawn.arrow("residual/slot/skip", "residual/slot")["label"] == " 0.25 "


def test_the_tree_of_the_paper(paper):
    """55 blocks, a box each, and none of their insides."""
    drawn = read(tn.draw(paper).dot)
    blocks = [n for n in drawn.nodes if n.startswith("trunk/")]

    assert len(blocks) == 55
    assert drawn.clusters["cluster trunk"]["label"] == (
        "trunk|tree of 55 blocks,|any of them can be the last|"
    )
    assert ("trunk/a-b", "trunk/a-b-a") in flow(drawn)
    assert drawn.labels()["trunk/a-b"].startswith("b")


def test_only_some_blocks_are_exits():
    """Where `exit_at` says so."""
    drawn = read(tn.draw(ALL["upsampling"]()).dot)

    assert "4 of them can be the last" in drawn.clusters["cluster trunk"]["label"]


def test_weights_of_a_tree():
    """Exits say their weight; arrows carry what passes through; dead ends are faint."""
    graph = ALL["trilevel"]()
    options = graph.decisions["trunk"].options
    weights = dict.fromkeys(options, 0.0) | {"a-a": 0.25, "a-b": 0.125, "a-b-a": 0.625}
    known = {p: [1 / len(d.options)] * len(d.options) for p, d in graph.decisions.items()}
    drawn = read(tn.draw(Weighed(graph, known | {"trunk": list(weights.values())})).dot)
    labels = drawn.labels()

    assert labels["trunk/a-b"] == "b|exit 0.12"
    assert drawn.arrow("trunk/a", "trunk/a-b")["label"] == " 0.75 "
    assert drawn.arrow("trunk/a-b", "trunk")["label"] == " 0.12 "
    assert drawn.arrow("trunk/a-a", "trunk/a-a-b")["style"] == "dashed"
    assert "exit" not in labels["trunk/a"]


def test_blocks_of_a_tree_list_their_leading_options():
    graph = ALL["trilevel"]()
    known = {p: [0.0] * (len(d.options) - 1) + [1.0] for p, d in graph.decisions.items()}
    known["trunk"] = [1.0] + [0.0] * (len(known["trunk"]) - 1)
    labels = read(tn.draw(Weighed(graph, known)).dot).labels()

    assert labels["trunk/a"] == "|a|exit 1.00|dwsblock 16|1.00|dwsblock|1.00"
    assert labels["trunk/a-a"] == "a"


def test_too_many_full_blocks_are_left_empty(paper):
    """Early in a search all 55 exits have weight: no arrow each, no lists."""
    drawn = read(tn.draw(weighed(paper, alive=99)).dot)

    assert not any("dwsblock" in label for label in drawn.labels().values())
    assert [t for t, h, a in drawn.shown if h == "trunk"] == []


def test_depth_is_on_the_arrows():
    graph = tn.lower(tn.repeat(tn.conv(3, 3), (0, 1, 2), name="body"), (3, 8, 8))
    drawn = read(tn.draw(graph).dot)

    assert drawn.arrow("input", "body")["label"] == " ×0 "
    assert drawn.arrow("body[1]", "body")["label"] == " ×2 "


def test_searched_widths_are_ranges_or_the_leading_one():
    slot = tn.choice(a=tn.conv(3, w := tn.width(values=(4, 8))), b=tn.conv(1, w), name="slot")
    graph = tn.lower(tn.seq(slot, tn.conv(1, 3)), (3, 8, 8))

    plain = read(tn.draw(graph).dot)
    assert plain.clusters["cluster slot"]["label"] == "slot|width 4–8|"
    assert plain.labels()["slot/a"] == "a|conv 3×3|3 → 4–8"

    weights = {"slot": [0.5, 0.5], "slot/width": [0.875, 0.125]}
    assert read(tn.draw(Weighed(graph, weights)).dot).clusters["cluster slot"]["label"] == (
        "slot|width 4 (0.88)|"
    )


def test_a_real_supernet_is_drawn():
    """Not only what the tests put in its place."""
    net = tn.compile_supernet(ALL["concatenated"](), tn.relax.Softmax())
    drawn = read(tn.draw(net).dot)

    weights = net.weights()["choice"]
    assert drawn.arrow("choice/norm", "choice")["label"] == f" {weights[1]:.2f} "


# ------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("what", "settings", "text"),
    [
        (3, {}, "a drawing shows a space, a graph, a genotype, a supernet or a network; got int"),
        (tn.conv(3, 4), {"detail": "all"}, "unknown detail; got 'all'. Known: blocks, operations."),
        (tn.conv(3, 4), {"direction": "up"}, "unknown direction; got 'up'. Known: TB, LR, None."),
    ],
)
def test_mistakes_are_named(what, settings, text):
    with pytest.raises(tn.TrinasError) as raised:
        tn.draw(what, **settings)

    assert text in str(raised.value)


def test_genotypes_that_do_not_belong(small):
    genotype = tn.sample(small, 0)
    other = tn.lower(tn.conv(3, 4), (3, 8, 8))

    with pytest.raises(tn.TrinasError, match="drawn on the graph it belongs to"):
        tn.draw(other, genotype)
    with pytest.raises(tn.TrinasError, match="a space is drawn without a genotype"):
        tn.draw(small_space(), genotype)
    with pytest.raises(tn.TrinasError, match="a genotype is drawn alone"):
        tn.draw(genotype, genotype)


@pytest.mark.parametrize("weights", [{"residual/slot": [1.0]}, {"slot": [0.5, 0.5]}])
def test_weights_that_do_not_fit(small, weights):
    with pytest.raises(tn.TrinasError, match="every option of a decision of the graph"):
        tn.draw(Weighed(small, weights))


def test_a_plain_network_is_drawn_as_its_genotype():
    graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 8, 8))
    genotype = tn.sample(graph, 0)

    assert tn.draw(tn.build(graph, genotype)).dot == tn.draw(genotype).dot
