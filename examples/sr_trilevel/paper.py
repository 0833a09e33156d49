"""The tables of the paper as data, what runs them, and what their networks cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import attrs
import torch
from torch import nn

import trinas as tn
from examples.sr_trilevel.networks import conv_macs
from examples.sr_trilevel.results import NETWORKS
from examples.sr_trilevel.space import paper_architecture
from examples.sr_trilevel.teachers import RRDBNet

_OPTIONS = {
    "tiny": "--data T91 --skip-bad --sets Set5 Set14",
    "cores": "--data PHOTO2K --teacher net_g_BSRN_x4.pth --sets Set5 Set14",
    "hour": "--data photos.zip --teacher net_g_BSRN_x4.pth --sets Set5 Set14",
}


@attrs.frozen(kw_only=True)
class PaperRow:
    """One row of a table, as the paper prints it, and what here runs it.

    Attributes:
        label: what it is called there.
        path: 0 for a RiR cell, 1 for an upsampling or convolution; or in words; None without.
        params_m: millions of parameters.
        gflops: multiply-adds in G, at a 256x256 input.
        psnr: in dB, on the sets of the table.
        variants: of recipes, as published first; any further ones come near it.
        architecture: of `paper_architectures`, or RRDBNet: a network that can be counted.
        weights: published file of the network.
        note: why there is nothing of ours.
        type: how it was found, as the table says: by hand, or by a search of so many levels.
    """

    label: str
    path: Sequence[int] | str | None
    params_m: float
    gflops: float
    psnr: Sequence[float]
    variants: Sequence[str] = ()
    architecture: str | None = None
    weights: str | None = None
    note: str | None = None
    type: str | None = None


@attrs.frozen(kw_only=True)
class Table:
    """A table of the paper.

    Attributes:
        title: number and subject.
        sets: that PSNR is on.
        data: what the paper trains on.
        options: of a study at the paper's size.
        about: what else a reader has to know.
        rows: in the paper's order.
        within: folder of its own for its records.
    """

    title: str
    sets: Sequence[str]
    data: str
    options: str
    about: str
    rows: tuple[PaperRow, ...]
    within: str | None = None


@cache
def paper_tables() -> Mapping[str, Table]:
    """The paper's tables by number.

    >>> table = paper_tables()["4"]
    >>> for row in table.rows:
    ...     print(row.label, row.params_m, row.psnr, row.variants[-1])
    lambda = 0 0.58 [30.32, 27.21] lambda-0
    lambda = 0.01 0.52 [30.34, 27.2] lambda-0.01
    lambda = 0.1 0.34 [30.34, 27.29] lambda-0.1
    """
    text = Path(__file__).with_name("paper_tables.json").read_text(encoding="utf-8")
    tables = json.loads(text)["tables"]
    return {
        name: Table(**{**table, "rows": tuple(PaperRow(**row) for row in table["rows"])})
        for name, table in tables.items()
    }


def command(table: Table, variants: Sequence[str], size: str) -> str:
    """The command that runs rows of a table.

    Args:
        table: gives data, teacher and sets at the paper's size.
        variants: of recipes.
        size: ``paper``, ``hour``, ``cores`` or ``tiny``.

    >>> command(paper_tables()["2"], ["lambda-0.1"], "tiny")
    'python -m examples.sr_trilevel.study tiny/lambda-0.1 --data T91 --skip-bad --sets Set5 Set14'
    """
    recipes = " ".join(f"{size}/{variant}" for variant in dict.fromkeys(variants))
    options = _OPTIONS.get(size, table.options)
    return f"python -m examples.sr_trilevel.study {recipes} {options}"


def evaluation(weights: str) -> str:
    """The command that scores published weights."""
    file = f"docs/results/{NETWORKS.name}/{Path(weights).stem}.json"
    return f"python -m examples.sr_trilevel.evaluate {weights} --sets Set5 Set14 --json {file}"


@cache
def counts(architecture: str) -> tuple[int, int]:
    """Parameters and multiply-adds at 256x256 of a published network, without adding biases.

    >>> counts("table8_visual_B")
    (234192, 15340666880)
    """
    if architecture != "RRDBNet":
        cost = tn.cost.count(*paper_architecture(architecture))
        return cost.params, cost.macs - cost.bias_adds
    with torch.device("meta"):
        network = RRDBNet()
    params = sum(parameter.numel() for parameter in network.parameters())
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.bias = None
    macs = conv_macs(network)
    assert macs is not None
    return params, macs
