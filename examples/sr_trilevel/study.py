"""Run several recipes with several seeds, and put down what they say together.

    python -m examples.sr_trilevel.study tiny --data T91 --sets Set5 Set14

RECIPE is SIZE/VARIANT, or a size for all its variants (visual wants --features). Every recipe
gets one file in the folder of results, with the command, the date and the hardware beside all
numbers. A run that is finished is not run again, and one that was interrupted goes on: on a
machine that is lent for a while the same command with --minutes, given again, comes to the end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs

import trinas as tn
from examples.sr_trilevel.checkpoint import CHECKPOINT
from examples.sr_trilevel.command import (
    INTERRUPTED,
    device_named,
    ending,
    environment,
    parser_of,
)
from examples.sr_trilevel.recipes import VARIANTS, find_recipe

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "study"


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 0, or 2 after an error, or 130 when interrupted."""
    options = _parser().parse_args(arguments)
    return ending(lambda: _go(options), lambda: "interrupted: the same command goes on")


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("study", __doc__)
    add = parser.add_argument
    add("recipes", metavar="RECIPE", nargs="+", help="see below")
    add("--seeds", metavar="N", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    add("--data", metavar="DIR", help="as for run.py")
    add("--sets", metavar="DIR", nargs="+", default=[], help="as for run.py")
    add("--teacher", metavar="FILE", help="as for run.py")
    add("--teacher-cache", metavar="DIR", help="as for run.py")
    add("--features", metavar="FILE", help="as for run.py")
    add("--skip-bad", action="store_true", help="as for run.py")
    add("--device", metavar="NAME", help="as for run.py")
    add("--compile", action="store_true", help="as for run.py")
    add("--out", metavar="DIR", default="runs/study", help="folder of all runs (runs/study)")
    add("--results", metavar="DIR", default=str(RESULTS), help="folder of what is put down")
    add("--minutes", type=float, default=math.inf, help="stop after so long; see above")
    add("--jobs", type=int, default=1, help="runs at a time, one thread each (default: 1)")
    return parser


@attrs.frozen
class Job:
    """One run: a recipe, a seed, and the folder it leaves its results in."""

    recipe: str
    seed: int
    folder: Path


def recipes_of(names: Sequence[str], *, features: bool = False) -> list[str]:
    """Recipes by name, a size standing for all its variants (one is the method as published).

    Args:
        names: of recipes or sizes.
        features: whether there is a file of features; without, a size stands for no variant that
            wants one.

    Raises:
        UnknownNameError: there is no such recipe.

    >>> recipes_of(["tiny/softmax"]), len(recipes_of(["tiny"], features=True)) == len(VARIANTS)
    (['tiny/softmax'], True)
    """
    found = []
    for name in names:
        find_recipe(name)
        every = [name] if "/" in name else [f"{name}/{variant}" for variant in VARIANTS]
        given = features or "/" in name
        found += [one for one in every if given or not find_recipe(one).loss.perceptual]
    return list(dict.fromkeys(found))


def _go(options: argparse.Namespace) -> None:
    _check(options)
    now = _Now(end=time.monotonic() + 60 * options.minutes)
    recipes = recipes_of(options.recipes, features=options.features is not None)
    out, results = Path(options.out), Path(options.results)
    results.mkdir(parents=True, exist_ok=True)
    jobs = {
        recipe: [Job(recipe, seed, out / _file(recipe) / str(seed)) for seed in options.seeds]
        for recipe in recipes
    }
    with ThreadPoolExecutor(options.jobs) as pool:
        pending = {
            recipe: [pool.submit(_run, job, options, now) for job in of_recipe]
            for recipe, of_recipe in jobs.items()
        }
        for recipe, futures in pending.items():
            try:
                seconds = [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in list(now.running):
                    child.terminate()  # leaves a checkpoint to go on from
                raise
            record = {**_facts(options, recipe, jobs[recipe]), "runs": []}
            for job, took in zip(jobs[recipe], seconds):
                record["runs"].append({"seconds": took, **_told(job.folder)})
            path = results / f"{_file(recipe)}.json"
            path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
            print(f"{recipe}: {line_of(record)}", flush=True)


def _check(options: argparse.Namespace) -> None:
    if len(set(options.seeds)) < len(options.seeds):
        raise tn.errors.ConfigError(
            "every seed of a study is another", got=" ".join(map(str, options.seeds)), at="--seeds"
        )
    if options.jobs < 1:
        raise tn.errors.ConfigError("there is at least one job", got=options.jobs, at="--jobs")


def _file(recipe: str) -> str:
    return recipe.replace("/", "-")


@attrs.define
class _Now:
    """What the runs of a study know of each other.

    Attributes:
        end: of the time they have.
        running: their processes.
        over: one of them failed or was interrupted, so no other begins.
    """

    end: float
    running: set[subprocess.Popen[bytes]] = attrs.field(factory=set)
    over: bool = False


def _run(job: Job, options: argparse.Namespace, now: _Now) -> float:
    """Do a run, or what is left of it; the seconds it took in all.

    Raises:
        ConfigError: the run failed.
        KeyboardInterrupt: it was interrupted, or the time is over.
    """
    try:
        return _go_on(job, options, now)
    except BaseException:
        now.over = True
        raise


def _go_on(job: Job, options: argparse.Namespace, now: _Now) -> float:
    job.folder.mkdir(parents=True, exist_ok=True)
    clock = job.folder / "seconds"
    before = float(clock.read_text()) if clock.exists() else 0.0
    if (job.folder / "results.json").exists():
        _check_settings(job, options)
        return before
    left = (now.end - time.monotonic()) / 60
    if now.over or left <= 0:
        raise KeyboardInterrupt
    command = [sys.executable, "-m", "examples.sr_trilevel.run", job.recipe]
    command += ["--seed", str(job.seed), "--out", str(job.folder)]
    for name in ("data", "teacher", "teacher_cache", "features", "device"):
        value = getattr(options, name)
        command += [f"--{name.replace('_', '-')}", value] if value is not None else []
    command += ["--sets", *options.sets] if options.sets else []
    command += ["--skip-bad"] if options.skip_bad else []
    command += ["--compile"] if options.compile else []
    command += ["--minutes", str(left)] if math.isfinite(left) else []
    command += ["--resume"] if (job.folder / CHECKPOINT).exists() else []
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    surroundings = {**os.environ, **(one if options.jobs > 1 else {})}
    started = time.monotonic()
    with (job.folder / "log.txt").open("a", encoding="utf-8") as log:
        # In a session of its own, Ctrl-C does not reach it: it is asked to stop once, by us. A
        # second time would mean at once.
        child = subprocess.Popen(
            command, stdout=log, stderr=log, env=surroundings, start_new_session=True
        )
        now.running.add(child)
        status = child.wait()
        now.running.discard(child)
    took = before + time.monotonic() - started
    clock.write_text(f"{took:.0f}\n", encoding="utf-8")
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status != 0:
        last = (job.folder / "log.txt").read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise tn.errors.ConfigError(
            "every run of a study comes to its end",
            got="".join(last) or f"exit status {status}",
            at=f"{job.recipe}, seed {job.seed}",
            fix=f"See {job.folder / 'log.txt'}; the same command goes on from there.",
        )
    return took


def _check_settings(job: Job, options: argparse.Namespace) -> None:
    """Refuse to take the results of a run with other settings for those of this study.

    Raises:
        ConfigError: naming the first that differs.
    """
    found = _read(job.folder / "config.json")
    wanted = {
        "recipe": json.loads(find_recipe(job.recipe).to_json()),
        "seed": job.seed,
        "data": options.data,
        "sets": list(options.sets),
        "teacher": options.teacher,
        "features": options.features,
    }
    for name, value in wanted.items():
        if found.get(name) != value:
            shown = "another" if name == "recipe" else repr(found.get(name))
            raise tn.errors.ConfigError(
                f"a finished run of a study has its {name}",
                got=f"{shown} instead of {'its own' if name == 'recipe' else repr(value)}",
                at=job.folder,
                fix="Use another --out, or remove the folder of the run.",
            )


def _read(file: Path) -> dict[str, Any]:
    """A JSON file that a run left.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise tn.errors.CheckpointError(
            "a run leaves its settings and results as JSON",
            got=str(error),
            at=file,
            fix="Remove the folder of the run; the study does it again.",
        ) from None


def _told(folder: Path) -> dict[str, Any]:
    """What a run left, as far as tables want to know it."""
    results = _read(folder / "results.json")
    rows = {row.pop("name"): row for row in results.pop("rows")}
    return {
        **{key: results[key] for key in ("seed", "path", "one_hot", "entropy")},
        "steps": [results["search_steps"], results["train_steps"]],
        "difference": results["supernet_minus_derived"],
        "held_out": len(results["held_out"]),
        "stages": rows,
        "genotype": _read(folder / "genotype.json"),
        "curve": results["curve"],
        # Runs of earlier versions left none.
        **({"timing": _read(timing)} if (timing := folder / "timing.json").exists() else {}),
    }


def _facts(options: argparse.Namespace, recipe: str, jobs: Sequence[Job]) -> dict[str, Any]:
    """Where the numbers come from: the command, of folders their names alone, and what runs say."""
    given = [f"--seeds {' '.join(map(str, options.seeds))}"]
    for name in ("data", "teacher", "teacher_cache", "features", "device"):
        value = getattr(options, name)
        given += [f"--{name.replace('_', '-')} {Path(value).name}"] if value is not None else []
    given += [f"--sets {' '.join(Path(s).name for s in options.sets)}"] if options.sets else []
    given += ["--skip-bad"] if options.skip_bad else []
    given += ["--compile"] if options.compile else []
    given += [f"--jobs {options.jobs}"] if options.jobs > 1 else []
    # Runs of earlier versions do not say it.
    now = environment(device_named(options.device))
    told = [_read(job.folder / "config.json").get("environment", now) for job in jobs]
    places = {key: ", ".join(dict.fromkeys(one[key] for one in told)) for key in now}
    line = f"python -m examples.sr_trilevel.study {recipe} {' '.join(given)}"
    return {"recipe": recipe, "command": line, **places}


# -- what runs say together ----------------------------------------------------------------


@attrs.frozen
class Mean:
    """Mean and standard deviation over seeds.

    >>> print(Mean.of([1.0, 2.0, 3.0]), Mean.of([1.0]))
    2.00 ± 1.00 1.00
    """

    mean: float
    spread: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of one number for every seed."""
        spread = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), spread)

    def __str__(self) -> str:
        """With two decimals."""
        return f"{self.mean:.2f}" + ("" if self.spread is None else f" ± {self.spread:.2f}")


