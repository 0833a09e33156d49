"""How a run comes to its network: a search by gradients or at random, or one that is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import trinas as tn
from examples.sr_trilevel.efficient import REFERENCES, efficient_reference
from examples.sr_trilevel.losses import SRLoss
from examples.sr_trilevel.recipe import Recipe
from examples.sr_trilevel.space import paper_architecture, paper_architectures

Report: TypeAlias = tn.StepReport | tn.SampleReport
Halves: TypeAlias = tuple[tn.Batches, tn.Batches]
"""Batches for weights and batches for the architecture, which share no pixel."""


UNSETTLED = {"one_hot": None, "entropy": None, "supernet_minus_derived": None}


class _Searched:
    """What the two searches have in common."""

    net: tn.Supernet
    graph: tn.Graph
    gain: float

    def network(self, genotype: tn.Genotype, *, inherit: bool) -> tn.Network:
        """The network, with the weights of the search or fresh ones."""
        network = tn.build(self.graph, genotype, inherit=self.net if inherit else None)
        if not inherit:
            amplify(network.parameters(), self.gain)
        return network.to(self.net.architecture.device)


class Drawn(nn.Module):
    """A supernet as stochastic relaxations train it: every pass runs a network drawn anew.

    Args:
        net: the supernet.
        seed: of the draws.
    """

    def __init__(self, net: tn.Supernet, seed: int) -> None:
        super().__init__()
        self.net = net
        self._generator = torch.Generator(net.architecture.device).manual_seed(seed)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge by one draw of operations, path and widths."""
        architecture = self.net.architecture
        before = architecture.training
        architecture.train()  # elsewhere a draw is the likeliest option
        mixture = self.net.mixture(generator=self._generator)
        architecture.train(before)
        return self.net(x, at=mixture)


class GradientStrategy(_Searched):
    """The search of the paper."""

    def __init__(self, search: tn.Search, gain: float, train: tn.Batches) -> None:
        self.stage = search
        self._train = train
        self.gain = gain
        self.net = self.searched = search.net
        relaxations = search.net.architecture.relax
        drawn = any(relaxations[kind].stochastic for kind in ("operation", "path"))
        self.mixture: nn.Module = Drawn(search.net, search.config.seed) if drawn else search.net
        self.graph = search.net.graph
        self.steps = search.config.total_steps

    def genotype(self) -> tn.Genotype:
        """The options of largest weight."""
        return tn.derive(self.net)

    def facts(self, network: tn.Network) -> dict[str, Any]:
        """Whether weights are one-hot, their entropy, and what deriving the network changed."""
        weights, odds = self.net.weights(), self.net.odds()
        one_hot, entropy = {}, {}
        for name, kind in (("alpha", "operation"), ("beta", "path")):
            paths = [path for path, d in self.graph.decisions.items() if d.kind == kind]
            one_hot[name] = all(sum(w != 0 for w in weights[path]) == 1 for path in paths)
            entropy[name] = sum(spread(odds[path]) for path in paths) / max(1, len(paths))
        lr, _ = self._train(0)
        self.net.eval()
        network.eval()
        with torch.no_grad():
            difference = float((self.net(lr) - network(lr)).abs().max())
        return {"one_hot": one_hot, "entropy": entropy, "supernet_minus_derived": difference}


class RandomStrategy(_Searched):
    """Random search with weight sharing; its supernet is no mixture to be scored."""

    mixture: None = None

    def __init__(self, search: tn.RandomSearch, gain: float) -> None:
        self.stage = search
        self.gain = gain
        self.net = self.searched = search.net
        self.graph = search.net.graph
        self.steps = search.total

    def genotype(self) -> tn.Genotype:
        """The one of least loss."""
        return self.stage.best

    def facts(self, network: tn.Network) -> dict[str, Any]:
        """Nothing settles."""
        return UNSETTLED


class Nothing:
    """No steps."""

    step = 0

    def __iter__(self) -> Iterator[Report]:
        """None."""
        return iter(())

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""


