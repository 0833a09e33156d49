"""Finished networks: out of a run's folder, out of a file of published weights, or bicubic.

Shapes: LR `[N, 3, h, w]`, output `[N, 3, h * scale, w * scale]`, both about in [0, 1].
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import trinas as tn
from examples.sr_trilevel.checkpoint import CHECKPOINT, load_checkpoint, restoring
from examples.sr_trilevel.imaging import bicubic
from examples.sr_trilevel.recipe import Recipe
from examples.sr_trilevel.recipes import RECIPES
from examples.sr_trilevel.strategies import graph_of
from examples.sr_trilevel.teachers import load_teacher
from trinas import errors

SIDE = 256
"""Of the input that the field quotes multiply-adds for."""


class SRNetwork(nn.Module):
    """A network under its name, to enlarge with: in eval mode, without gradients, on the CPU.

    `forward` takes LR `[N, 3, h, w]` in [0, 1] and gives `[N, 3, h * scale, w * scale]`, about in
    [0, 1] and not clamped: what `metrics.score` and the tools here take.

    Args:
        name: for tables and messages.
        network: does the work; frozen here.
        scale: how many times it enlarges.
        macs: multiply-adds for an input of 256 x 256, counted as `trinas.cost` counts; None
            where that is not known.
    """

    def __init__(
        self, name: str, network: nn.Module, *, scale: int, macs: int | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.scale = scale
        self.macs = macs
        self.network = network
        self.requires_grad_(False).eval()

    @property
    def params(self) -> int:
        """How many numbers were trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge `lr`."""
        return self.network(lr)

    def __str__(self) -> str:
        """Name, scale and size in one line."""
        macs = "" if self.macs is None else f", {self.macs / 1e9:.3f} G MACs at {SIDE}x{SIDE}"
        return f"{self.name} x{self.scale}, {self.params:,} parameters{macs}"


class Bicubic(nn.Module):
    """MATLAB's bicubic enlargement as a module: see `imaging.bicubic`.

    >>> Bicubic(4)(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 3, 32, 32])
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self._enlarge = bicubic(scale)

    def forward(self, lr: Tensor) -> Tensor:
        """`[..., h, w]` to `[..., h * scale, w * scale]`."""
        return self._enlarge(lr)


def load_network(path: str | Path) -> SRNetwork:
    """A network by what it left behind.

    Args:
        path: the folder of a run, whose network is taken as far as it is trained; a file of
            published weights that `load_teacher` knows; or the word `bicubic`, for x4, or
            `bicubic-x2` and so on.

    Returns:
        The network, on the CPU. That of a run which is not finished has its step in its name.

    Raises:
        CheckpointError: there is nothing, or nothing that fits.
        GenotypeError: the run's `genotype.json` is missing, damaged or of another space.

    >>> print(load_network("bicubic"))
    bicubic x4, 0 parameters
    """
    word = re.fullmatch(r"bicubic(-x([1-9]\d?))?", str(path))
    if word is not None:
        scale = int(word[2] or 4)
        return SRNetwork("bicubic", Bicubic(scale), scale=scale)
    place = Path(path).expanduser()
    if place.is_dir():
        return _of_run(place)
    if place.is_file():
        teacher = load_teacher(place)
        return SRNetwork(teacher.name, teacher, scale=teacher.scale, macs=conv_macs(teacher))
    raise errors.CheckpointError(
        "a network is a run's folder, a file of weights, or the word bicubic",
        got="no such file or folder",
        at=place,
    )


def conv_macs(network: nn.Module, side: int = SIDE) -> int | None:
    """Multiply-adds of all convolutions for an RGB input; None where other layers have weights.

    Run once without data, on torch's `meta` device, so that only shapes are computed. A bias
    counts as one per output position, as in `trinas.cost`.

    Args:
        network: takes `[1, 3, side, side]`.
        side: of the input.

    >>> conv_macs(nn.Conv2d(3, 8, 3, padding=1, bias=False), 10)
    21600
    """
    total = 0

    def add(conv: nn.Conv2d, inputs: object, output: Tensor) -> None:
        nonlocal total
        fan_in = conv.weight[0].numel()
        total += output.numel() * (fan_in + (conv.bias is not None))

    shadow = copy.deepcopy(network).to("meta")
    for module in shadow.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
        elif next(module.parameters(recurse=False), None) is not None:
            return None
    with torch.no_grad():
        shadow(torch.empty(1, 3, side, side, device="meta"))
    return total


def _of_run(folder: Path) -> SRNetwork:
    if not (folder / CHECKPOINT).exists():
        raise errors.CheckpointError(
            "a run's folder holds a checkpoint", got="none", at=folder / CHECKPOINT
        )
    state = load_checkpoint(folder)
    if _last_stage(state) is None:
        raise errors.CheckpointError(
            "a network can be used when its training has begun",
            got="a run that is still searching",
            at=folder,
            fix="Let the run go on with --resume.",
        )
    with restoring(folder):
        saved = json.loads(state["identity"]["recipe"])
        recipe = _recipe(saved, folder)
    graph = graph_of(recipe, SIDE)
    genotype = tn.Genotype.load(folder / "genotype.json", graph)
    network = tn.build(graph, genotype)
    with restoring(folder):
        network.load_state_dict(_last_stage(state)["model"])
        name = folder.resolve().name + _unfinished(state, saved)
    macs = tn.cost.count(graph, genotype).macs
    return SRNetwork(name, network, scale=recipe.scale, macs=macs)


def _last_stage(state: Mapping[str, Any]) -> Any:
    """Training, or the fine-tuning behind it; None where a run is still searching."""
    return state.get("finetuning") or state["training"]


def _unfinished(state: Mapping[str, Any], saved: Mapping[str, Any]) -> str:
    """How far a run has come that has not come to its end, in words."""
    stage = _last_stage(state)
    last = bool(state.get("finetuning")) or not saved.get("finetune")
    step, total = stage["step"], stage["total"]
    if last and step >= total:
        return ""
    return f" ({'fine-tuning' if state.get('finetuning') else 'training'} {step} of {total})"


def _recipe(saved: Mapping[str, Any], folder: Path) -> Recipe:
    """The recipe of a run, as far as its space depends on it.

    A recipe of a variant (``SIZE/VARIANT``) differs from that of its size in fields that
    `Recipe.with_plain` takes over.
    """
    size = str(saved["name"]).partition("/")[0]
    if size not in RECIPES:
        raise errors.CheckpointError(
            "a run is of a recipe known here",
            got=str(saved["name"]),
            at=folder / CHECKPOINT,
            fix=f"Known are {', '.join(RECIPES)}.",
        )
    return RECIPES[size]().with_plain(saved)
