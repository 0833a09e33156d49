"""The supernet: a network whose decisions are relaxed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from trinas._core.collector import paused_collector
from trinas._core.errors import CheckpointError, GenotypeError, GraphError, SpaceError
from trinas.graph import Genotype, Graph, require_graph
from trinas.space.decision import Option
from trinas.supernet.architecture import SEARCH_ONLY_UNTIL, Architecture, RelaxSpec
from trinas.supernet.deriving import leading
from trinas.supernet.inputs import KeptInputs
from trinas.supernet.mixture import Mixture, Widths, random_from
from trinas.supernet.network import Network
from trinas.supernet.pruning import require_fitting, slots_of
from trinas.supernet.seeding import seeded


class Supernet(nn.Module):
    """Every network of a space at once, with architecture parameters that weigh them.

    Made by `compile_supernet`. Called like any module, it mixes the options of every
    decision by their relaxed weights, and backward reaches the architecture parameters.

    Attributes:
        graph: the space.
        network: the modules, named by the nodes of the graph.
        architecture: the stacked logits (``alpha_*`` operations, ``beta_*`` paths and
            depths, ``gamma_*`` widths, ``delta_*`` inputs that a cell's steps keep) and
            their relaxations.
        progress: share of the search done, in [0, 1]; schedules of radius and temperature
            follow it. Part of the state dict.
    """

    def __init__(self, network: Network, architecture: Architecture) -> None:
        super().__init__()
        self.network = network
        self.architecture = architecture
        self._kept_inputs = KeptInputs(network.graph)
        self._progress = 0.0
        self._last: tuple[Genotype, torch.device, Mixture] | None = None
        self._held: Mixture | Genotype | None = None
        self._left = bytearray(b"\1" * network.graph.slots)

    @property
    def graph(self) -> Graph:
        """The space as a graph."""
        return self.network.graph

    @property
    def progress(self) -> float:
        """Share of the search done, in [0, 1]."""
        return self._progress

    @progress.setter
    def progress(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise SpaceError(
                "progress lies in [0, 1]", got=value, fix="It is the share of the search done."
            )
        self._progress = float(value)

    def forward(
        self,
        x: Tensor,
        *,
        at: Genotype | Mixture | None = None,
        widths: Widths | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Run the mixture, or one member of the space.

        Args:
            x: shape (N, *graph.in_shape).
            at: a genotype runs that network with the supernet's weights; a `Mixture`
                runs it as it stands; None takes what is `held`, else a fresh mixture.
            widths: which widths to run (see `mixture`); left as they stand in `at` if None.
            generator: randomness of a fresh mixture.

        Returns:
            Tensor of shape (N, *graph.out_shape).

        Raises:
            GenotypeError: the genotype (or mixture) belongs to another space.
        """
        at = self._held if at is None else at
        if at is None:
            return self.network(x, self.mixture(widths=widths, generator=generator))
        if at.graph is not self.graph and at.graph != self.graph:
            raise GenotypeError(
                "a genotype runs in the supernet of its own space",
                got=repr(at)[:80],
                fix="Validate it with Genotype.of(net.graph, ...).",
            )
        if isinstance(at, Genotype):
            at = self._mixture_of(at)
        if widths is not None:
            at = at.with_widths(widths)
        return self.network(x, at)

    @contextmanager
    def held(self, at: Genotype | Mixture) -> Iterator[None]:
        """Inside, a call without `at` runs this genotype or mixture.

        So a supernet can be a part of a larger module, which knows nothing of mixtures.

        >>> import torch, trinas as tn
        >>> graph = tn.lower(tn.choice(a=tn.relu(), b=tn.tanh(), name="slot"), (1, 2, 2))
        >>> net = tn.compile_supernet(graph)
        >>> with net.held(tn.Genotype.of(graph, {"slot": "a"})):
        ...     torch.nn.Sequential(net)(-torch.ones(1, 1, 2, 2)).sum()
        tensor(0.)
        """
        before, self._held = self._held, at
        try:
            yield
        finally:
            self._held = before

    def _mixture_of(self, genotype: Genotype) -> Mixture:
        """Its mixture; that of the last one is kept, since one is run many times."""
        device = self.architecture.device
        last = self._last  # once: another thread may put its own there
        if last is None or last[0] is not genotype or last[1] != device:
            with torch.inference_mode(False):  # kept for later passes, which may be trained
                last = (genotype, device, Mixture.of(genotype, torch.empty(0, device=device)))
            self._last = last
        return last[2]

    def mixture(
        self,
        *,
        widths: Widths | None = None,
        generator: torch.Generator | None = None,
        rng: random.Random | None = None,
    ) -> Mixture:
        """Relax all logits: one call per group, one transfer to the host.

        Args:
            widths: ``sampled`` (default): by the width relaxation; ``widest``,
                ``narrowest``, ``random``: the same for all passes of the sandwich rule;
                ``soft``: all widths at once behind masks.
            generator: randomness of stochastic relaxations, apart from the data's.
            rng: randomness of ``random`` widths; drawn from `generator` where None.

        Raises:
            RelaxationError: logits that are not finite; the message names the decision.
        """
        mixture = self._relaxed(generator, sample=self.architecture.training)
        if widths is not None and widths != "sampled":
            if widths == "random" and rng is None:
                rng = random_from(generator)
            mixture = mixture.with_widths(widths, rng=rng)
        if self.architecture.learns_inputs:
            return mixture
        kept = self._kept_inputs.mask(mixture.odds_by_path())
        if kept is None:
            return mixture
        # In the odds, a cell's step keeps the inputs that would be derived now.
        return attrs.evolve(mixture, odds=mixture.odds * mixture.odds.new_tensor(kept))

    def _relaxed(self, generator: torch.Generator | None, *, sample: bool) -> Mixture:
        weights, odds, open_slots = self.architecture.relaxed(
            self._progress, generator, sample=sample
        )
        # What was dropped for good takes no gradient, whatever its relaxation says.
        if 0 in self._left:
            open_slots = [slot for slot in open_slots if self._left[slot]]
        return Mixture.from_weights(
            self.graph,
            weights,
            odds,
            open_slots=open_slots,
            learned_inputs=self.architecture.learns_inputs,
            pruned=self.pruned,
        )

    @torch.no_grad()
    def weights(self) -> dict[str, list[float]]:
        """The present weight of every option, by decision, without noise.

        Where the relaxation is stochastic, the likeliest option has all the weight.
        """
        return self._relaxed(None, sample=False).by_path()

    @torch.no_grad()
    def odds(self) -> dict[str, list[float]]:
        """The probability of every option, by decision.

        These are the `weights`, but where the relaxation is stochastic those of the draw (of
        several inputs, those of `trinas.relax.softmax`, which are close to them). Inputs of a
        cell's steps that follow from the operations have none.
        """
        return self._relaxed(None, sample=False).odds_by_path()

    def derive(self) -> Genotype:
        """The genotype of the largest weights; see `derive`."""
        with torch.no_grad():
            mixture = self._relaxed(None, sample=False)
        return leading(mixture, self.architecture.logits_by_path(), self._kept_inputs)

    def compile(self, **options: Any) -> None:  # type: ignore[override]  # of parts, not of the whole
        """Compile the parts between decisions; see `Network.compile`."""
        self.network.compile(**options)

    def logits(self, path: str) -> Tensor:
        """The logits of one decision, a view into the stacked parameter, (K,).

        Raises:
            SpaceError: no such decision.
        """
        name, row = self.architecture.row(path)
        return getattr(self.architecture, name)[row]

    def arch_parameters(self) -> dict[str, nn.Parameter]:
        """The architecture parameters by name, in an order that never changes."""
        return dict(self.architecture.named_parameters())

    def weight_parameters(self) -> list[nn.Parameter]:
        """All other parameters, in the order of the graph."""
        return list(self.network.parameters())

    @property
    def pruned(self) -> dict[str, tuple[Option, ...]]:
        """The options that were dropped for good, by decision."""
        if 0 not in self._left:
            return {}
        graph = self.graph
        found = {
            path: tuple(
                o for k, o in enumerate(d.options) if not self._left[graph.offsets[path] + k]
            )
            for path, d in graph.decisions.items()
        }
        return {path: options for path, options in found.items() if options}

    def prune(self, options: Mapping[str, Iterable[Option] | Option]) -> list[nn.Parameter]:
        """Drop options for good, with every layer that only they lead to.

        Their logits become minus infinity, which leaves them out of every relaxation; the
        layers are removed from the network. What is left computes as before, but for
        relaxations that look at the number of options (the radius of sparsestmax is a
        share of that of the options that are left).

        Args:
            options: what to drop, by decision: one or several operations, paths, depths or
                inputs of a cell's step.

        Returns:
            The parameters that were removed, for an optimiser to forget.

        Raises:
            SpaceError: no such option, or fewer than can be derived would be left.

        >>> import trinas as tn
        >>> graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
        >>> net = compile_supernet(graph)
        >>> [tuple(p.shape) for p in net.prune({"slot": ["a"]})], net.pruned
        ([(8, 3, 3, 3), (8,)], {'slot': ('a',)})
        >>> net.weights()
        {'slot': [0.0, 1.0]}
        """
        slots = self._slots_of(options)
        for slot in slots:
            self._left[slot] = 0
        self.architecture.rule_out(slots)
        return self.network.keep(bytes(self._left))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state; what was pruned where it was saved is pruned here first.

        Raises:
            CheckpointError: the state of another space, or of a supernet with options that
                were pruned here; or of one that was pruned, with parameters missing, too many or
                of other shapes. Nothing is pruned then.
        """
        extra = state_dict.get("_extra_state")
        if isinstance(extra, dict) and extra.get("space") == self.graph.digest:
            saved = extra.get("pruned", {})
            lost = {p: set(o) - set(saved.get(p, ())) for p, o in self.pruned.items()}
            if any(lost.values()):
                path = next(path for path, options in lost.items() if options)
                raise CheckpointError(
                    "what was pruned has no place to load weights into",
                    got=f"a state with {', '.join(map(str, lost[path]))}",
                    at=path,
                    fix="Compile the supernet anew, then load.",
                )
            if strict and any(saved.values()):
                self._check_pruned(state_dict, saved)
            self.prune(saved)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _check_pruned(
        self, state: Mapping[str, Any], saved: Mapping[str, Iterable[Option]]
    ) -> None:
        """Check a state against what pruning would leave, before anything is lost to it."""
        left = bytearray(self._left)
        for slot in self._slots_of(saved):
            left[slot] = 0
        gone = tuple(f"network.{name}" for name in self.network.gone(bytes(left)))
        require_fitting(self.state_dict(), state, gone)

    def _slots_of(self, options: Mapping[str, Iterable[Option] | Option]) -> list[int]:
        learned = self.architecture.learns_inputs
        return slots_of(self.graph, options, self.pruned, inputs=learned)

    def get_extra_state(self) -> dict[str, Any]:
        """Progress, what was pruned, and which space this is, for the state dict."""
        pruned = {path: list(options) for path, options in self.pruned.items()}
        return {"progress": self._progress, "space": self.graph.digest, "pruned": pruned}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore progress; refuse the state of another space.

        Raises:
            CheckpointError: the state was saved for a different graph, or is none.
        """
        if not isinstance(state, dict) or not {"progress", "space"} <= set(state):
            raise CheckpointError(
                "the state of a supernet says its progress and its space",
                got=repr(state)[:80],
                fix="Load what Supernet.state_dict gave.",
            )
        self.require_space(state)
        self.progress = state["progress"]

    def require_space(self, extra: Any) -> None:
        """Check that an extra state was saved for this space; one that says nothing passes.

        Raises:
            CheckpointError: it was saved for another one.
        """
        space = extra.get("space") if isinstance(extra, dict) else None
        if space is not None and space != self.graph.digest:
            raise CheckpointError(
                "a state dict is loaded into the supernet of its own space",
                got=f"space {str(space)[:12]}",
                at=f"space {self.graph.digest[:12]}",
                fix="Build the supernet from the space (and input shape) it was saved with.",
            )


def compile_supernet(
    graph: Graph,
    relax: RelaxSpec | None = None,
    *,
    init_std: float = 1e-3,
    checkpoint: bool = False,
    search_only_until: float = SEARCH_ONLY_UNTIL,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> Supernet:
    """Compile a space into a differentiable supernet.

    Args:
        graph: the lowered space.
        relax: one relaxation for operations, paths, depths and inputs, or a mapping from kinds
            (``operation``, ``path``, ``depth``, ``width``, ``inputs``) to relaxations. The
            defaults are those of Trilevel NAS: sparsestmax, sorted sparsestmax, Gumbel-softmax;
            which inputs a cell's step keeps is relaxed by sparsestmax, too, to as many ones as
            are kept. ``inputs`` may be ``"strongest"``, the rule of DARTS: no logits, all inputs
            are added at weight 1, and those of the likeliest operations are derived, so that the
            derived network is not the supernet.
        init_std: standard deviation of the initial logits.
        checkpoint: compute choices a second time in backward instead of keeping all of
            them (`Network.checkpoint`): less memory, more time, the same results.
        search_only_until: progress from which on options that are `search_only` get no weight
            under relaxations that end one-hot (`Relaxation.ends_one_hot`), so that what is
            left can be derived. Softmax keeps them to the end, as DARTS does.
        seed: of all initial values, weights of layers and logits; torch's global generator, as
            it stands, where None.
        generator: randomness of the initial logits, instead of that.

    Raises:
        SpaceError: an unknown kind in `relax`, or a relaxation of the inputs that cannot choose as
            many as are kept; a setting out of range.

    >>> import torch, trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
    >>> net = compile_supernet(graph, tn.relax.Softmax())
    >>> net(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 8, 16, 16])
    >>> list(net.arch_parameters())
    ['alpha_2']
    """
    require_graph(graph)
    if not init_std >= 0:
        raise SpaceError(
            "init_std is at least 0",
            got=init_std,
            fix="It is the standard deviation of the initial logits.",
        )
    if not 0 <= search_only_until <= 1:
        raise SpaceError(
            "search_only_until is a share of the search, in [0, 1]", got=search_only_until
        )
    with paused_collector(), seeded(seed):
        network = Network(graph)
        network.checkpoint = checkpoint
        architecture = Architecture(
            graph,
            relax,
            init_std=init_std,
            search_only_until=search_only_until,
            generator=generator,
        )
        return Supernet(network, architecture)


def derive(net: Supernet) -> Genotype:
    """The genotype that a supernet has settled on, or comes closest to.

    Every active decision goes to the option of largest weight (Algorithm 1 of Trilevel
    NAS, third step); options marked `search_only` are passed over. A cell's step keeps the
    inputs of largest weight; of equal ones those of larger logits, then those whose best
    operation weighs most, which is all that counts where inputs are kept by strength.

    Raises:
        GraphError: `net` is no supernet.

    >>> import trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
    >>> net = tn.compile_supernet(graph, init_std=0.0)
    >>> _ = net.logits("slot").data.copy_(torch.tensor([0.0, 1.0]))
    >>> derive(net)
    Genotype(slot='b')
    """
    if not isinstance(net, Supernet):
        raise GraphError(
            "a genotype is derived from a supernet",
            got=f"a {type(net).__name__}",
            fix="Make one with trinas.compile_supernet(graph).",
        )
    return net.derive()
