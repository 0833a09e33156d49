"""Memory of a search's weight step at its highest, and what saves some of it.

A step of `trinas.Search` runs several widths (the sandwich rule), each forward and backward
before the next, so that it should need what its largest pass needs. The numbers are of the
whole step: activations, gradients, and the states of Adam.

Activation checkpointing and bfloat16 are what a user can turn on when that is too much; the
rows say what they bring and what they cost in time.
"""

from __future__ import annotations

import functools

import attrs
import torch

import trinas as tn
from benchmarks.cases import TREES, sr_case
from benchmarks.measure import Options, Row, Work, interleaved, peak_megabytes
from trinas.supernet import Widths

PASSES: dict[str, tuple[Widths, ...]] = {
    "widest": ("widest",),
    "narrowest": ("narrowest",),
    "widest, narrowest, sampled": ("widest", "narrowest", "sampled"),
}
LARGEST = "widest"
ALL_PASSES = "widest, narrowest, sampled"
AT_MOST = 1.05
STEPS = 10**6
"""More than any run takes: a search ends."""


@attrs.frozen
class Setting:
    """How the step is done.

    Attributes:
        passes: a key of `PASSES`.
        checkpoint: whether backward computes choices a second time.
        autocast: in bfloat16.
    """

    passes: str = LARGEST
    checkpoint: bool = False
    autocast: bool = False

    def __str__(self) -> str:
        extras = {"checkpoint": self.checkpoint, "bfloat16": self.autocast}
        return ", ".join([f"{self.passes} widths", *(name for name, on in extras.items() if on)])


BASE = Setting()
SETTINGS = (
    BASE,
    Setting("narrowest"),
    Setting(ALL_PASSES),
    Setting(checkpoint=True),
    Setting(autocast=True),
    Setting(checkpoint=True, autocast=True),
)


def measure(options: Options) -> list[Row]:
    """One row for each supernet and setting."""
    return [row for name in TREES for row in _measure(name, options)]


def _measure(name: str, options: Options) -> list[Row]:
    title = sr_case(name, options).name
    makes = {s: functools.partial(weight_step, name, s, options) for s in SETTINGS}
    samples = interleaved({str(s): make() for s, make in makes.items()}, options, warmup=1)
    peaks = {s: peak_megabytes(make, options.device) for s, make in makes.items()}
    rows = []
    for setting in SETTINGS:
        row: Row = {
            "case": f"{title}, {setting}",
            "against": str(BASE),
            "megabytes": peaks[setting],
            "ratio": peaks[setting] / peaks[BASE],
            "milliseconds": 1e3 * samples.median(str(setting)),
            "time_ratio": samples.ratio(str(setting), str(BASE)),
        }
        rows.append({**row, "at_most": AT_MOST} if setting.passes == ALL_PASSES else row)
    return rows


def weight_step(name: str, setting: Setting, options: Options) -> Work:
    """A pretraining step of a search: weights alone, every branch alive."""
    case = sr_case(name, options)
    case.net.network.checkpoint = setting.checkpoint
    config = tn.SearchConfig(
        pretrain_steps=STEPS,
        pretrain_passes=PASSES[setting.passes],
        autocast=torch.bfloat16 if setting.autocast else None,
    )
    batch = case.x, case.y
    search = tn.Search(case.net, case.loss, lambda step: batch, lambda step: batch, config)
    return search.advance
