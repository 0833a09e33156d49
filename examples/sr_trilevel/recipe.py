"""What a run depends on besides its data and its seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

import trinas as tn
from examples.sr_trilevel.efficient import efficient
from examples.sr_trilevel.efficient import largest_macs as largest_of_blocks
from examples.sr_trilevel.losses import LossWeights
from examples.sr_trilevel.space import RATIOS, Paths, backbone_a, backbone_b, largest_macs
from trinas.search.config import PUBLISHED

Backbone: TypeAlias = Literal["A", "B", "efficient"]
RelaxationName: TypeAlias = Literal["sparsestmax", "sparsemax", "softmax", "gumbel"]
WidthRelaxationName: TypeAlias = Literal["gumbel", "sorted"]
StrategyName: TypeAlias = Literal["gradient", "random"]
Signals: TypeAlias = Literal["published", "differences", "today"]


@attrs.frozen(kw_only=True)
class Recipe:
    """Everything a run depends on besides its data and its seed.

    Attributes:
        name: what the recipe is called on the command line.
        backbone: of the paper, or the space of today's blocks (`efficient`).
        features: full width of the network.
        scale: upscaling factor.
        slots: searched operations in a RiR cell.
        cells: most RiR cells on a path.
        convs: most plain convolutions (in A: upsamplings, as many as the scale takes) on a path.
        ratios: searched shares of the full width.
        paths: what is searched at network level: ``tree``, ``trellis`` or ``fixed`` (nothing).
        network: name of a published network that is trained instead of searching for one; see
            `strategies.FixedNetwork`.
        strategy: ``gradient`` is the paper's; ``random`` trains the supernet one network a step
            and takes the best of `candidates` random networks within the budget.
        candidates: networks that a random search scores.
        relaxation: of operations and paths.
        signals: what the architecture learns from, and what trains the weights: ``published`` is
            the paper's; with ``differences`` drawn decisions (widths) learn from differences of
            losses, and all else is the paper's; ``today`` are the defaults of trinas: paths learn
            from the losses at their exits, too, and networks of the space are trained beside
            the mixture.
        width_relaxation: of widths: one drawn in every pass by Gumbel-softmax, or all at once by
            sorted sparsestmax from narrow to wide, with the strength and form of paths.
        order_strength: lambda, the strength of the order along paths.
        order_form: of the sorted sparsestmax: ``linear`` (the paper's), ``hinge`` or ``strict``.
        warmup: share of the search in which the radius stays at zero.
        patch: side of the LR patches in the search.
        batch: patches a step of the search.
        search: settings of pretraining and search.
        mac_share: target of the cost term, as a share of the widest, longest network of the tree.
        fill: least share of that target that a network of a random search uses.
        loss: of the search, behind pretraining, which has content alone.
        inherit: train from search, the weights as the search leaves them; else from scratch.
        train_patch: side of the LR patches in training.
        train_batch: patches a step of training.
        flips: augmentation; ``dihedral`` is all eight flips and turns.
        train: settings of training, on content alone.
        train_rate: factor on its learning rate.
        finetune: steps of training on `loss` after that, as a share of those of `train`.
        arch_std: standard deviation of the initial logits, which start around zero.
        weight_gain: factor on initial weights, whose standard deviation is torch's
            ``1 / sqrt(3 fan_in)`` at 1. At ``sqrt(6)`` (He et al. 2015) what goes through
            convolutions and ReLUs keeps its size; at 1 each pair takes more than half of it.
    """

    name: str
    backbone: Backbone = "B"
    features: int = 64
    scale: int = 4
    slots: int = 5
    cells: int = 5
    convs: int = 2
    ratios: Sequence[float] = RATIOS
    paths: Paths = "tree"
    network: str | None = None
    strategy: StrategyName = "gradient"
    candidates: int = 50
    relaxation: RelaxationName = "sparsestmax"
    signals: Signals = "today"
    width_relaxation: WidthRelaxationName = "gumbel"
    order_strength: float = 0.1
    order_form: str = "linear"
    warmup: float = 0.0
    patch: int = 32
    batch: int = 3
    search: tn.SearchConfig
    mac_share: float | None = None
    fill: float = 0.0
    loss: LossWeights = attrs.field(factory=LossWeights)
    inherit: bool = True
    train_patch: int = 32
    train_batch: int = 16
    flips: Literal["none", "horizontal", "dihedral"] = "horizontal"
    train: tn.TrainConfig
    train_rate: float = 1.0
    finetune: float = 0.0
    arch_std: float = 1e-3
    weight_gain: float = 1.0

    def __attrs_post_init__(self) -> None:
        """Refuse what would be ignored.

        Raises:
            ConfigError: the space of today's blocks with other paths than a tree of them.
        """
        if self.backbone == "efficient" and self.paths != "tree":
            raise tn.errors.ConfigError(
                "the space of today's blocks has a tree of paths",
                got=f"paths: {self.paths}",
                at=self.name,
                fix="Search other paths on backbone A or B.",
            )

    def space(self) -> tn.Node:
        """The search space."""
        return self._space(self.paths)

    def _space(self, paths: Paths) -> tn.Node:
        if self.backbone == "efficient":
            return efficient(self.features, self.scale, cells=self.cells, plain=self.convs)
        sizes = {"slots": self.slots, "cells": self.cells, "ratios": self.ratios, "paths": paths}
        if self.backbone == "A":
            return backbone_a(self.features, self.scale, **sizes)
        return backbone_b(self.features, self.scale, convs=self.convs, **sizes)

    @property
    def at_most(self) -> dict[str, int]:
        """How many blocks of each kind a path has at most."""
        upsamplings = self.scale.bit_length() - 1
        return {"a": self.cells, "b": upsamplings if self.backbone == "A" else self.convs}

    def budget(self) -> float | None:
        """Multiply-adds aimed at, for an LR patch of the search.

        Of the tree's largest network, whatever is searched at network level: what is compared
        has one budget.
        """
        if self.mac_share is None:
            return None
        graph = tn.lower(self._space("tree"), (3, self.patch, self.patch))
        largest = largest_of_blocks if self.backbone == "efficient" else largest_macs
        return self.mac_share * largest(graph)

    def radius(self) -> tn.relax.Linear:
        """Share of the circumradius as a function of the share of the search done."""
        return tn.relax.Linear(0.0, 1.0, warmup=self.warmup)

    def relaxations(self) -> dict[str, tn.relax.Relaxation]:
        """Of operations, paths and widths."""
        operation, path = self._of_branches()
        drawn = self.width_relaxation == "gumbel"
        width = tn.relax.GumbelSoftmax() if drawn else self._sorted(self.radius())
        return {"operation": operation, "path": path, "width": width}

    def _sorted(self, radius: tn.relax.Linear | float) -> tn.relax.SortedSparsestmax:
        return tn.relax.SortedSparsestmax(self.order_strength, self.order_form, radius=radius)

    def _of_branches(self) -> tuple[tn.relax.Relaxation, tn.relax.Relaxation]:
        if self.relaxation == "softmax":
            return tn.relax.Softmax(), tn.relax.Softmax()
        if self.relaxation == "gumbel":
            return tn.relax.GumbelSoftmax(), tn.relax.GumbelSoftmax()
        radius = self.radius() if self.relaxation == "sparsestmax" else 0.0
        waiting = self.signals == "today" and isinstance(radius, tn.relax.Linear)
        # Paths are compared once the weights are trained; until then none may be ruled out.
        later = (
            attrs.evolve(radius, warmup=max(self.warmup, self.search.wait)) if waiting else radius
        )
        operation = tn.relax.Sparsestmax(radius=radius)
        if self.paths != "tree":  # elsewhere no path is another's beginning
            return operation, tn.relax.Sparsestmax(radius=radius)
        return operation, self._sorted(later)

    def search_config(self, seed: int) -> tn.SearchConfig:
        """Settings of a search by gradients, the budget in them.

        A relaxation that cannot be sorted has the order as a term of the loss, as strong.
        """
        config = attrs.evolve(self.search, seed=seed, **self._signals())
        budget = self.budget()
        if config.cost is not None and budget is not None:
            config = attrs.evolve(config, cost=attrs.evolve(config.cost, target=budget))
        if self.paths == "tree" and self.relaxation in ("softmax", "gumbel"):
            config = attrs.evolve(config, order_penalty=self.order_strength)
        return config

    def _signals(self) -> dict[str, Any]:
        """Settings of a search that follow from `signals`."""
        pretraining = self.search.pretrain_passes
        published = {**PUBLISHED, "pretrain_passes": pretraining}
        if self.signals == "published":
            return published
        if self.signals == "differences":
            return {**published, "sampled": "differences"}
        return {
            "pretrain_passes": (*pretraining, "network"),
            "search_passes": ("sampled", "network"),
        }

    def random_config(self, seed: int) -> tn.RandomSearchConfig:
        """Settings of a random search with as many steps of the weights and the same budget."""
        search, budget = self.search, self.budget()
        return tn.RandomSearchConfig(
            train_steps=search.total_steps,
            candidates=self.candidates,
            weight_lr=search.weight_lr,
            weight_schedule=search.weight_schedule,
            clip=search.clip,
            within=None if budget is None else tn.Budget(budget, "macs", self.fill * budget),
            score_batches=4,
            autocast=search.autocast,
            seed=seed,
        )

    def training(self) -> tn.TrainConfig:
        """Settings of training, its rate in them."""
        return attrs.evolve(self.train, lr=self.train_rate * self.train.lr)

    def finetuning(self) -> tn.TrainConfig | None:
        """Settings of training on `loss`, with the schedule of the paper's appendix A.2."""
        if not self.finetune:
            return None
        schedule = tn.Halving((1 / 8, 1 / 4, 1 / 2, 3 / 4))
        steps = round(self.finetune * self.train.steps)
        return attrs.evolve(self.training(), steps=steps, schedule=schedule)

    def with_plain(self, saved: Mapping[str, Any]) -> Recipe:
        """This recipe, with those numbers, words and sequences of these that `to_json` wrote.

        All that the space depends on is among them. Settings of the search, of training and of the
        loss stay; what is not known, or was not yet, is left out.
        """
        known = {field.name for field in attrs.fields(Recipe)}
        plain = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in saved.items()
            if name in known and not isinstance(value, dict)
        }
        return attrs.evolve(self, **plain)

    def to_json(self) -> str:
        """The recipe as text, for the run folder and for checks on resuming."""
        return json.dumps(attrs.asdict(self), indent=2, default=repr) + "\n"
