"""What a run shows while it goes, and what it leaves in its folder."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor, nn

import trinas as tn
from examples.sr_trilevel.imaging import bicubic, shrink, to_uint8, to_unit
from examples.sr_trilevel.metrics import Score, psnr
from examples.sr_trilevel.picture import side_by_side
from examples.sr_trilevel.writing import writing

Report: TypeAlias = tn.StepReport | tn.SampleReport

LINES_PER_STAGE = 12
LONGEST_SILENCE = 300.0
SECONDS_BETWEEN_SAVES = 30.0
SECONDS_BETWEEN_UPDATES = 0.5

FILES = (
    "config.json",
    "genotype.json",
    "arch.svg",
    "arch.dot",
    "results.json",
    "results.md",
    "timing.json",
    "comparison.png",
)
"""Everything a run may leave in its folder besides the checkpoint."""


class Progress:
    """A line now and then: phase, step, time left, PSNR; in a search radius, sparsity and cost.

    In a log there is a line for every twelfth of a stage, and after five silent minutes. On a
    terminal one line is rewritten in place, and stays when its phase is over. PSNR is measured
    twelve times in a stage; what a line shows in between is the last.

    Args:
        psnr: measures the network as it stands, in dB.
        radius: share of the circumradius, of the share of the search done.

    Attributes:
        curve: phase, step and PSNR of every measurement.
        timing: by phase the steps that were made and the seconds that they took, which
            measuring and saving are not part of.
    """

    def __init__(self, psnr: Callable[[], float], radius: Callable[[float], float]) -> None:
        self.curve: list[list[Any]] = []
        self.timing: dict[str, dict[str, float]] = {}
        self._psnr = psnr
        self._radius = radius
        self._saved = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._open = False

    def follow(self, reports: Iterable[Report], name: str | None = None) -> Iterator[Report]:
        """Pass reports on, printing some of them.

        Args:
            reports: of one stage.
            name: of its phase, where another than the reports give.
        """
        phase, first = "", 0
        started = spoken = begun = time.monotonic()
        measured = math.nan
        for report in reports:
            now = time.monotonic()
            due = report.step % -(-report.total // LINES_PER_STAGE) == 0
            due = due or report.step == report.total
            silence = SECONDS_BETWEEN_UPDATES if self._terminal else LONGEST_SILENCE
            shown = due or now - spoken > silence
            if shown or self._saving_is_due(now):
                # An accelerator has steps queued: waiting for them is their time, not that of
                # what comes next.
                float(report.loss)
                now = time.monotonic()
            now_in = name or report.phase
            self._count(now_in, now - begun)
            if phase != now_in:
                self.close()
                # The first step of a phase is its slowest: what it took stands for no other.
                phase, started, first = now_in, now, report.step
            if due:
                measured = self._psnr()
                self.curve.append([phase, report.step, round(measured, 3)])
            if shown:
                done, left = report.step - first, report.total - report.step
                seconds = (now - started) / done * left if done else math.nan
                self._print(self._line(phase, report, seconds if left else 0.0, measured))
                spoken = now
            yield report
            begun = time.monotonic()
        self.close()

    def _count(self, phase: str, seconds: float) -> None:
        of_phase = self.timing.setdefault(phase, {"steps": 0, "seconds": 0.0})
        of_phase["steps"] += 1
        of_phase["seconds"] += seconds

    def close(self) -> None:
        """Leave the line on the terminal as it stands and begin another."""
        if self._open:
            print(flush=True)
        self._open = False

    def time_to_save(self) -> bool:
        """Whether it is time for a checkpoint; then the clock starts anew."""
        now = time.monotonic()
        due = self._saving_is_due(now)
        if due:
            self._saved = now
        return due

    def _saving_is_due(self, now: float) -> bool:
        return now - self._saved >= SECONDS_BETWEEN_SAVES

    def _line(self, phase: str, report: Report, left: float, psnr: float) -> str:
        parts = [
            f"{phase:>8} {report.step:>{len(str(report.total))}}/{report.total}",
            f"left {_clock(left)}",
            f"PSNR {psnr:5.2f} dB",
        ]
        if isinstance(report, tn.StepReport) and phase == "search":
            parts.append(f"radius {self._radius(report.progress):.2f}")
            if "operation" in report.spread:
                parts.append(f"alive {report.spread['operation'].alive:4.0%}")
            if not math.isnan(report.cost):
                parts.append(f"cost {report.cost:.2f}")
        return "  ".join([*parts, f"loss {report.loss:.4f}"])

    def _print(self, line: str) -> None:
        if not self._terminal:
            print(line, flush=True)
            return
        # A line that wraps cannot be rewritten.
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:width]:<{width}}", end="", flush=True)
        self._open = True


def _clock(seconds: float) -> str:
    if math.isnan(seconds):
        return "--:--"
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
        macs: multiply-adds for a 256x256 input; None for what has no one number.
        protocol: how the scores were taken.
        sets: PSNR and SSIM on further sets of pictures, by name.
    """

    name: str
    psnr: float
    ssim: float
    params: int
    macs: int | None
    protocol: str
    sets: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict)

    @classmethod
    def of(
        cls, name: str, score: Score, params: int, macs: int | None, sets: Mapping[str, Score]
    ) -> Row:
        """A row from the scores on the pictures held out and on further sets."""
        own = _rounded(score)
        protocol = score.protocol.line(score.scale)
        others = {folder: _rounded(s) for folder, s in sets.items()}
        return cls(name, own["psnr"], own["ssim"], params, macs, protocol, others)


