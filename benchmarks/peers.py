"""Supernets of other libraries, where those are installed. See README.md."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import Any

from torch import nn

from benchmarks.measure import Options


def darts_peers(options: Options, *, c: int, layers: int) -> dict[str, nn.Module]:
    """The cells of DARTS by the name of the library."""
    if not _there(options, "nni", "pytorch_lightning"):
        return {}
    return {"NNI": _nni("DARTS", width=c, num_cells=layers, dataset="cifar")}


def bench_peers(options: Options, *, c: int, n: int) -> dict[str, nn.Module]:
    """The cells of NAS-Bench-201 by the name of the library."""
    if not _there(options, "nni", "pytorch_lightning"):
        return {}
    return {"NNI": _nni("NasBench201", stem_out_channels=c, num_modules_per_stack=n)}


def _there(options: Options, *modules: str) -> bool:
    return options.peers and all(importlib.util.find_spec(module) for module in modules)


def _nni(space: str, **settings: Any) -> nn.Module:
    """A space of NNI's hub, made a supernet by its DARTS strategy.

    A step is then what the strategy's Lightning module does with a batch: forward, loss,
    and a backward that reaches weights and architecture.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was released for PyTorch 1 and 2.0
        hub: Any = importlib.import_module("nni.nas.hub.pytorch")
        strategy: Any = importlib.import_module("nni.nas.strategy")
        return strategy.DARTS().mutate_model(getattr(hub, space)(**settings))
