"""How the benchmarks measure: works side by side in one run, medians, memory at its highest.

A machine's speed drifts, so works that are compared take turns, and a ratio is the median
of the ratios turn by turn. pytest-benchmark and asv time works one after the other, which
cannot tell a difference of a few percent from drift; torch.utils.benchmark likewise.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import torch

import trinas

Work: TypeAlias = Callable[[], object]
Row: TypeAlias = dict[str, Any]
"""One line of a result. `ratio` beside `at_most` (or `speedup` beside `at_least`) is judged."""

PEERS = ("entmax", "nni")

SHORTEST = 5e-3
"""Seconds that one sample lasts at least; shorter works are repeated to fill them."""

COLD = 0.5
"""Works of `SHORTEST` to so many seconds run once unmeasured before each sample, and
`WARM_REPEATS` in it: the work before left the caches cold, which a loop of equal steps never
meets."""

WARM_REPEATS = 3


@attrs.frozen(kw_only=True)
class Options:
    """What the command line says.

    Attributes:
        device: where the works run.
        quick: small sizes and few runs, to see that everything works.
        runs: samples of each work.
        peers: other libraries, too, where they are installed.
    """

    device: torch.device = attrs.field(default=torch.device("cpu"), converter=torch.device)
    quick: bool = False
    runs: int = 9
    peers: bool = True

    @property
    def samples(self) -> int:
        """Samples of each work in this run."""
        return 2 if self.quick else self.runs


@attrs.frozen
class Samples:
    """Seconds of several works, sample by sample, taken in turn."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """Median seconds of one work."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """Median over the turns of the time of `name` as a multiple of that of `base`."""
        pairs = zip(self.seconds[name], self.seconds[base])
        return statistics.median(a / b for a, b in pairs)

    def with_sum(self, name: str, counts: Mapping[str, float]) -> Samples:
        """The same with one more work: the sum of others, turn by turn, each so many times."""
        columns = zip(*([n * t for t in self.seconds[part]] for part, n in counts.items()))
        return Samples({**self.seconds, name: [sum(column) for column in columns]})


def interleaved(works: Mapping[str, Work], options: Options, *, warmup: int = 2) -> Samples:
    """Time several works in turn.

    Works shorter than `SHORTEST` are repeated within a sample, other ones shorter than `COLD`
    run once before it and `WARM_REPEATS` in it. The garbage collector runs
    before each sample, not in it, and passes over what was there before the first one.
    """
    repeats: dict[str, int] = {}
    once: dict[str, float] = {}
    cold: dict[str, bool] = {}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    gc.collect()
    gc.freeze()  # or collecting takes longer than most works do
    try:
        for name, work in works.items():
            for _ in range(warmup):
                work()
            once[name] = _seconds(work, 1, options.device)
            cold[name] = SHORTEST < once[name] < COLD and not options.quick
            least = WARM_REPEATS if cold[name] else 1
            repeats[name] = 1 if options.quick else max(least, round(SHORTEST / once[name]))
        for _ in range(options.samples):
            for name, work in works.items():
                if cold[name]:
                    work()
                seconds[name].append(_seconds(work, repeats[name], options.device))
    finally:
        gc.unfreeze()
    return Samples(seconds)


def _seconds(work: Work, repeats: int, device: torch.device) -> float:
    gc.collect()
    gc.disable()
    try:
        synchronise(device)
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        synchronise(device)
        return (time.perf_counter() - start) / repeats
    finally:
        gc.enable()


def synchronise(device: torch.device) -> None:
    """Wait until the device is done; nothing on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_megabytes(make: Callable[[], Work], device: torch.device) -> float:
    """The most memory that a work holds beyond what was there before its first run, in MB.

    On the CPU `make` and the work run in a fresh process, whose highest resident memory is
    read from the system; on a GPU the allocator is asked. `make` can be pickled (a
    module-level function or a partial of one).
    """
    if device.type == "cuda":
        work = make()
        work()  # workspaces and optimiser states are there from now on
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    # Forked, that torch need not be imported each time, from a server that runs nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.measure", "trinas"])
    with context.Pool(1) as pool:
        return pool.apply(_resident_peak, (make, torch.get_num_threads()))


def _resident_peak(make: Callable[[], Work], threads: int) -> float:
    torch.set_num_threads(threads)
    work = make()
    _first_use()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the highest is from now on
    before = _resident("VmRSS")
    work()
    return (_resident("VmHWM") - before) / 1e3


def _first_use() -> None:
    """Bring in what torch loads when it first convolves and normalises, back and forth."""
    x = torch.zeros(2, 8, 8, 8, requires_grad=True)
    y = torch.nn.functional.conv2d(x, torch.zeros(8, 8, 3, 3, requires_grad=True), padding=1)
    torch.nn.functional.batch_norm(y, None, None, training=True).relu().sum().backward()


def _resident(key: str) -> int:
    """A figure of this process in kB, as Linux keeps it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise KeyError(key)


def facts(command: str) -> Row:
    """Where and with what the numbers were made."""
    return {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {
            "processor": _processor(),
            "system": f"{platform.machine()}, {platform.system()}",
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    """Of what is measured, and of the peers that are installed."""
    found = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]}
    found["trinas"] = trinas.__version__
    for peer in PEERS:
        with suppress(PackageNotFoundError):
            found[peer] = version(peer)
    return found


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def judged(row: Row) -> str:
    """``ok``, ``missed``, or nothing where the row has no bound."""
    if row.get("at_most") is not None:
        return "ok" if row["ratio"] <= row["at_most"] else "missed"
    if row.get("at_least") is not None:
        return "ok" if row["ratio"] >= row["at_least"] else "missed"
    return ""


def table(rows: Sequence[Row]) -> str:
    """The rows as text, one column for each key."""
    rows = [{**row, "judged": judged(row)} for row in rows]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [keys, *([_text(row.get(key)) for key in keys] for row in rows)]
    wide = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, wide)).rstrip() for line in cells)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save(folder: Path, name: str, command: str, rows: Sequence[Row]) -> None:
    """Write the rows and where they come from as ``<name>.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**facts(command), "rows": list(rows)}, indent=2)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
