"""What a run shows while it goes, and what it leaves in its folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

import trinas as tn
from examples.sr_trilevel.imaging import bicubic, shrink, to_uint8, to_unit
from examples.sr_trilevel.metrics import Score
from examples.sr_trilevel.picture import side_by_side

SECONDS_BETWEEN_SAVES = 30.0
LINES_PER_STAGE = 12


class Progress:
    """A line per stretch of steps: phase, time left, PSNR, radius, loss.

    On a terminal the line is rewritten in place; in a log each one stays.

    Args:
        psnr: measures the network as it stands.
    """

    def __init__(self, psnr: Callable[[], float]) -> None:
        self._psnr = psnr
        self._saved = time.monotonic()

    def follow(self, reports: Iterable[tn.StepReport]) -> Iterator[tn.StepReport]:
        """Pass reports on, printing some of them."""
        started, first = time.monotonic(), None
        phase = None
        for report in reports:
            if phase != report.phase:
                phase, started, first = report.phase, time.monotonic(), report.step - 1
            every = -(-report.total // LINES_PER_STAGE)
            if report.step % every == 0 or report.step == report.total:
                seconds = (time.monotonic() - started) / max(1, report.step - (first or 0))
                self._print(report, seconds * (report.total - report.step))
            yield report

    def _print(self, report: tn.StepReport, left: float) -> None:
        parts = [
            f"{report.phase:>8} {report.step:>6}/{report.total}",
            f"left {_clock(left)}",
            f"PSNR {self._psnr():5.2f} dB",
            f"loss {report.loss:.4f}",
        ]
        if report.phase == "search":
            alive = report.spread["operation"].alive
            parts[3:3] = [f"radius {report.progress:.2f}", f"alive {alive:4.0%}"]
            parts.append(f"cost {report.cost:.2f}")
        line = "  ".join(parts)
        if sys.stdout.isatty() and report.step != report.total:
            print(f"\r{line:<100}", end="", flush=True)
        else:
            print(f"\r{line}" if sys.stdout.isatty() else line, flush=True)

    def time_to_save(self) -> bool:
        """Whether it is time for a checkpoint; then the clock starts anew."""
        now = time.monotonic()
        if now - self._saved < SECONDS_BETWEEN_SAVES:
            return False
        self._saved = now
        return True


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


@attrs.frozen
class Row:
    """One line of the table of results.

    Attributes:
        name: the stage.
        psnr: dB, under `protocol`.
        ssim: under `protocol`.
        params: numbers that are trained.
        macs: multiply-adds for a 256x256 input; None where it depends.
        protocol: how the scores were taken.
    """

    name: str
    psnr: float
    ssim: float
    params: int
    macs: int | None
    protocol: str

    @classmethod
    def of(cls, name: str, score: Score, params: int, macs: int | None) -> Row:
        """A row from a score."""
        protocol = score.protocol.line(score.scale)
        return cls(name, round(score.psnr, 3), round(score.ssim, 4), params, macs, protocol)


def write_table(out: Path, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write ``results.json`` and ``results.md``."""
    data = {**facts, "rows": [attrs.asdict(row) for row in rows]}
    (out / "results.json").write_text(json.dumps(data, indent=2) + "\n")
    lines = [
        "| network | PSNR (dB) | gain | SSIM | parameters | MACs at 256x256 |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        macs = "-" if row.macs is None else f"{row.macs / 1e9:.3f} G"
        gain = row.psnr - rows[0].psnr
        lines.append(
            f"| {row.name} | {row.psnr:.2f} | {gain:+.2f} | {row.ssim:.4f} "
            f"| {row.params:,} | {macs} |"
        )
    lines += [
        "",
        f"Held out: {', '.join(facts['held_out'])}. Protocol: {rows[0].protocol}.",
        f"Path {facts['path']}; alpha one-hot: {_yes(facts['one_hot']['alpha'])}, "
        f"beta one-hot: {_yes(facts['one_hot']['beta'])}; "
        f"supernet and derived network differ by at most {facts['supernet_minus_derived']:.1e}.",
        "",
    ]
    (out / "results.md").write_text("\n".join(lines))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def write_pictures(
    out: Path,
    genotype: tn.Genotype,
    model: nn.Module,
    held_out: Mapping[str, Tensor],
    rows: Sequence[Row],
    scale: int,
) -> None:
    """Draw the genotype, and put LR, bicubic, result and HR of one picture side by side."""
    drawing = tn.draw(genotype)
    try:
        drawing.render(out / "arch.svg")
    except tn.TrinasError as error:
        (out / "arch.dot").write_text(drawing.dot)
        print(f"arch.dot instead of arch.svg: {error}")
    name = sorted(held_out)[0]
    lr, hr = shrink(held_out[name], scale)
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        result = to_uint8(model(to_unit(lr)[None].to(device))[0].cpu())
    enlarged = to_uint8(bicubic(scale)(to_unit(lr)[None])[0])
    by_name = {row.name: row.psnr for row in rows}
    side_by_side(
        lr,
        enlarged,
        result,
        hr,
        labels=("LR", "bicubic", "trinas", "HR"),
        psnrs=(None, by_name["bicubic"], by_name["trained"], None),
    ).save(out / f"{name}.png")
