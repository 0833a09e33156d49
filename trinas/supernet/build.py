"""Plain networks, and how they inherit the weights of a supernet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trinas._core.errors import GenotypeError
from trinas.graph import Genotype, Graph, require_graph, specialise
from trinas.ops import Cut
from trinas.space.decision import chosen
from trinas.supernet.network import Network
from trinas.supernet.seeding import seeded
from trinas.supernet.supernet import Supernet


def build(
    graph: Graph,
    genotype: Mapping[str, Any] | None = None,
    *,
    inherit: Supernet | None = None,
    seed: int | None = None,
) -> Network:
    """The plain network of a genotype: no choices, no relaxation, torch modules only.

    Args:
        graph: the space, or a graph without decisions.
        genotype: what was decided: a `Genotype`, or a mapping that is one.
        inherit: a supernet of the same space; the network starts from its weights, cut
            to the decided widths (train from search). Fresh weights where None.
        seed: of fresh weights; torch's global generator, as it stands, where None.

    Returns:
        A module whose layers are named by the nodes of the graph.

    Raises:
        GenotypeError: the genotype does not fit the space, or leaves decisions open.

    >>> import trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
    >>> print(build(graph, {"slot": "b"}))
    Network(
      3x16x16 -> 8x16x16
      (layers): Layers(
        (slot/b): Conv2d(3, 8, kernel_size=(1, 1), stride=(1, 1))
      )
    )
    """
    require_graph(graph)
    if genotype is None:
        if graph.decisions:
            raise GenotypeError(
                "a plain network has no open decisions",
                got=f"{len(graph.decisions)} of them",
                fix="Pass a genotype.",
            )
        checked = Genotype.of(graph, {})
    elif isinstance(genotype, Genotype) and genotype.graph is graph:
        checked = genotype
    else:
        checked = Genotype.of(graph, genotype)
    with seeded(seed):
        network = Network(specialise(graph, checked))
    if inherit is not None:
        inherit_weights(network, inherit, checked)
    return network


def inherit_weights(network: Network, net: Supernet, genotype: Genotype) -> None:
    """Copy into `network` the parts of the supernet's weights that `genotype` uses.

    Statistics of normalisation layers are taken along.

    Raises:
        GenotypeError: the supernet is of another space.
    """
    if net.graph is not genotype.graph and net.graph != genotype.graph:
        raise GenotypeError(
            "weights are inherited from a supernet of the same space",
            got=repr(net.graph),
            fix="Build the network from net.graph.",
        )
    for path, options in net.pruned.items():
        lost = set(options) & set(chosen(genotype[path])) if path in genotype else None
        if lost:
            raise GenotypeError(
                "weights are inherited of options that the supernet still has",
                got=f"{path}={genotype[path]}, which was pruned",
                fix="Derive from this supernet, or build without inherit.",
            )
    widest = {w.path: w.values[-1] for w in net.network.widths}
    widths = {path: int(str(genotype.get(path, widest[path]))) for path in widest}
    slices = net.network.slices(widths, net.architecture.device)
    mine, its = network.layers, net.network.layers
    for step in net.network.plan.steps:
        # Pruning leaves one of equal layers without weights, which runs for all.
        if step.operation is not None and step.key in mine and step.key in its:
            copy_cut(its[step.key], mine[step.key], slices.cut(step))


@torch.no_grad()
def copy_cut(full: nn.Module, narrow: nn.Module, cut: Cut) -> None:
    """Copy the tensors of a module into a narrower one of the same kind."""
    targets: dict[str, Tensor] = dict(narrow.named_parameters()) | dict(narrow.named_buffers())
    sources: dict[str, Tensor] = dict(full.named_parameters()) | dict(full.named_buffers())
    for name, target in targets.items():
        source = sources[name]
        if source.shape != target.shape:
            # Statistics are not declared as weights; they have one value per channel out.
            source = cut.weight(source, cut.declared.get(name, ("out",)))
        target.copy_(source)
