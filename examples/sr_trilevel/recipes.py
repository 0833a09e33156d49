"""Complete configurations of a run, as plain functions that return frozen values."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, TypeAlias

import attrs
import torch

import trinas as tn
from examples.sr_trilevel.efficient import efficient
from examples.sr_trilevel.efficient import largest_macs as largest_of_blocks
from examples.sr_trilevel.losses import LossWeights
from examples.sr_trilevel.space import RATIOS, Paths, backbone_a, backbone_b, largest_macs

Backbone: TypeAlias = Literal["A", "B", "efficient"]
RelaxationName: TypeAlias = Literal["sparsestmax", "sparsemax", "softmax", "gumbel"]
StrategyName: TypeAlias = Literal["gradient", "random"]


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
        order_strength: lambda, the strength of the order along paths.
        order_form: of the sorted sparsestmax: ``linear`` (the paper's), ``hinge`` or ``strict``.
        warmup: share of the search in which the radius stays at zero.
        patch: side of the LR patches in the search.
        batch: patches a step of the search.
        search: settings of pretraining and search.
        mac_share: target of the cost term, as a share of the widest, longest network of the tree.
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
    order_strength: float = 0.1
    order_form: str = "linear"
    warmup: float = 0.0
    patch: int = 32
    batch: int = 3
    search: tn.SearchConfig
    mac_share: float | None = None
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
        """Of operations, paths and widths; widths are always drawn by Gumbel."""
        operation, path = self._of_branches()
        return {"operation": operation, "path": path, "width": tn.relax.GumbelSoftmax()}

    def _of_branches(self) -> tuple[tn.relax.Relaxation, tn.relax.Relaxation]:
        if self.relaxation == "softmax":
            return tn.relax.Softmax(), tn.relax.Softmax()
        if self.relaxation == "gumbel":
            return tn.relax.GumbelSoftmax(), tn.relax.GumbelSoftmax()
        radius = self.radius() if self.relaxation == "sparsestmax" else 0.0
        operation = tn.relax.Sparsestmax(radius=radius)
        if self.paths != "tree":  # elsewhere no path is another's beginning
            return operation, tn.relax.Sparsestmax(radius=radius)
        order = tn.relax.SortedSparsestmax(self.order_strength, self.order_form, radius=radius)
        return operation, order

    def search_config(self, seed: int) -> tn.SearchConfig:
        """Settings of a search by gradients, the budget in them.

        A relaxation that cannot be sorted has the order as a term of the loss, as strong.
        """
        config = attrs.evolve(self.search, seed=seed)
        budget = self.budget()
        if config.cost is not None and budget is not None:
            config = attrs.evolve(config, cost=attrs.evolve(config.cost, target=budget))
        if self.paths == "tree" and self.relaxation in ("softmax", "gumbel"):
            config = attrs.evolve(config, order_penalty=self.order_strength)
        return config

    def random_config(self, seed: int) -> tn.RandomSearchConfig:
        """Settings of a random search with as many steps of the weights and the same budget."""
        search, budget = self.search, self.budget()
        return tn.RandomSearchConfig(
            train_steps=search.total_steps,
            candidates=self.candidates,
            weight_lr=search.weight_lr,
            weight_schedule=search.weight_schedule,
            clip=search.clip,
            within=None if budget is None else tn.Budget(budget, "macs"),
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

    def to_json(self) -> str:
        """The recipe as text, for the run folder and for checks on resuming."""
        return json.dumps(attrs.asdict(self), indent=2, default=repr) + "\n"


def smoke() -> Recipe:
    """Every stage once, in seconds: for tests, and to see what a run leaves behind."""
    return Recipe(
        name="smoke",
        features=16,  # widths are multiples of 8: half of 8 would be 8
        slots=2,
        cells=2,
        convs=1,
        ratios=(1 / 2, 1),
        order_strength=0.01,
        patch=16,
        batch=2,
        search=tn.SearchConfig(
            pretrain_steps=6,
            search_steps=12,
            weight_lr=2e-3,
            arch_lr=1e-2,
            cost=tn.CostControl(target=1.0, weight=0.01, every=6),
        ),
        mac_share=0.5,
        train_patch=16,
        train_batch=4,
        train=tn.TrainConfig(steps=60, lr=4e-3, schedule=tn.CosineDecay()),
    )


def demo() -> Recipe:
    """A narrower space, all three levels searched, in minutes on two cores."""
    return Recipe(
        name="demo",
        features=32,
        slots=3,
        cells=2,
        convs=1,
        ratios=(1 / 2, 3 / 4, 1),
        order_strength=0.01,
        warmup=0.2,
        patch=16,
        batch=4,
        search=tn.SearchConfig(
            pretrain_steps=60,
            search_steps=200,
            weight_lr=2e-3,
            weight_schedule=tn.CosineDecay(0.3),
            arch_lr=3e-3,
            pretrain_passes=("widest", "narrowest"),
            cost=tn.CostControl(target=1.0, weight=0.004, every=40, band=(0.7, 1.1)),
        ),
        mac_share=0.6,
        train_patch=32,
        train_batch=8,
        flips="dihedral",
        train=tn.TrainConfig(steps=2400, lr=2e-3, schedule=tn.CosineDecay()),
    )


def paper() -> Recipe:
    """As published, for backbone B with the content loss: days on one GPU.

    100 + 100 epochs of search, 900 of training, on DIV2K and Flickr2K (`--data`) with a teacher
    (`--teacher`; the paper's is a network of 16.7 M parameters, the ones known here are small).
    Learning rates, batches, patches, schedules and the sandwich of widths are the paper's, most
    of them from its appendix; where it gives no number the comments say so.
    """
    # Half of 800 + 2,650 pictures, one patch of each an epoch, three patches a step.
    search_epoch = 575
    # All 3,450 pictures, one patch of each an epoch, sixteen patches a step.
    train_epoch = 216
    return Recipe(
        name="paper",
        # The paper starts alpha at 0.001 and beta at 0.3 throughout. Sparsestmax, sorted or not,
        # does not change when all logits shift, so equal logits are equal whatever their value;
        # the noise (arch_std) is what tells options apart before the first gradient.
        order_strength=0.1,
        search=tn.SearchConfig(
            pretrain_steps=100 * search_epoch,
            search_steps=100 * search_epoch,
            weight_lr=1e-4,
            # At epochs 25, 50 and 75 of each phase.
            weight_schedule=tn.Halving((0.25, 0.5, 0.75)),
            arch_lr=3e-4,
            arch_betas=(0.5, 0.999),
            clip=5.0,
            pretrain_passes=("widest", "narrowest", "random", "random"),
            search_passes=("sampled", "widest", "narrowest"),
            # The weight (omega) is doubled or halved at every epoch; its start, the band and the
            # target are ours. The term for operations and paths gets 2/7, that for widths 5/7.
            cost=tn.CostControl(target=1.0, weight=0.1, share_structure=2 / 7, every=search_epoch),
        ),
        mac_share=0.25,
        train_batch=16,
        # At epochs 225, 450 and 675.
        train=tn.TrainConfig(
            steps=900 * train_epoch, lr=1e-4, schedule=tn.Halving((0.25, 0.5, 0.75))
        ),
    )


def tiny() -> Recipe:
    """For comparisons on two cores: 16 channels, at most 3 cells and 1 convolution a path."""
    return Recipe(
        name="tiny",
        features=16,
        slots=2,
        cells=3,
        convs=1,
        ratios=(1 / 2, 1),
        patch=16,
        batch=4,
        search=tn.SearchConfig(
            pretrain_steps=150,
            search_steps=350,
            weight_lr=2e-3,
            weight_schedule=tn.CosineDecay(0.3),
            arch_lr=5e-3,
            pretrain_passes=("widest", "narrowest"),
            cost=tn.CostControl(target=1.0, weight=0.002, every=50, band=(0.7, 1.1)),
        ),
        mac_share=0.6,
        train_patch=24,
        train_batch=8,
        flips="dihedral",
        train=tn.TrainConfig(steps=1500, lr=2e-3, schedule=tn.CosineDecay()),
    )


def cores() -> Recipe:
    """Half the paper's width, in bfloat16: what two processor cores carry in an hour, together.

    Rates, weights and batches were found by trial in short runs. Cells five operations deep
    hardly reach the output with torch's initial weights: then nothing but the cost speaks for one
    operation or another, and the cheapest wins everywhere.
    """
    return Recipe(
        name="cores",
        features=32,
        cells=3,
        convs=1,
        warmup=0.2,
        search=tn.SearchConfig(
            pretrain_steps=300,
            search_steps=500,
            weight_lr=4e-3,
            weight_schedule=tn.CosineDecay(0.3),
            arch_lr=5e-3,
            pretrain_passes=("widest", "narrowest"),
            cost=tn.CostControl(target=1.0, weight=2e-4, every=60, band=(0.7, 1.1)),
            prune_after=100,
            autocast=torch.bfloat16,
        ),
        mac_share=0.6,
        weight_gain=3**0.5,
        train_batch=4,  # more and smaller steps: a short run gets further
        flips="dihedral",
        train=tn.TrainConfig(
            steps=10_000,
            lr=1e-3,
            schedule=tn.CosineDecay(warmup=0.01),
            autocast=torch.bfloat16,
        ),
    )


def hour() -> Recipe:
    """The paper's space for one hour of a fast GPU: fewer and larger steps, in bfloat16."""
    return Recipe(
        name="hour",
        search=tn.SearchConfig(
            pretrain_steps=1000,
            search_steps=2000,
            weight_lr=2e-3,
            weight_schedule=tn.CosineDecay(0.3),
            arch_lr=3e-3,
            pretrain_passes=("widest", "narrowest"),
            cost=tn.CostControl(target=1.0, weight=1e-3, every=200, band=(0.7, 1.1)),
            prune_after=200,
            autocast=torch.bfloat16,
        ),
        mac_share=0.4,
        weight_gain=3**0.5,
        train_patch=48,
        train_batch=32,
        flips="dihedral",
        train=tn.TrainConfig(
            steps=40_000,
            lr=1e-3,
            schedule=tn.CosineDecay(warmup=0.01),
            autocast=torch.bfloat16,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "smoke": smoke,
    "tiny": tiny,
    "demo": demo,
    "cores": cores,
    "hour": hour,
    "paper": paper,
}

# They add to an enlarged picture, and larger weights begin further away from it.
_AS_TORCH = {"weight_gain": 1.0}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lambda-0": ("no order along paths (Table 4)", {"order_strength": 0.0}),
    "lambda-0.01": ("a weak order along paths (Table 4)", {"order_strength": 0.01}),
    "lambda-0.1": ("the method as published (Tables 4 to 6)", {"order_strength": 0.1}),
    "hinge": ("the order as a hinge: only what ascends is paid for", {"order_form": "hinge"}),
    "strict": ("the order as a constraint", {"order_form": "strict"}),
    "softmax": ("softmax instead of sparsestmax (Table 5)", {"relaxation": "softmax"}),
    "sparsemax": ("sparsemax instead of sparsestmax", {"relaxation": "sparsemax"}),
    "gumbel": ("Gumbel-softmax instead of sparsestmax", {"relaxation": "gumbel"}),
    "trellis": ("Auto-DeepLab's trellis for the tree (Tables 1 and 2)", {"paths": "trellis"}),
    "bilevel": ("a fixed path: cells and kernels alone (Table 6)", {"paths": "fixed"}),
    "scratch": ("trained from scratch (Figure 4)", {"inherit": False}),
    "random": ("random search with weight sharing", {"strategy": "random"}),
    "A": ("backbone A: searched upsampling", {"backbone": "A"}),
    "visual": (
        "content, then content and a perceptual term (Tables 1 and 4 to 6); wants --features",
        # 3e-5 for the pruned SqueezeNet; other features have another size.
        {"loss": LossWeights(content=1.0, perceptual=3e-5), "finetune": 2.0},
    ),
    "third": (
        "a third of the costliest network as the budget, which is what the method comes to at the "
        "size `tiny` (Tables 1 and 6 at equal cost, with `trellis` and `bilevel`)",
        {"mac_share": 1 / 3},
    ),
    **{
        f"table{number}": (
            f"the network of Table {number}, from scratch and without a search",
            {"network": network},
        )
        for number, network in (
            (7, "table7_visual_A"),
            (8, "table8_visual_B"),
            (9, "table9_psnr_B"),
            (10, "table10_aim_B"),
        )
    },
    "bsrn_m": (
        "BSRN of 0.27 M parameters, a network of the efficient space, without a search",
        # Short runs got further at this rate, and no further for the paper's networks.
        {"network": "bsrn_m", "train_rate": 3.0, **_AS_TORCH},
    ),
    "efficient": ("today's efficient blocks", {"backbone": "efficient", **_AS_TORCH}),
}
"""What is changed of a recipe of any size, one thing each, by the name behind the stroke."""


_OF_A_SEARCH = {
    "backbone",
    "inherit",
    "mac_share",
    "order_form",
    "order_strength",
    "paths",
    "relaxation",
    "strategy",
}


def find_recipe(name: str) -> Recipe:
    """A recipe by its name: a size alone, ``SIZE/VARIANT``, or ``SIZE/VARIANT+VARIANT``.

    Raises:
        UnknownNameError: there is no such size or variant.
        ConfigError: two variants contradict each other, or one would be ignored.

    >>> find_recipe("paper/softmax").relaxation
    'softmax'
    >>> recipe = find_recipe("paper/A+visual")
    >>> recipe.backbone, recipe.loss.perceptual > 0
    ('A', True)
    """
    size, stroke, rest = name.partition("/")
    wanted = rest.split("+") if stroke else []
    _known("size", size, RECIPES, name)
    recipe = RECIPES[size]()
    changed: dict[str, Any] = {}
    for variant in wanted:
        _known("variant", variant, VARIANTS, name)
        _, changes = VARIANTS[variant]
        if twice := set(changes) & set(changed):
            raise tn.errors.ConfigError(
                "each of a recipe's variants changes something else",
                got=f"{' and '.join(sorted(twice))} twice",
                at=name,
            )
        changed |= changes
    searched = _OF_A_SEARCH & set(changed)
    if "network" in changed and searched:
        raise tn.errors.ConfigError(
            "a network that is given is trained without a search",
            got=f"{' and '.join(sorted(searched))} beside {changed['network']}",
            at=name,
            fix="Leave out one of the variants.",
        )
    return attrs.evolve(recipe, **changed, name=name) if wanted else recipe


def _known(what: str, wanted: str, known: Collection[str], name: str) -> None:
    if wanted not in known:
        raise tn.errors.UnknownNameError(
            f"no recipe of this {what}", got=name, fix=f"There are {', '.join(known)}."
        )
