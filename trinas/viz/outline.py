"""The structure of a graph, read from the names of its nodes.

Names are paths, so the nodes form a tree of regions; mixes say which regions are options
of a choice; decisions under another name than their node say what is shared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import attrs

from trinas.graph import Graph
from trinas.space import Decision
from trinas.viz.style import kind_of_nodes

_STEP = re.compile(r"node\[(\d+)\]\Z")


@attrs.frozen(eq=False)
class Region:
    """Everything under one path.

    Attributes:
        path: the path; empty for the whole network.
        node: the graph node of exactly that name, if there is one.
        children: the regions one level down, in the order of the graph.
    """

    path: str
    node: str | None
    children: tuple[Region, ...]

    @property
    def label(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def is_leaf(self) -> bool:
        """Whether this is a single node."""
        return not self.children

    def nodes(self) -> Iterator[str]:
        """All nodes inside, the own one last."""
        for child in self.children:
            yield from child.nodes()
        if self.node is not None:
            yield self.node

    def regions(self) -> Iterator[Region]:
        """This region and all inside it, outer ones first."""
        yield self
        for child in self.children:
            yield from child.regions()


def outline(graph: Graph) -> Region:
    """The tree of regions of `graph`.

    >>> import trinas as tn
    >>> root = outline(tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8)), (3, 16, 16)))
    >>> [region.path for region in root.regions()]
    ['', 'input', 'choice', 'choice/a', 'choice/b']
    """
    tree: dict[str, Any] = {}
    for node in graph:
        level = tree
        for part in node.split("/"):
            level = level.setdefault(part, {})
    return _grow(graph, "", tree)


def _grow(graph: Graph, path: str, tree: Mapping[str, Any]) -> Region:
    children = tuple(
        _grow(graph, f"{path}/{part}" if path else part, inner) for part, inner in tree.items()
    )
    return Region(path, path if path in graph.nx else None, children)


@attrs.frozen(eq=False)
class Facts:
    """What a graph with its decisions says about its regions.

    Attributes:
        graph: the graph with all decisions, as lowered.
    """

    graph: Graph

    @cached_property
    def pickers(self) -> tuple[str, ...]:
        """The ``mix`` and ``keep`` nodes."""
        return tuple(n for n in self.graph if self.graph.vertex(n)["decision"] is not None)

    def decision(self, node: str) -> Decision | None:
        """The decision of `node`, if it is a ``mix`` or ``keep``."""
        path = self.graph.vertex(node)["decision"] if node in self.graph.nx else None
        return None if path is None else self.graph.decisions[path]

    @cached_property
    def options(self) -> frozenset[str]:
        """Paths of the regions that are one option of a choice or one block of a path."""
        found = set()
        for node in self.pickers:
            decision = self.decision(node)
            if decision is None or decision.kind not in ("operation", "path"):
                continue
            paths = {f"{node}/{option}" for option in decision.options}
            # A trellis ends at places of its grid, which are not blocks themselves.
            found |= paths - set(self.pickers)
        return frozenset(found)

    @cached_property
    def undecided(self) -> frozenset[str]:
        """Paths of the regions that contain a decision."""
        found: set[str] = set()
        for node in self.pickers:
            parts = node.split("/")
            found.update("/".join(parts[:k]) for k in range(1, len(parts) + 1))
        return frozenset(found)

    @cached_property
    def shared(self) -> Mapping[str, str]:
        """Path of a region to the key under which it shares its decisions."""
        found: dict[str, str] = {}
        for node in self.pickers:
            path = self.graph.vertex(node)["decision"] or node
            key = re.split(r"[/\[]", path, maxsplit=1)[0]
            place = node.removesuffix(path[len(key) :])
            if path != node and node.endswith(path[len(key) :]):
                found[place] = key
        return found

    @cached_property
    def repeated(self) -> frozenset[str]:
        """The keys that stand at more than one place."""
        counts = Counter(self.shared.values())
        return frozenset(k for k, n in counts.items() if n > 1 or k in self.undecided)

    @cached_property
    def _regions(self) -> Mapping[str, Region]:
        return {region.path: region for region in outline(self.graph).regions()}

    def region(self, path: str) -> Region | None:
        """The region at `path`."""
        return self._regions.get(path)

    def kind(self, path: str) -> str:
        """The kind of the region at `path`; a skip where nothing stands there."""
        region = self.region(path)
        return "skip" if region is None else kind_of_nodes(self.graph, list(region.nodes()))

    def widths(self, path: str) -> tuple[Decision, ...]:
        """The width decisions that belong to the region at `path` itself."""
        place = self.shared.get(path, path)
        return tuple(
            d
            for d in self.graph.decisions.values()
            if d.kind == "width" and d.path.rpartition("/")[0] == place
        )

    def is_tree(self, node: str | None) -> bool:
        """Whether `node` decides at which block of a tree the network ends."""
        decision = None if node is None else self.decision(node)
        return decision is not None and decision.kind == "path" and decision.order is not None


@attrs.frozen
class CellPlan:
    """A cell, recognised.

    Attributes:
        path: where it stands.
        key: what it is called: the key of its share, or its path.
        inputs: how many tensors it takes; they are numbered first.
        steps: the numbers of its inner nodes.
        merge: ``concat``, ``sum`` or ``last``.
    """

    path: str
    key: str
    inputs: int
    steps: tuple[int, ...]
    merge: str


def find_cell(facts: Facts, region: Region) -> CellPlan | None:
    """The plan of the cell that `region` is, None where it is none.

    A cell has nodes ``node[j]`` that each take one input from every earlier number.
    """
    graph = facts.graph
    steps = []
    for child in region.children:
        match = _STEP.match(child.label)
        if match is None or child.node is None:
            continue
        if graph.vertex(child.node)["kind"] not in ("sum", "keep"):
            return None
        if len(graph.sources(child.node)) != int(match[1]):
            return None
        steps.append(int(match[1]))
    if not steps or steps != list(range(steps[0], steps[0] + len(steps))):
        return None
    merge = "last" if region.node is None else graph.vertex(region.node)["kind"]
    key = facts.shared.get(region.path, region.path)
    return CellPlan(region.path, key, steps[0], tuple(steps), merge)