class FixedNetwork:
    """A published network by its name, trained from scratch.

    Args:
        name: of `paper_architectures` or `efficient.REFERENCES`.
        device: where it is trained.
        gain: factor on its initial weights.
    """

    searched: None = None
    mixture: None = None
    steps = 0

    def __init__(self, name: str, device: torch.device, gain: float) -> None:
        self._genotype = published(name)
        self.graph = self._genotype.graph
        self.stage = Nothing()
        self._device = device
        self._gain = gain

    def genotype(self) -> tn.Genotype:
        """It itself."""
        return self._genotype

    def network(self, genotype: tn.Genotype, *, inherit: bool) -> tn.Network:
        """With fresh weights: there are no others."""
        network = tn.build(self.graph, genotype)
        amplify(network.parameters(), self._gain)
        return network.to(self._device)

    def facts(self, network: tn.Network) -> dict[str, Any]:
        """Nothing was searched."""
        return UNSETTLED


Strategy: TypeAlias = GradientStrategy | RandomStrategy | FixedNetwork
"""Each has the `graph` of the space, the `stage` to be run, how many `steps` that has, what is
`searched` (to be watched), the `mixture` that the network is taken out of (to be scored), the
`genotype` found, its `network`, and `facts` on how far the search settled."""

Stage: TypeAlias = tn.Search | tn.RandomSearch | tn.Training | Nothing


def strategy_of(
    recipe: Recipe, halves: Callable[[], Halves], loss: SRLoss, *, seed: int, device: torch.device
) -> Strategy:
    """The way of a recipe.

    Args:
        recipe: all settings.
        halves: makes what a search sees, where there is one.
        loss: what it descends on.
        seed: of everything drawn.
        device: where everything is.

    Raises:
        UnknownNameError: the recipe names a network that there is not.
    """
    if recipe.network is not None:
        return FixedNetwork(recipe.network, device, recipe.weight_gain)
    torch.manual_seed(seed)
    graph = graph_of(recipe, recipe.patch)
    generator = torch.Generator().manual_seed(seed)
    net = tn.compile_supernet(
        graph, recipe.relaxations(), init_std=recipe.arch_std, generator=generator
    ).to(device)
    gain = recipe.weight_gain
    amplify(net.weight_parameters(), gain)
    train, valid = halves()
    if recipe.strategy == "random":
        search = tn.RandomSearch(net, loss, train, valid, recipe.random_config(seed))
        return RandomStrategy(search, gain)
    search = tn.Search(net, loss, train, valid, recipe.search_config(seed))
    return GradientStrategy(search, gain, train)


@torch.no_grad()
def amplify(parameters: Iterable[nn.Parameter], gain: float) -> None:
    """Multiply initial weights, but not biases, by a gain."""
    for parameter in parameters:
        if parameter.dim() > 1:
            parameter.mul_(gain)


def published(name: str, *, side: int = 256) -> tn.Genotype:
    """A published network by its name, its space lowered for inputs of a side.

    Raises:
        UnknownNameError: there is no such network.

    >>> published("bsrn_m")["trunk"]
    'a-a-a-a-a-a'
    """
    if name in REFERENCES:
        return efficient_reference(name, side=side)
    if name in paper_architectures():
        return paper_architecture(name, side=side)[1]
    raise tn.errors.UnknownNameError(
        "a network that is trained without a search is known by its name",
        got=name,
        fix=f"There are {', '.join([*paper_architectures(), *REFERENCES])}.",
    )


def graph_of(recipe: Recipe, side: int) -> tn.Graph:
    """The space of a recipe, lowered for inputs of a side."""
    if recipe.network is not None:
        return published(recipe.network, side=side).graph
    return tn.lower(recipe.space(), (3, side, side))


def spread(odds: Sequence[float]) -> float:
    """Entropy as a share of the largest there can be, in [0, 1].

    >>> [round(spread(odds), 3) for odds in ([1.0, 0.0], [0.5, 0.5], [0.25, 0.75])]
    [0.0, 1.0, 0.811]
    """
    if len(odds) < 2:
        return 0.0
    return sum(p * math.log(1 / p) for p in odds if p > 0) / math.log(len(odds))
