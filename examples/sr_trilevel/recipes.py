"""Complete configurations of a run, as plain functions that return frozen values."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Literal

import attrs

import trinas as tn
from examples.sr_trilevel.space import RATIOS, backbone_b


@attrs.frozen(kw_only=True)
class Recipe:
    """Everything a run depends on besides its data and its seed.

    Attributes:
        name: what the recipe is called on the command line.
        features: full width of the network.
        scale: upscaling factor.
        slots: searched operations in a RiR cell.
        cells: most RiR cells on a path.
        convs: most plain convolutions on a path.
        ratios: searched shares of the full width.
        order_strength: lambda of the sorted sparsestmax on paths.
        warmup: share of the search in which the radius stays at zero.
        patch: side of the LR patches in the search.
        batch: patches a step of the search.
        search: settings of pretraining and search.
        mac_share: target of the cost term, as a share of the widest, longest network.
        train_patch: side of the LR patches in training.
        train_batch: patches a step of training.
        flips: augmentation; ``dihedral`` is all eight flips and turns.
        train: settings of training.
        arch_std: standard deviation of the initial logits, which start around zero.
    """

    name: str
    features: int = 64
    scale: int = 4
    slots: int = 5
    cells: int = 5
    convs: int = 2
    ratios: Sequence[float] = RATIOS
    order_strength: float = 0.1
    warmup: float = 0.0
    patch: int = 32
    batch: int = 3
    search: tn.SearchConfig
    mac_share: float | None = None
    train_patch: int = 32
    train_batch: int = 16
    flips: Literal["none", "horizontal", "dihedral"] = "horizontal"
    train: tn.TrainConfig
    arch_std: float = 1e-3

    def space(self) -> tn.Node:
        """The search space: backbone B of the paper at this size."""
        return backbone_b(
            self.features,
            self.scale,
            slots=self.slots,
            cells=self.cells,
            convs=self.convs,
            ratios=self.ratios,
        )

    def radius(self) -> tn.relax.Linear:
        """Share of the circumradius as a function of the share of the search done."""
        return tn.relax.Linear(0.0, 1.0, warmup=self.warmup)

    def relaxations(self) -> dict[str, tn.relax.Relaxation]:
        """Sparsestmax for operations, its sorted form for the path, Gumbel for widths."""
        radius = self.radius()
        return {
            "operation": tn.relax.Sparsestmax(radius=radius),
            "path": tn.relax.SortedSparsestmax(
                strength=self.order_strength, form="linear", radius=radius
            ),
            "width": tn.relax.GumbelSoftmax(),
        }

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


RECIPES: dict[str, Callable[[], Recipe]] = {"smoke": smoke, "demo": demo, "paper": paper}
