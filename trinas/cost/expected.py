"""The expected cost of a relaxed space, exact and differentiable."""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from trinas._core.errors import ShapeError, SpaceError
from trinas.cost.count import Metric, node_cost
from trinas.cost.events import Events
from trinas.graph import Graph
from trinas.space.shape import Shape
from trinas.space.values import Var, assignments, joint_size

_JOINT_LIMIT = 2**16


class _Table(NamedTuple):
    """Costs of operations under equally many widths: numbers for all joint widths."""

    events: Tensor
    slots: tuple[Tensor, ...]
    costs: Tensor


class ExpectedCost(nn.Module):
    """Expected parameters or multiply-adds when every decision is drawn by its weights.

    ``E[cost] = sum over operations of P(it is there) * E[its cost | widths]``, decisions
    independent of each other. Both factors are exact: the first by decision diagrams
    (`trinas.cost.events`), the second by summing over the joint widths that an operation
    sees, so that a width which occurs twice in one product is not averaged twice. Hence
    at one-hot weights this is the exact cost of that network, and on small spaces it
    equals the enumeration.

    Args:
        graph: the space.
        metric: ``params`` or ``macs``.
        target: the result is divided by this, so that 1 means on budget.

    Raises:
        SpaceError: an unknown metric, a target that is not positive, or an operation whose
            cost depends on too many joint widths to sum over.

    Source: Trilevel NAS, Eq. 5 (the term H), made exact.

    >>> import torch, trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
    >>> expected = ExpectedCost(graph, "params")
    >>> expected(torch.tensor([0.25, 0.75]))          # 224 / 4 + 32 * 3 / 4
    tensor(80.)
    """

    def __init__(self, graph: Graph, metric: Metric = "macs", *, target: float = 1.0) -> None:
        super().__init__()
        if metric not in get_args(Metric):
            raise SpaceError(
                "a cost is counted in one of the metrics",
                got=repr(metric),
                fix=f"They are {', '.join(get_args(Metric))}.",
            )
        if not target > 0:
            raise SpaceError("the target of a cost is greater than 0", got=target)
        self.graph = graph
        self.metric: Metric = metric
        self.target = target
        events = Events(graph)
        present = self._presence(events)
        self._levels: list[str] = []
        # Diagrams are computed layer by layer; `place` finds them in that order.
        place = {0: 0, 1: 1}
        for numbers, slots, children in events.levels(present.values()):
            name = f"_level{len(self._levels)}"
            self.register_buffer(f"{name}_slots", slots, persistent=False)
            self.register_buffer(
                f"{name}_children", children.apply_(place.__getitem__), persistent=False
            )
            self._levels.append(name)
            place.update({number: len(place) + i for i, number in enumerate(numbers)})
        self._tables: list[tuple[str, int]] = []
        for rows in self._make_tables(present, place):
            name = f"_table{len(self._tables)}"
            self.register_buffer(f"{name}_events", rows.events, persistent=False)
            self.register_buffer(f"{name}_costs", rows.costs, persistent=False)
            for axis, slots in enumerate(rows.slots):
                self.register_buffer(f"{name}_slots{axis}", slots, persistent=False)
            self._tables.append((name, len(rows.slots)))

    def forward(self, weights: Tensor) -> Tensor:
        """The expected cost over `target`, a tensor of no dimensions.

        Args:
            weights: probabilities of all options, flat (layout of `Graph.offsets`), for
                instance `Mixture.odds` of a supernet.

        Raises:
            ShapeError: not one number for every option.
        """
        if weights.shape != (self.graph.slots,):
            raise ShapeError(
                "an expected cost takes one flat vector, one number an option",
                got=f"shape {tuple(weights.shape)} for {self.graph.slots} options",
                fix="Lay them out as Graph.offsets says.",
            )
        odds = weights.double()
        there = self._probabilities(odds)
        total = odds.new_zeros(())
        for name, axes in self._tables:
            # Whole numbers, so that `module.to(dtype)` does not round them.
            expected = getattr(self, f"{name}_costs").to(odds.dtype)
            for axis in reversed(range(axes)):
                own = odds[getattr(self, f"{name}_slots{axis}")]
                shape = (own.shape[0], *[1] * (expected.dim() - 2), own.shape[1])
                expected = (expected * own.reshape(shape)).sum(-1)
            total = total + (there[getattr(self, f"{name}_events")] * expected).sum()
        return (total / self.target).to(weights.dtype)

    def _probabilities(self, odds: Tensor) -> Tensor:
        """The probability of every diagram, by layers."""
        known = odds.new_tensor([0.0, 1.0])
        for name in self._levels:
            own = odds[getattr(self, f"{name}_slots")]
            children = getattr(self, f"{name}_children")
            if own.shape[1] != children.shape[1]:
                own = torch.cat([1 - own, own], dim=1)
            known = torch.cat([known, (own * known[children]).sum(1)])
        return known

    def _make_tables(self, present: dict[str, int], place: dict[int, int]) -> list[_Table]:
        summed: dict[tuple[int, tuple[Var, ...]], Tensor] = {}
        for node, event in present.items():
            x = self.graph.vertex(self.graph.sources(node)[0].node)["shape"]
            y = self.graph.vertex(node)["shape"]
            variables = tuple(s for s in dict.fromkeys(x.symbols + y.symbols) if isinstance(s, Var))
            costs = self._costs(node, x, y, variables)
            if not bool(costs.any()):
                continue
            key = (place[event], variables)
            summed[key] = summed[key] + costs if key in summed else costs
        # Stack what has equally many options on every width.
        stacks: dict[tuple[int, ...], list[tuple[int, tuple[Var, ...], Tensor]]] = {}
        for (event, variables), costs in summed.items():
            stacks.setdefault(tuple(costs.shape), []).append((event, variables, costs))
        return [
            _Table(
                torch.tensor([event for event, _, _ in rows]),
                tuple(
                    torch.tensor([self._slots(row[1][axis]) for row in rows])
                    for axis in range(len(shape))
                ),
                torch.stack([costs for _, _, costs in rows]),
            )
            for shape, rows in stacks.items()
        ]

    def _presence(self, events: Events) -> dict[str, int]:
        """Operations and their events; shared weights are counted at one of their places."""
        found: dict[str, int] = {}
        first: dict[str, str] = {}
        for node in self.graph:
            key = self.graph.vertex(node)["weights"]
            if key is None:
                continue
            if self.metric == "params" and key in first:
                found[first[key]] = events.either(found[first[key]], events.of_node[node])
            else:
                first[key] = node
                found[node] = events.of_node[node]
        return found

    def _costs(self, node: str, x: Shape, y: Shape, variables: tuple[Var, ...]) -> Tensor:
        if joint_size(variables) > _JOINT_LIMIT:
            raise SpaceError(
                f"the widths around one operation have at most {_JOINT_LIMIT} joint settings",
                got=f"{joint_size(variables)} of {len(variables)} widths",
                at=node,
                fix="Give them fewer candidates, or put a convolution of one width between.",
            )
        costs = [
            node_cost(self.graph, node, x.at(a), y.at(a), self.metric)
            for a in assignments(variables)
        ]
        return torch.tensor(costs, dtype=torch.long).reshape([len(v.values) for v in variables])

    def _slots(self, variable: Var) -> list[int]:
        start = self.graph.offsets[variable.path]
        return list(range(start, start + len(variable.values)))

    def extra_repr(self) -> str:
        """What is computed."""
        return f"{self.metric}, target={self.target:g}"
