"""Regret against cost as an SVG, drawn by hand: no library for it is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TypeAlias

import attrs

from trinas.bench.runner import Record
from trinas.bench.statistics import Interval, interval

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 200, 40, 50
COLOURS = ("#1b6ca8", "#c8553d", "#588157", "#8e5aa3", "#b8860b", "#555555", "#2a9d8f")


Scale: TypeAlias = Callable[[float], float]


def svg(title: str, groups: Mapping[tuple[str, str], Mapping[int, Record]]) -> str:
    """One picture of a benchmark.

    Every method, and every baseline at the cost of every method, is a point: mean passes to
    the right (logarithmic), mean regret upwards, with its 95 % interval over seeds. What
    costs nothing stands at the left edge and does not decide how far the axes go: above them it
    stands at the top, with its regret beside it.

    Args:
        title: above the picture.
        groups: records by method and what it is compared with, by seed.
    """
    points = []
    for (method, against), of in groups.items():
        cost = sum(r.passes for r in of.values()) / len(of)
        regret = interval([r.regret for r in of.values()])
        points.append((method, against, cost, regret))
    methods = list(dict.fromkeys(method for method, *_ in points))
    paid = [(cost, regret) for *_, cost, regret in points if cost] or [(1.0, points[0][-1])]
    across = _Logarithmic.of([cost for cost, _ in paid])
    # Intervals of two or three seeds may be as wide as they like: they are cut off.
    top = max(min(r.high, 2 * r.mean) for _, r in paid) or 1.0

    def up(value: float) -> float:
        share = min(max(value / top, 0.0), 1.0)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    lines = [*_frame(title, top, up, across)]
    for method, against, cost, regret in points:
        colour = COLOURS[methods.index(method) % len(COLOURS)]
        x = across(cost) if cost else LEFT
        lines += _point(x, regret, up, colour, hollow=bool(against))
        if regret.mean > top:
            lines.append(f'<text x="{x + 10:.1f}" y="{TOP + 16}">{regret.mean:.3g}</text>')
    for k, method in enumerate(methods):
        y, colour = TOP + 20 * k, COLOURS[k % len(COLOURS)]
        lines.append(f'<circle cx="{WIDTH - RIGHT + 20}" cy="{y}" r="5" fill="{colour}"/>')
        lines.append(f'<text x="{WIDTH - RIGHT + 32}" y="{y + 4}">{escape(method)}</text>')
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    style = 'font-family="sans-serif" font-size="12"'
    inside = "\n".join(lines)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{inside}\n</svg>\n'


@attrs.frozen
class _Logarithmic:
    """Costs to places, between two powers of ten."""

    low: int
    high: int

    @classmethod
    def of(cls, costs: Sequence[float]) -> _Logarithmic:
        low = math.floor(math.log10(min(costs)))
        return cls(low, max(low + 1, math.ceil(math.log10(max(costs)))))

    def __call__(self, cost: float) -> float:
        share = (math.log10(cost) - self.low) / (self.high - self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def _frame(title: str, top: float, up: Scale, across: _Logarithmic) -> list[str]:
    lines = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 8}">cost in forward passes (baselines hollow)</text>',
        f'<text x="8" y="{TOP - 8}">regret</text>',
    ]
    for k in range(5):
        value = top * k / 4
        lines.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(value):.1f}" y2="{up(value):.1f}" '
            'stroke="#dddddd"/>'
        )
        lines.append(f'<text x="8" y="{up(value) + 4:.1f}">{value:.3g}</text>')
    for power in range(across.low, across.high + 1):
        x = across(10.0**power)
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}">{10**power:,}</text>')
    return lines


def _point(x: float, regret: Interval, up: Scale, colour: str, *, hollow: bool) -> list[str]:
    half = regret.half if regret.half < math.inf else 0.0
    y1, y2 = up(regret.mean - half), up(regret.mean + half)
    fill = "white" if hollow else colour
    return [
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" stroke="{colour}"/>',
        f'<circle cx="{x:.1f}" cy="{up(regret.mean):.1f}" r="5" fill="{fill}" '
        f'stroke="{colour}" stroke-width="2"/>',
    ]