def scores(record: Mapping[str, Any], stage: str, name: str | None = None) -> Mean | None:
    """PSNR of a stage over the seeds, in dB; None where a run has no such stage.

    Args:
        record: of a recipe.
        stage: ``supernet``, ``derived``, ``trained`` or ``bicubic``.
        name: of a set of pictures; those held out where None.
    """
    rows = [run["stages"].get(stage) for run in record["runs"]]
    if any(row is None or (name is not None and name not in row["sets"]) for row in rows):
        return None
    return Mean.of([row["psnr"] if name is None else row["sets"][name]["psnr"] for row in rows])


def gap(record: Mapping[str, Any]) -> Mean | None:
    """How much PSNR the network loses that the supernet had, in dB: the discretisation gap."""
    stages = [run["stages"] for run in record["runs"]]
    if any("supernet" not in rows for rows in stages):
        return None
    return Mean.of([rows["supernet"]["psnr"] - rows["derived"]["psnr"] for rows in stages])


def entropy(record: Mapping[str, Any], which: str) -> Mean | None:
    """Of ``alpha`` or ``beta`` at the end of the search, as a share of the largest."""
    found = [run["entropy"] for run in record["runs"]]
    return None if None in found else Mean.of([values[which] for values in found])


def length(record: Mapping[str, Any]) -> Mean:
    """Blocks on the path."""
    return Mean.of([len(run["path"].split("-")) for run in record["runs"]])


def line_of(record: Mapping[str, Any]) -> str:
    """The most important in one line."""
    trained = scores(record, "trained")
    parts = [
        f"{trained} dB",
        f"gap {gap(record)} dB",
        f"entropy {entropy(record, 'alpha')}, {entropy(record, 'beta')}",
        f"paths {', '.join(run['path'] for run in record['runs'])}",
        f"{math.ceil(sum(run['seconds'] for run in record['runs']) / 60)} min",
    ]
    return "; ".join(parts)


def load_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """What was put down, by recipe."""
    files = sorted(folder.glob("*.json"))
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return {record["recipe"]: record for record in records}


if __name__ == "__main__":
    sys.exit(main())
