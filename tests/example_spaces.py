"""Small spaces that between them use every word, for tests of what comes after the graph."""

from __future__ import annotations

from collections.abc import Callable

import trinas as tn
from examples.cell_spaces import darts, nas_bench_201
from examples.sr_trilevel.space import backbone_a, backbone_b


def trilevel() -> tn.Graph:
    """The paper's space, narrow: tree, operations, widths."""
    return tn.lower(backbone_b(16, 2, slots=2, cells=2, convs=1, ratios=(1 / 2, 1)), (3, 8, 8))


def upsampling() -> tn.Graph:
    """Backbone A, narrow: only nodes behind both upsamplings are exits."""
    return tn.lower(backbone_a(8, slots=2, cells=2, ratios=(1,)), (3, 4, 4))


def concatenated() -> tn.Graph:
    """Searched widths joined, normalised, shuffled, gated and convolved again."""
    a, b = tn.width(values=(4, 8), name="a"), tn.width(values=(4, 12), name="b")
    body = tn.seq(
        tn.concat(tn.conv(1, a), tn.seq(tn.conv(3, b), tn.sigmoid())),
        tn.batch_norm(),
        tn.dwconv(3),
        tn.choice(keep=tn.seq(), norm=tn.batch_norm()),
        tn.conv(1, a + b),
        tn.squeeze_excite(a + b, reduction=2),
        tn.pixel_shuffle(2),
        tn.conv(3, 4),
    )
    return tn.lower(body, (3, 8, 8))


def depths() -> tn.Graph:
    """Searched depth, shared decisions, shared weights, a trellis."""
    c = tn.width(values=(4, 6))
    block = tn.seq(tn.conv(3, c), tn.choice(relu=tn.relu(), tanh=tn.tanh()), tn.conv(1, 4))
    shared = tn.share("tied", tn.choice(x=tn.conv(1, 4), y=tn.conv(3, 4)), weights=True)
    grid = tn.trellis(u=tn.conv(1, 4), v=tn.seq(tn.conv(3, 4), tn.relu()), at_most={"u": 2, "v": 1})
    return tn.lower(
        tn.seq(
            tn.repeat(block, (1, 2)),
            shared,
            tn.relu(),
            shared,
            grid,
            tn.residual(tn.inverted_residual(4, expand=2), scale=0.5),
        ),
        (3, 6, 6),
    )


def bench() -> tn.Graph:
    """NAS-Bench-201 with one cell a stage."""
    return tn.lower(nas_bench_201(c=4, n=1), (3, 8, 8))


def cells() -> tn.Graph:
    """DARTS with three cells."""
    return tn.lower(darts(c=4, layers=3, steps=2), (3, 8, 8))


ALL: dict[str, Callable[[], tn.Graph]] = {
    f.__name__: f for f in (trilevel, upsampling, concatenated, depths, bench, cells)
}