def _rounded(score: Score) -> dict[str, float]:
    return {"psnr": round(score.psnr, 3), "ssim": round(score.ssim, 4)}


def write_table(out: Path, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write ``results.json`` and ``results.md``."""
    sets = list(rows[0].sets)
    heads = ["network", "PSNR (dB)", "gain", "SSIM", *sets, "parameters", "MACs at 256x256"]
    lines = [_cells(heads), _cells(["---"] * len(heads))]
    for row in rows:
        macs = "-" if row.macs is None else f"{row.macs / 1e9:.3f} G"
        gain = f"{row.psnr - rows[0].psnr:+.2f}"
        on_sets = [f"{row.sets[name]['psnr']:.2f}" for name in sets]
        scores = [f"{row.psnr:.2f}", gain, f"{row.ssim:.4f}", *on_sets]
        lines.append(_cells([row.name, *scores, f"{row.params:,}", macs]))
    steps = f"{facts['search_steps']:,} steps of search and {facts['train_steps']:,} of training"
    if facts["finetune_steps"]:
        steps += f", {facts['finetune_steps']:,} of fine-tuning behind it"
    target = facts["teacher"] or "the HR picture"
    lines += [
        "",
        f"Recipe {facts['recipe']}, seed {facts['seed']}: {steps}; target: {target}.",
        f"Held out: {_listed(facts['held_out'])}. Protocol: {rows[0].protocol}.",
        f"Path {facts['path']}{_convergence(facts)}.",
        "",
    ]
    (out / "results.md").write_text("\n".join(lines), encoding="utf-8")
    data = _finite({**facts, "rows": [attrs.asdict(row) for row in rows]})
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    with writing(out / "results.json") as aside:  # the last: it tells that a run is finished
        aside.write_text(text, encoding="utf-8")


def write_timing(out: Path, timing: Mapping[str, Mapping[str, float]], device: str) -> None:
    """Write ``timing.json``: what two equal runs do not have in common."""
    phases = {
        phase: {"steps": int(of["steps"]), "seconds": round(of["seconds"], 1)}
        for phase, of in timing.items()
    }
    data = {"device": device, "threads": torch.get_num_threads(), "phases": phases}
    (out / "timing.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON has not, such as the PSNR of equal pictures."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _convergence(facts: Mapping[str, Any]) -> str:
    """How far the search settled; nothing for a search that has no weights of options."""
    one_hot = facts["one_hot"]
    if one_hot is None:
        return ""
    return (
        f"; alpha one-hot: {_yes(one_hot['alpha'])}, beta one-hot: {_yes(one_hot['beta'])}; "
        f"supernet and derived network differ by at most {facts['supernet_minus_derived']:.1e}"
    )


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" * (len(names) > most)
    return ", ".join(names[:most]) + more


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def write_pictures(
    out: Path,
    genotype: tn.Genotype,
    model: nn.Module,
    held_out: Mapping[str, Tensor],
    scale: int,
) -> None:
    """Draw the genotype, and put LR, bicubic, result and HR of one picture side by side.

    The PSNR under them is that of this picture, in the default protocol.
    """
    drawing = tn.draw(genotype)
    try:
        drawing.render(out / "arch.svg")
    except tn.TrinasError as error:
        (out / "arch.dot").write_text(drawing.dot, encoding="utf-8")
        print(f"arch.dot instead of arch.svg: {error}")
    name = sorted(held_out)[0]
    lr, hr = shrink(held_out[name], scale)
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        result = to_uint8(model(to_unit(lr)[None].to(device))[0].cpu())
    enlarged = to_uint8(bicubic(scale)(to_unit(lr)[None])[0])
    side_by_side(
        lr,
        enlarged,
        result,
        hr,
        labels=("LR", "bicubic", "trinas", "HR"),
        psnrs=(None, psnr(enlarged, hr, shave=scale), psnr(result, hr, shave=scale), None),
    ).save(out / "comparison.png")
