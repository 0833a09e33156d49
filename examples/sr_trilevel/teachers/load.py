"""Which published network a file of weights belongs to, and that network with them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
from torch import Tensor, nn

from examples.sr_trilevel.teachers import rrdb
from examples.sr_trilevel.teachers.bsrn import BSRN
from examples.sr_trilevel.teachers.rfdn import RFDN
from examples.sr_trilevel.teachers.rlfn import RLFN
from examples.sr_trilevel.teachers.teacher import Teacher
from examples.sr_trilevel.teachers.weights import misfit, read_weights, unknown_network

State = Mapping[str, Tensor]


def load_teacher(path: str | Path) -> Teacher:
    """Load a published network from its file of weights.

    Only tensors are read (`torch.load(..., weights_only=True)`), onto the CPU; nothing in the file
    is executed.

    Raises:
        CheckpointError: the file is missing or unreadable, holds no weights of a network known
            here (the message lists the names found and the networks known), or its tensors have
            other shapes than that network's.
    """
    content = read_weights(path)
    for known in _KNOWN:
        state = known.rename(content)
        if all(key in state for key in known.signature):
            break
    else:
        raise unknown_network(content, (known.name for known in _KNOWN), at=path)
    try:
        network, scale = known.build(state)
        network.load_state_dict(state)
    except (RuntimeError, KeyError, IndexError, AttributeError) as error:
        raise misfit(known.name, error, at=path) from None
    return Teacher(
        known.name,
        network,
        scale=scale,
        input_range=known.input_range,
        least_side=known.least_side,
    )


def _bsrn(state: State) -> tuple[nn.Module, int]:
    channels = state["c1.weight"].shape[0]
    scale = math.isqrt(state["upsampler.upsampleOneStep.0.weight"].shape[0] // 3)
    return BSRN(channels, _count(state, r"B(\d+)\."), scale), scale


def _rfdn(state: State) -> tuple[nn.Module, int]:
    channels = state["fea_conv.weight"].shape[0]
    scale = math.isqrt(state["upsampler.0.weight"].shape[0] // 3)
    return RFDN(channels, _count(state, r"B(\d+)\."), scale), scale


def _rlfn(state: State) -> tuple[nn.Module, int]:
    channels = state["conv_1.weight"].shape[0]
    scale = math.isqrt(state["upsampler.0.weight"].shape[0] // 3)
    return RLFN(channels, _count(state, r"block_(\d+)\."), scale), scale


def _rrdb(state: State) -> tuple[nn.Module, int]:
    channels = state["conv_first.weight"].shape[0]
    growth = state["body.0.rdb1.conv1.weight"].shape[0]
    return rrdb.RRDBNet(channels, _count(state, r"body\.(\d+)\."), growth), 4


def _count(state: State, pattern: str) -> int:
    """How many different numbers `pattern` finds at the start of a name."""
    return len({found[1] for name in state if (found := re.match(pattern, name))})


def _as_they_are(state: State) -> State:
    return state


@attrs.frozen(kw_only=True)
class _Known:
    """How a network is recognised and built.

    Attributes:
        name: for tables and messages.
        signature: names of tensors that no other network here has all of.
        input_range: see `Teacher`.
        least_side: see `Teacher`.
        build: a network of the tensors' sizes, and its scale.
        rename: gives the tensors the names of the layers here; leaves those of others alone.
    """

    name: str
    signature: tuple[str, ...]
    input_range: float
    least_side: int = 15
    build: Callable[[State], tuple[nn.Module, int]]
    rename: Callable[[State], State] = _as_they_are


_KNOWN = (
    _Known(
        name="BSRN",
        signature=("fea_conv.pw.weight", "B1.c1_d.weight", "B1.cca.conv_du.0.weight"),
        input_range=1,
        build=_bsrn,
    ),
    _Known(
        name="RFDN",
        signature=("fea_conv.weight", "B1.c1_d.weight", "LR_conv.weight"),
        input_range=255,
        build=_rfdn,
    ),
    _Known(
        name="RLFN",
        signature=("conv_1.weight", "block_1.c1_r.weight", "block_1.esa.conv4.weight"),
        input_range=255,
        build=_rlfn,
    ),
    _Known(
        name="RRDBNet",
        signature=("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_body.weight"),
        input_range=1,
        least_side=1,
        build=_rrdb,
        rename=rrdb.renamed,
    ),
)
