"""Benchmarks: what there is, their tables, methods scored against them.

    python -m trinas.bench list                     benchmarks and methods
    python -m trinas.bench build digits             train every network of a table alone
    python -m trinas.bench describe                 what the tables say
    python -m trinas.bench run digits --seeds 10    every method, ten seeds, one record each
    python -m trinas.bench table                    what the records say

Everything goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from trinas.bench import describe, picture, report, runner
from trinas.bench.catalogue import DATA, load, names, table_problem, tables
from trinas.bench.methods import BASELINES, METHODS, Allowance
from trinas.bench.table import fill

RUNS = Path("runs/bench")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _processor() -> str:
    """The kind of processor, as the system names it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def origin(arguments: Sequence[str]) -> dict[str, str]:
    """What made a file: the command, the date, the kind of hardware, the versions."""
    return {
        "command": shlex.join(["python", "-m", "trinas.bench", *arguments]),
        "date": datetime.date.today().isoformat(),
        "hardware": f"1 thread, {_processor()}",
        "torch": torch.__version__.partition("+")[0],
    }


def _build(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    for name in given.names or [name for name, _ in tables()]:
        problem = table_problem(name)
        path = given.out / f"{name}.json"
        made = origin(arguments)
        for genotype, trained in fill(problem, path, seeds=range(given.seeds), origin=made):
            scores = " ".join(f"{one.measured.test:.3f}" for one in trained)
            _say(f"{name}: {dict(genotype)}: {scores}")


def _list(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    _say("benchmarks: " + " ".join(names()))
    _say("tables: " + " ".join(name for name, _ in tables()))
    _say("methods: " + " ".join(METHODS))
    _say("baselines, at the cost of each method: " + " ".join(BASELINES))


def _describe(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    if given.page is not None:
        text = given.page.read_text(encoding="utf-8")
        records = [] if given.records is None else runner.read(given.records)
        given.page.write_text(describe.fill_page(text, records), encoding="utf-8")
    else:
        for part in describe.PARTS.values():
            _say(part() + "\n")


def _run(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    if given.plugin:
        importlib.import_module(given.plugin)
    allowance = Allowance(pretrain_steps=given.pretrain, search_steps=given.steps)
    for name in given.names:
        records = runner.run(
            load(name, given.data),
            given.out / f"{name.replace('/', '-')}.jsonl",
            methods=given.methods or [*METHODS],
            baselines=[*BASELINES] if given.baselines is None else given.baselines,
            seeds=range(given.seeds),
            allowance=allowance,
            origin=origin(arguments),
        )
        for record in records:
            beside = f" at the cost of {record.against}" if record.against else ""
            _say(
                f"{name}, seed {record.seed}: {record.method}{beside}: "
                f"regret {record.regret:.4f}, percentile {record.percentile:.1f}"
            )


def _table(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    records = runner.read(given.out)
    _say(report.tables(records))
    if given.pictures is not None:
        given.pictures.mkdir(parents=True, exist_ok=True)
        for name, groups in report.grouped(records).items():
            file = given.pictures / f"{name.replace('/', '-')}.svg"
            file.write_text(picture.svg(name, groups), encoding="utf-8")
            _say(f"wrote {file}")


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    whole = argparse.ArgumentParser(
        prog="python -m trinas.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(required=True)
    listed = commands.add_parser("list", help="benchmarks, tables, methods")
    listed.set_defaults(do=_list)
    described = commands.add_parser("describe", help="what the tables say")
    described.add_argument("--page", type=Path, help="write it into this page, between its marks")
    described.add_argument("--records", type=Path, help="folder of records that it tells of, too")
    described.set_defaults(do=_describe)
    build = commands.add_parser("build", help="train every network of a table alone")
    build.add_argument("names", nargs="*", metavar="table", help="all where none is given")
    build.add_argument("--out", type=Path, default=DATA, help="folder of the tables")
    build.add_argument("--seeds", type=int, default=3)
    build.set_defaults(do=_build)
    run = commands.add_parser("run", help="score methods, and the baselines at their cost")
    run.add_argument("names", nargs="+", metavar="benchmark")
    run.add_argument("--plugin", help="a module that registers methods as it is imported")
    run.add_argument("--methods", nargs="+", help="all where not given")
    run.add_argument("--baselines", nargs="*", help="all where not given")
    run.add_argument("--seeds", type=int, default=10)
    run.add_argument("--pretrain", type=int, default=80, help="pretraining steps of a method")
    run.add_argument("--steps", type=int, default=260, help="search steps of a method")
    run.add_argument("--out", type=Path, default=RUNS, help="folder of the records")
    run.add_argument("--data", type=Path, help="file of NAS-Bench-201's table")
    run.set_defaults(do=_run)
    table = commands.add_parser("table", help="what the records say")
    table.add_argument("--out", type=Path, default=RUNS, help="folder of the records")
    table.add_argument("--pictures", type=Path, help="folder for a picture of each benchmark")
    table.set_defaults(do=_table)
    return whole


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the arguments say; by default those of the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    given = parser().parse_args(arguments)
    torch.set_num_threads(1)
    given.do(given, arguments)
