"""The text form: complete, stable, the same in every process."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from strategies import IN_SHAPE, spaces

import trinas as tn


def small_spaces() -> dict[str, tn.Graph]:
    """One space around every kind of node."""
    width = tn.width(values=(4, 8), name="thin")
    slot = tn.choice(a=tn.conv(3, 4), b=tn.seq(), none=tn.zero(), search_only="none", name="slot")
    prepare = (tn.conv(1, 4), tn.conv(1, 4, bias=False))
    normal = tn.share("normal", tn.cell(2, slot, inputs=prepare, keep=2))
    spaces = {
        "choice": tn.seq(tn.conv(3, 4, name="stem"), slot, tn.relu()),
        "width": tn.seq(
            tn.conv(3, width),
            tn.concat(tn.dwconv(3), tn.conv(1, width // 2 + 1)),
            tn.conv(1, tn.IN * 2, bias=False),
            tn.pixel_shuffle(1),
            tn.conv(1, 4),
        ),
        "residual": tn.residual(tn.repeat(slot, (0, 1, 2)), scale=0.2, skip=tn.shortcut(4)),
        "parallel": tn.seq(
            tn.parallel(tn.conv(3, 4), tn.conv(1, 4), merge="mean"), tn.squeeze_excite(4)
        ),
        "cells": tn.stack(normal, tn.seq(tn.conv(1, 4), name="reduce"), normal),
        "tree": tn.tree(
            a=tn.conv(3, 4), b=slot, at_most={"a": 2, "b": 1}, first="a", exit_at={"b": 1}
        ),
        "trellis": tn.trellis(a=tn.conv(3, 4), b=tn.relu(), at_most={"a": 2, "b": 1}),
        "shared_weights": tn.repeat(tn.share("key", tn.resblock(4), weights=True), 2),
    }
    return {name: tn.lower(space, (4, 8, 8)) for name, space in spaces.items()}


def paper_graph(nf: int = 64, scale: int = 4) -> tn.Graph:
    """The three levels of Trilevel NAS, backbone B (Sections 3.1 to 3.3)."""

    def width():
        return tn.width(nf, ratios=(1 / 3, 1 / 2, 2 / 3, 5 / 6, 1), divisor=8)

    def slot(out) -> tn.Node:
        return tn.choice(
            conv1x1=tn.conv_relu(1, out),
            resblock=tn.resblock(out),
            conv3x3=tn.conv_relu(3, out),
            dwsblock=tn.dwsblock(out),
            name="slot",
        )

    block = tn.residual(tn.seq(*(slot(width()) for _ in range(4)), slot(nf)), scale=0.2)
    trunk = tn.tree(a=block, b=tn.conv(3, nf), first="a", at_most={"a": 5, "b": 2}, name="trunk")
    tail = tn.conv(3, 3 * scale**2, name="tail")
    space = tn.seq(tn.conv(3, nf, name="stem"), trunk, tail, tn.pixel_shuffle(scale), tn.tanh())
    return tn.lower(space, (3, 32, 32))


@pytest.mark.parametrize("name", small_spaces())
def test_small_spaces_stay_as_they_are(name, golden):
    golden(f"{name}.txt", small_spaces()[name].text)


def test_the_space_of_the_paper_stays_as_it_is(golden):
    graph = paper_graph()
    kinds = [decision.kind for decision in graph.decisions.values()]
    lines = [
        f"digest {graph.digest}",
        f"nodes {len(graph)}",
        *(f"decisions {kind} {kinds.count(kind)}" for kind in sorted(set(kinds))),
        f"exits {len(graph.decisions['trunk'].options)}",
        f"output {graph.output} {graph.out_shape}",
    ]

    golden("paper_space.txt", "\n".join(lines) + "\n")


def test_the_counts_of_the_paper():
    """55 places to end, 35 blocks of five slots, four of them with a searched width."""
    graph = paper_graph()
    kinds = [decision.kind for decision in graph.decisions.values()]

    assert len(graph.decisions["trunk"].options) == 55
    assert kinds.count("operation") == 35 * 5
    assert kinds.count("width") == 35 * 4


def test_everything_a_line_can_hold():
    text = small_spaces()["cells"].text

    assert "decision normal/node[3]: inputs {0, 1, 2} keep 2\n" in text
    assert "decision normal/edge[0,2]: operation {a, b, none!}\n" in text
    assert "stack/normal[0]/node[3] = keep[normal/node[3]](0: " in text
    assert "<key/residual/conv1>" in small_spaces()["shared_weights"].text
    assert "residual = sum(residual/skip, 0.2*residual/repeat)" in small_spaces()["residual"].text
    assert (
        "decision tree: path {a-a-b, a-b, a-b-a} after [-1, -1, 1]\n" in small_spaces()["tree"].text
    )


@given(spaces())
def test_equal_text_is_equal_graph(space):
    graph = tn.lower(space, IN_SHAPE)
    other = tn.lower(space, (4, 16, 16))

    assert graph != other
    assert graph.digest != other.digest
    assert (graph == tn.lower(space, IN_SHAPE)) is True


@pytest.mark.parametrize(("left", "right"), [(1 / 3, 0.333333), (0.1, 0.1 + 1e-12)])
def test_factors_are_written_in_full(left, right):
    first = tn.lower(tn.residual(tn.seq(), scale=left), IN_SHAPE)
    second = tn.lower(tn.residual(tn.seq(), scale=right), IN_SHAPE)

    assert first != second


def test_the_text_is_the_same_in_every_process():
    """Nothing in it depends on the seed of Python's hashes."""
    code = "from graph.test_text import paper_graph; print(paper_graph().digest)"
    tests = os.path.dirname(os.path.dirname(__file__))
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": tests},
        capture_output=True,
        text=True,
        check=True,
    )

    assert paper_graph().digest == other.stdout.strip()
