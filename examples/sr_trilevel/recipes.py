"""Complete configurations of a run, as plain functions that return frozen values."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import attrs
import torch

import trinas as tn
from examples.sr_trilevel.losses import LossWeights
from examples.sr_trilevel.recipe import Recipe
from trinas.search.config import PUBLISHED


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
        signals="published",
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
            **PUBLISHED,
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
        signals="published",
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
        signals="published",
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
    "published": ("signals as published", {"signals": "published"}),
    "differences": (
        "widths learn from differences of losses, all else is as published",
        {"signals": "differences"},
    ),
    "today": (
        "today's signals: differences for widths, losses at their exits for paths, networks of the "
        "space trained beside the mixture",
        {"signals": "today"},
    ),
    "sorted-widths": (
        "sorted sparsestmax over widths, too: all at once, and one-hot at the end",
        {"width_relaxation": "sorted"},
    ),
    "trellis": ("Auto-DeepLab's trellis for the tree (Tables 1 and 2)", {"paths": "trellis"}),
    "bilevel": ("a fixed path: cells and kernels alone (Table 6)", {"paths": "fixed"}),
    "scratch": ("trained from scratch (Figure 4)", {"inherit": False}),
    "random": ("random search with weight sharing", {"strategy": "random"}),
    "filled": (
        "random search among networks of 52 to 65 % of the costliest one's cost, which is what "
        "`today` comes to at the size `tiny`: the comparison at equal cost used",
        {"strategy": "random", "mac_share": 0.65, "fill": 0.8},
    ),
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
    "fill",
    "inherit",
    "mac_share",
    "order_form",
    "order_strength",
    "paths",
    "relaxation",
    "signals",
    "strategy",
    "width_relaxation",
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
    recipe = attrs.evolve(recipe, **changed, name=name) if wanted else recipe
    _used(recipe, changed)
    return recipe


def _used(recipe: Recipe, changed: Collection[str]) -> None:
    """Refuse variants of the order, or of the relaxation, where there is none of them.

    Raises:
        ConfigError: naming what would be ignored, and by what.
    """
    tree, drawn = recipe.paths == "tree", recipe.strategy == "random"
    term = tree and recipe.relaxation in ("softmax", "gumbel")  # the order is one of the loss
    sorts = (tree and not term) or recipe.width_relaxation == "sorted"
    strict = recipe.order_form == "strict"
    ignored = {
        "order_strength": drawn or not (term or (sorts and not strict)),
        "order_form": drawn or not sorts or not (recipe.order_strength or strict),
        "relaxation": drawn,
        "width_relaxation": drawn,
        "signals": drawn,
    }
    names = [what for what, in_vain in ignored.items() if what in changed and in_vain]
    if names:
        raise tn.errors.ConfigError(
            "every variant of a recipe changes something",
            got=f"{' and '.join(names)} with paths {recipe.paths}, relaxation {recipe.relaxation}, "
            f"strategy {recipe.strategy}, order {recipe.order_strength:g}",
            at=recipe.name,
            fix="Leave out one of the variants.",
        )


def _known(what: str, wanted: str, known: Collection[str], name: str) -> None:
    if wanted not in known:
        raise tn.errors.UnknownNameError(
            f"no recipe of this {what}", got=name, fix=f"There are {', '.join(known)}."
        )
