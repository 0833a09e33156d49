"""The search step of the reference example on the device at hand: time, and share of its peak.

One step is `trinas.Search.advance`: three width passes for the weights, three for the
architecture, both updates. The operations and paths are all alive, as at the start of a
search. Arithmetic is counted by torch's `FlopCounterMode` (two per multiply-add); bytes are
those that every operator reads and writes, as if nothing stayed in a cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import trinas as tn
from benchmarks.measure import Options, Row, interleaved
from examples.sr_trilevel.space import backbone_b

PAPER_STEPS = 115_000
PEAKS = {  # dense bf16 operations and bytes a second, from the makers' data sheets
    "H200": (989e12, 4.8e12),
    "H100": (989e12, 3.35e12),
    "A100": (312e12, 2.0e12),
    "L40S": (362e12, 0.864e12),
}
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def measure(options: Options) -> list[Row]:
    """One row for each batch size and way of running."""
    batches = (1, 2) if options.quick else (3, 48)
    if options.device.type == "cpu" and not options.quick:  # minutes a step at 48
        batches, options = (3,), attrs.evolve(options, runs=min(3, options.runs))
    rows = []
    for batch in batches:
        for name, settings in ways(options.device).items():
            search = make_search(options, batch, **settings)
            rows.append({"case": f"batch {batch}, {name}", **facts(search, options)})
    return rows


def ways(device: torch.device) -> dict[str, dict[str, Any]]:
    """How a step can be run; the last ones are of use on an accelerator only."""
    plain = {"float32": {}, "bf16": {"autocast": torch.bfloat16}}
    if device.type != "cuda":
        return plain
    return {
        **plain,
        "bf16, compiled": {"autocast": torch.bfloat16, "compiled": {}},
        "bf16, CUDA graphs": {
            "autocast": torch.bfloat16,
            "compiled": {"mode": "reduce-overhead"},
        },
    }


def make_search(
    options: Options,
    batch: int,
    *,
    autocast: torch.dtype | None = None,
    compiled: dict[str, Any] | None = None,
) -> tn.Search:
    """The reference search: 64 channels, five cells and two convolutions, 32x32 patches."""
    torch.manual_seed(0)
    if options.quick:
        space, side = backbone_b(8, slots=1, cells=1, convs=1), 8
    else:
        space, side = backbone_b(), 32
    net = tn.compile_supernet(tn.lower(space, (3, side, side))).to(options.device)
    if compiled is not None:
        net.compile(**compiled)
    x = torch.rand(batch, 3, side, side, device=options.device)
    y = torch.rand(batch, 3, 4 * side, 4 * side, device=options.device)
    config = tn.SearchConfig(search_steps=10**6, autocast=autocast)  # the radius stays at zero
    return tn.Search(net, F.l1_loss, lambda _: (x, y), lambda _: (x, y), config)


def facts(search: tn.Search, options: Options) -> Row:
    """Time, arithmetic and traffic of a step, and how often the host waits in it."""
    seconds = interleaved({"step": search.advance}, options).median("step")
    with FlopCounterMode(display=False) as flops:
        search.advance()
    with Traffic() as traffic:
        search.advance()
    operations = flops.get_total_flops()
    peak = next((p for name, p in PEAKS.items() if name in device_name(options.device)), None)
    return {
        "milliseconds": 1e3 * seconds,
        "hours for 115,000 steps": PAPER_STEPS * seconds / 3600,
        "TFLOP/s": operations / seconds / 1e12,
        "share of bf16 peak": None if peak is None else operations / seconds / peak[0],
        "GB/s": traffic.count / seconds / 1e9,
        "share of bandwidth": None if peak is None else traffic.count / seconds / peak[1],
        "host waits": waits(search.advance) if options.device.type == "cuda" else None,
    }


def device_name(device: torch.device) -> str:
    """What the accelerator calls itself; nothing on the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def waits(work: Callable[[], object]) -> int:
    """How often the host waits for the device in `work`, by the profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
    return sum(event.count for event in profile.key_averages() if event.key in WAITS)


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator and add up what it touched."""
        result = func(*args, **(kwargs or {}))
        with contextlib.suppress(RuntimeError):  # what has no storage moves nothing
            inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
            known = {t.untyped_storage().data_ptr() for t in inputs}
            outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
            fresh = [t for t in outputs if t.untyped_storage().data_ptr() not in known]
            if fresh or not outputs or func._schema.is_mutable:
                self.count += sum(t.numel() * t.element_size() for t in (*inputs, *outputs))
        return result
