"""How the decisions of all supernets of a model stand in one pass."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

import attrs
from torch import Tensor

from trinas.graph import Genotype, sample, settle
from trinas.space.decision import Decision, Option, Picked
from trinas.supernet import Mixture, Supernet


@attrs.frozen(eq=False)
class Setting:
    """One mixture for each supernet of a model; nothing for a model without any.

    Attributes:
        nets: the supernets.
        mixtures: how the decisions of each of them stand.
    """

    nets: tuple[Supernet, ...]
    mixtures: tuple[Mixture, ...]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the supernets run these mixtures wherever the model calls them."""
        if len(self.nets) == 1:  # the usual case, without a stack
            with self.nets[0].held(self.mixtures[0]):
                yield
            return
        with ExitStack() as stack:
            for net, mixture in zip(self.nets, self.mixtures):
                stack.enter_context(net.held(mixture))
            yield

    def changed(self, change: Callable[[Mixture], Mixture]) -> Setting:
        """The same with every mixture changed."""
        return attrs.evolve(self, mixtures=tuple(change(m) for m in self.mixtures))

    def picking(self, number: int, picked: Mapping[str, Option]) -> Setting:
        """The same with some decisions of one supernet settled (`Mixture.picking`)."""
        mixtures = list(self.mixtures)
        mixtures[number] = mixtures[number].picking(picked)
        return attrs.evolve(self, mixtures=tuple(mixtures))

    def detached(self) -> Setting:
        """The same without gradients."""
        return self.changed(Mixture.detached)

    def leaf(self) -> Setting:
        """The same cut off from the logits, collecting gradients of its own."""
        return self.changed(Mixture.leaf)

    @property
    def weights(self) -> list[Tensor]:
        """The weights of all options, a flat vector for each supernet."""
        return [mixture.weights for mixture in self.mixtures]

    @property
    def searches_widths(self) -> bool:
        """Whether any number of channels is to be decided."""
        return any(d.kind == "width" for net in self.nets for d in net.graph.decisions.values())


Policy: TypeAlias = Callable[[Mixture, random.Random], Mixture]
"""What a pass runs, of the mixture of a step; see `PASSES`."""


def random_paths(mixture: Mixture, rng: random.Random) -> Mixture:
    """The mixture on one path: exits and depths drawn evenly, operations as they stand.

    Guo et al., arXiv 1904.00420, train the weights of a supernet by single paths.
    """
    picked: dict[str, Option] = {
        path: rng.choice([o for o in decision.options if o not in mixture.pruned.get(path, ())])
        for path, decision in mixture.graph.decisions.items()
        if decision.kind in ("path", "depth")
    }
    return mixture.picking(picked)


def random_network(mixture: Mixture, rng: random.Random) -> Mixture:
    """One network of the space: every decision drawn evenly over its own options, what is left."""
    graph = mixture.graph

    def pick(decision: Decision) -> Picked:
        gone = mixture.pruned.get(decision.path, ())
        left = [option for option in decision.derivable if option not in gone]
        if decision.kind == "inputs":
            return tuple(sorted(int(option) for option in rng.sample(left, decision.keep)))
        return rng.choice(left)

    drawn = Genotype.of(graph, settle(graph, pick)) if mixture.pruned else sample(graph, rng)
    return Mixture.of(drawn, mixture.weights.detach())


PASSES: dict[str, Policy] = {
    "sampled": lambda mixture, _: mixture.with_widths("sampled"),
    "widest": lambda mixture, _: mixture.with_widths("widest"),
    "narrowest": lambda mixture, _: mixture.with_widths("narrowest"),
    "random": lambda mixture, rng: mixture.with_widths("random", rng=rng),
    "soft": lambda mixture, _: mixture.with_widths("soft"),
    "path": random_paths,
    "network": random_network,
}
"""What a pass runs, by name. The first five are widths (`Mixture.with_widths`), operations and
paths as they stand: together the sandwich of slimmable networks."""

ONE_NETWORK = frozenset({"network"})
"""Passes in which nothing is mixed, so that they say nothing about the mixture."""

WIDTH_PASSES = ("sampled", "widest", "narrowest", "random", "soft")


@attrs.frozen(eq=False)
class Pass:
    """One pass of a step.

    Attributes:
        name: for messages; nothing where there is one pass alone.
        setting: how the decisions stand in it.
        times: for how many equal passes it stands.
    """

    name: str
    setting: Setting
    times: int = 1


def passes_of(
    setting: Setting, passes: Sequence[str | Policy], rng: random.Random, *, merge: bool = True
) -> list[Pass]:
    """The passes of a step, none twice for nothing.

    In a model without searched widths all passes that differ in nothing else are one, and count
    once. Passes of equal widths (a sample that is the widest) are one, and count as often as they
    were asked for.

    Args:
        setting: of the step.
        passes: names of `PASSES`, or functions like them.
        rng: of what they draw.
        merge: whether equal passes are one; not where each takes gradients of its own.
    """
    if not setting.searches_widths:
        rest = [p for p in passes if p not in WIDTH_PASSES]
        passes = rest if len(rest) == len(passes) else ["sampled", *rest]
    found: dict[object, Pass] = {}
    for number, policy in enumerate(passes):
        rule = PASSES[policy] if isinstance(policy, str) else policy
        settled = setting.changed(lambda mixture, rule=rule: rule(mixture, rng))
        # Widths alone tell these passes apart.
        key = _widths(settled) if merge and policy in WIDTH_PASSES else number
        known = found.get(key)
        if known is None:
            found[key] = Pass(_title(policy, setting), settled)
        else:
            found[key] = attrs.evolve(known, times=known.times + 1)
    return list(found.values())


def _title(policy: str | Policy, setting: Setting) -> str:
    """The name of a pass; none where there is nothing that could tell it from others."""
    if policy in WIDTH_PASSES:
        return f"{policy} widths" if setting.searches_widths else ""
    return f"{policy} pass" if isinstance(policy, str) else "own pass"


def _widths(setting: Setting) -> object:
    """What tells passes of one setting apart that differ in their widths alone."""
    return tuple(
        None if m.widths is None else tuple(sorted(m.widths.items())) for m in setting.mixtures
    )
