"""Architecture parameters: stacked, named, and relaxed together.

Decisions with the same kind, number of options, order and number kept form one group, one
``nn.Parameter`` of shape (decisions, options). (Widths are in the order of their numbers, the
narrowest first.) So a relaxation is called once per group,
whatever the number of decisions, and the parameters come in the same order everywhere.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from trinas._core.errors import RelaxationError, SpaceError
from trinas.graph import Graph
from trinas.relax import (
    GumbelSoftmax,
    Linear,
    Relaxation,
    SortedSparsestmax,
    Sparsestmax,
    softmax,
)
from trinas.space.decision import Decision, Kind

GREEK: Mapping[str, str] = {
    "operation": "alpha",
    "path": "beta",
    "depth": "beta",
    "width": "gamma",
    "inputs": "delta",
}

InputRule: TypeAlias = Literal["strongest"]
"""How a cell's steps find the inputs that they keep without logits of their own: by the strength
of the operations on their edges, while all edges are added (DARTS, Section 2.4)."""

RelaxSpec: TypeAlias = (
    Relaxation
    | Mapping[Kind, Relaxation]
    | Mapping[str, Relaxation]
    | Mapping[Kind, Relaxation | InputRule]
    | Mapping[str, Relaxation | InputRule]
)

SEARCH_ONLY_UNTIL = 0.75
"""The share of a search at which options that are `search_only` leave, see `compile_supernet`."""


def relaxations(spec: RelaxSpec | None, *, keep: int = 1) -> dict[str, Relaxation]:
    """One relaxation for each kind of decision, from what the user gave.

    A single one serves operations, paths and depths, and inputs if it chooses as many as are
    kept. Left to themselves, operations and inputs are relaxed by sparsestmax, paths and depths by
    sorted sparsestmax, and widths by straight-through Gumbel-softmax, as in Trilevel NAS,
    Section 4.1 (which has no inputs to keep).

    Args:
        spec: what the user gave.
        keep: how many inputs a step of the space keeps at most.

    Returns:
        Relaxations by kind, without "inputs" where these follow from the operations.

    Raises:
        SpaceError: a key that is no kind of decision, a value that is no relaxation, or a
            relaxation of the inputs that chooses one where several are kept.
    """
    chosen: dict[str, Relaxation] = {
        "operation": Sparsestmax(),
        # The hinge form has no gradient until logits differ by its strength, and they
        # start equal; the linear form of the paper moves from the first step on. The radius
        # waits until exits were compared: it would rule some out by the logits' first noise.
        "path": SortedSparsestmax(0.01, "linear", radius=Linear(0.0, 1.0, warmup=0.5)),
        "depth": SortedSparsestmax(0.01, "linear", radius=Linear(0.0, 1.0, warmup=0.5)),
        "width": GumbelSoftmax(),
        "inputs": Sparsestmax(),
    }
    if spec is None:
        return chosen
    if isinstance(spec, Relaxation):
        inputs = spec if spec.subsets or keep == 1 else chosen["inputs"]
        return {**chosen, "operation": spec, "path": spec, "depth": spec, "inputs": inputs}
    given = dict(spec.items()) if isinstance(spec, Mapping) else {"operation": spec}
    for kind, relaxation in given.items():
        if kind not in chosen:
            raise SpaceError(
                "relaxations are given for kinds of decisions",
                got=kind,
                fix=f"The kinds are {', '.join(chosen)}.",
            )
        if kind == "inputs" and relaxation == "strongest":
            del chosen["inputs"]
            continue
        if not isinstance(relaxation, Relaxation):
            raise SpaceError(
                "a relaxation is an instance of trinas.relax.Relaxation",
                got=relaxation,
                at=f"relax[{kind!r}]" if isinstance(spec, Mapping) else "relax",
                fix="Pass one, Softmax() for instance, or a mapping from kinds to some"
                f"{' (inputs may be strongest)' * (kind == 'inputs')}.",
            )
        if kind == "inputs" and keep > 1 and not relaxation.subsets:
            raise SpaceError(
                "inputs are relaxed by what chooses as many as a step keeps",
                got=f"{type(relaxation).__name__}, of one, where {keep} are kept",
                at="relax['inputs']",
                fix="Take Sparsestmax() or Softmax(), or 'strongest' for the rule of DARTS.",
            )
        chosen[str(kind)] = relaxation
    return chosen


@attrs.frozen
class Group:
    """Decisions that are relaxed in one call."""

    name: str
    kind: str
    decisions: tuple[Decision, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """The order that all decisions of the group share; all roots where there is none."""
        first = self.decisions[0]
        order = _order(first)
        return order if order is not None else (-1,) * len(first.options)

    @property
    def keep(self) -> int:
        """How many options are picked together."""
        return self.decisions[0].keep


def _order(decision: Decision) -> tuple[int, ...] | None:
    """What comes before what: of widths each behind the next narrower, else as declared."""
    if decision.kind != "width" or decision.order is not None:
        return decision.order
    ranked = sorted(range(len(decision.options)), key=lambda k: int(str(decision.options[k])))
    before = dict(zip(ranked, [-1, *ranked]))
    return tuple(before[k] for k in range(len(ranked)))


def group_decisions(graph: Graph, *, inputs: bool = True) -> tuple[Group, ...]:
    """The groups of a graph, in order of their first decision; those of inputs come last.

    Args:
        graph: the space.
        inputs: whether the inputs that a cell's steps keep are among them.
    """
    found: dict[tuple[object, ...], list[Decision]] = {}
    ordered = sorted(graph.decisions.values(), key=lambda decision: decision.kind == "inputs")
    for decision in ordered:
        if inputs or decision.kind != "inputs":
            key = (decision.kind, len(decision.options), _order(decision), decision.keep)
            found.setdefault(key, []).append(decision)
    groups: list[Group] = []
    for (kind, count, *_), decisions in found.items():
        name = f"{GREEK[str(kind)]}_{count}"
        taken = sum(g.name == name or g.name.startswith(f"{name}_") for g in groups)
        groups.append(Group(f"{name}_{taken}" if taken else name, str(kind), tuple(decisions)))
    return tuple(groups)


class Architecture(nn.Module):
    """The logits of a graph's decisions and the relaxations that turn them into weights.

    Args:
        graph: the space.
        relax: a relaxation, or one for each kind of decision.
        init_std: logits start as noise of this standard deviation around zero.
        search_only_until: share of the search from which on options that are `search_only` get no
            weight under relaxations that end one-hot.
        generator: source of that noise.

    Attributes:
        learns_inputs: whether the inputs that a cell's steps keep have logits of their own.
    """

    def __init__(
        self,
        graph: Graph,
        relax: RelaxSpec | None = None,
        *,
        init_std: float = 1e-3,
        search_only_until: float = SEARCH_ONLY_UNTIL,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.search_only_until = search_only_until
        keep = max((d.keep for d in graph.decisions.values()), default=1)
        chosen = relaxations(relax, keep=keep)
        self.relax = nn.ModuleDict(chosen)
        self.learns_inputs = "inputs" in chosen
        self.groups = group_decisions(graph, inputs=self.learns_inputs)
        self._rows = {
            decision.path: (group.name, index)
            for group in self.groups
            for index, decision in enumerate(group.decisions)
        }
        # Of every group, where its options are in the flat vector of weights.
        self._slots = tuple(
            [
                graph.offsets[decision.path] + k
                for decision in group.decisions
                for k in range(len(decision.options))
            ]
            for group in self.groups
        )
        for group in self.groups:
            shape = (len(group.decisions), len(group.decisions[0].options))
            noise = torch.randn(shape, generator=generator) * init_std
            self.register_parameter(group.name, nn.Parameter(noise))
            if any(decision.never for decision in group.decisions):
                never = [[o in d.never for o in d.options] for d in group.decisions]
                self.register_buffer(f"_never_{group.name}", torch.tensor(never), persistent=False)
        self.register_buffer(
            "_gather", torch.tensor(self._positions(), dtype=torch.long), persistent=False
        )

    @property
    def device(self) -> torch.device:
        """Where the logits are."""
        return self.get_buffer("_gather").device

    def _positions(self) -> list[int]:
        """For each slot of the flat vector, where it is among the groups laid end to end."""
        where: dict[str, int] = {}
        total = 0
        for group in self.groups:
            for decision in group.decisions:
                where[decision.path] = total
                total += len(decision.options)
        # What has no logits (inputs that follow from operations) reads the 1 that stands last.
        return [
            where[path] + k if path in where else total
            for path, decision in self.graph.decisions.items()
            for k in range(len(decision.options))
        ]

    def flat(self, parts: list[Tensor]) -> Tensor:
        """One vector in the layout of `Graph.offsets` from one matrix per group."""
        gather = self.get_buffer("_gather")
        dtype = parts[0].dtype if parts else torch.get_default_dtype()
        last = torch.ones(1, device=gather.device, dtype=dtype)
        return torch.cat([*(part.flatten() for part in parts), last]).index_select(0, gather)

    def relaxed(
        self, progress: float, generator: torch.Generator | None = None, *, sample: bool = True
    ) -> tuple[Tensor, Tensor, list[int]]:
        """Weights and odds of all options, and which options stay open at weight zero.

        Both are flat vectors. The weights are what a forward pass mixes with; with a
        stochastic relaxation they are a sample, or the likeliest option. The odds are the
        probabilities behind them, which expected costs are made of: the softmax of the
        logits where the relaxation is stochastic, else the weights themselves.

        Args:
            progress: share of the search done.
            generator: randomness of stochastic relaxations.
            sample: draw; the likeliest options where False.

        Raises:
            RelaxationError: logits that are not finite, or weights of another shape than
                the logits; the message names the decision.
        """
        weights, odds, open_slots = [], [], []
        for group, slots in zip(self.groups, self._slots):
            relaxation = self._relaxation(group)
            logits = self._open_logits(group, relaxation, progress)
            # Those of users need not know of several.
            several = {"k": group.keep} if group.keep > 1 else {}
            try:
                if relaxation.stochastic and not sample:
                    weights.append(_likeliest(logits, group.keep))
                else:
                    weights.append(
                        relaxation(
                            logits,
                            progress=progress,
                            order=group.order,
                            generator=generator,
                            **several,
                        )
                    )
            except RelaxationError as error:
                raise self._explain(error, group, logits) from None
            if weights[-1].shape != logits.shape:
                raise RelaxationError(
                    "a relaxation returns one weight for each logit",
                    got=f"shape {tuple(weights[-1].shape)} for {tuple(logits.shape)}",
                    at=f"{relaxation} on {group.name}",
                )
            odds.append(softmax(logits, **several) if relaxation.stochastic else weights[-1])
            runs_all = relaxation.runs_all if relaxation.stochastic else True
            if runs_all and not relaxation.closed_at_zero and group.kind != "width":
                open_slots += slots
        flat = self.flat(weights)
        same = all(a is b for a, b in zip(weights, odds))
        return flat, flat if same else self.flat(odds), open_slots

    def _open_logits(self, group: Group, relaxation: Relaxation, progress: float) -> Tensor:
        """The logits of a group, without the options that have left by now."""
        logits = self._logits(group)
        if progress < self.search_only_until or not relaxation.ends_one_hot:
            return logits
        never = self._buffers.get(f"_never_{group.name}")
        return logits if never is None else logits.masked_fill(never, -math.inf)

    def _logits(self, group: Group) -> Tensor:
        # Not `get_parameter`: under `torch.func.functional_call` it is a plain tensor.
        return getattr(self, group.name)

    def _relaxation(self, group: Group) -> Relaxation:
        relaxation = self.relax[group.kind]
        if not isinstance(relaxation, Relaxation):
            raise TypeError(f"{relaxation} is not a relaxation")
        return relaxation

    @staticmethod
    def _explain(error: RelaxationError, group: Group, logits: Tensor) -> RelaxationError:
        """The same error, with the paths of the decisions that caused it."""
        bad = [
            decision.path
            for decision, row in zip(group.decisions, logits.detach())
            # A logit of -inf only rules its option out.
            if not bool(torch.isfinite(row.amax()))
        ]
        at = f"{', '.join(bad[:3])}{' ...' if len(bad) > 3 else ''} ({group.name})"
        return RelaxationError(
            error.rule, got=error.got, at=at if bad else group.name, fix=error.fix
        )

    def row(self, path: str) -> tuple[str, int]:
        """The parameter and the row that hold the logits of a decision."""
        if path not in self._rows:
            raise SpaceError(
                "a decision of the space has logits",
                got=path,
                fix="See graph.decisions; inputs that are kept by strength follow from operations.",
            )
        return self._rows[path]

    @property
    def closing_slots(self) -> list[int]:
        """Slots of the options that are out while their weight is 0, without being drawn."""
        found: list[int] = []
        for group, slots in zip(self.groups, self._slots):
            relaxation = self._relaxation(group)
            if relaxation.closed_at_zero and not relaxation.stochastic and group.kind != "width":
                found += slots
        return found

    @functools.cached_property
    def drawn(self) -> tuple[Decision, ...]:
        """The decisions of which a pass runs one option, drawn at random, alone."""
        return tuple(
            decision
            for group in self.groups
            if _draws_one(self._relaxation(group))
            for decision in group.decisions
            if decision.keep == 1
        )

    @property
    def mixed(self) -> bool:
        """Whether any decision takes a gradient through the weights of its options."""
        return len(self.drawn) < sum(len(group.decisions) for group in self.groups)

    @functools.cached_property
    def is_drawn(self) -> Tensor:
        """For every slot of the flat vector whether its decision is `drawn`."""
        slots = [False] * self.graph.slots
        for decision in self.drawn:
            start = self.graph.offsets[decision.path]
            slots[start : start + len(decision.options)] = [True] * len(decision.options)
        return torch.tensor(slots, device=self.device)

    @torch.no_grad()
    def rule_out(self, slots: Collection[int]) -> None:
        """Set the logits of these slots of the flat vector to minus infinity."""
        wanted = set(slots)
        for group, own in zip(self.groups, self._slots):
            places = [place for place, slot in enumerate(own) if slot in wanted]
            if places:
                logits = self._logits(group)
                index = torch.tensor(places, device=logits.device)
                logits.view(-1).index_fill_(0, index, -math.inf)

    def logits_by_path(self) -> dict[str, list[float]]:
        """The logits as lists, by decision."""
        rows = {group.name: self._logits(group).detach().tolist() for group in self.groups}
        return {path: rows[name][index] for path, (name, index) in self._rows.items()}


def _draws_one(relaxation: Relaxation) -> bool:
    return relaxation.stochastic and not relaxation.runs_all and getattr(relaxation, "hard", True)


def _likeliest(logits: Tensor, keep: int) -> Tensor:
    if keep == 1:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    ranked = logits.argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(logits).scatter_(-1, ranked[..., :keep], 1.0)
