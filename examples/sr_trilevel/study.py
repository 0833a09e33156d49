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
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
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
    minutes,
    parser_of,
)
from examples.sr_trilevel.recipes import VARIANTS, find_recipe
from examples.sr_trilevel.records import (
    RESULTS,
    joined,
    line_of,
    load_record,
    load_results,
    placed,
    read_json,
    record_file,
    require_alike,
    told,
)
from examples.sr_trilevel.writing import writing


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
    add(
        "--results",
        metavar="DIR",
        default=str(RESULTS),
        help="folder of what is put down (default: docs/results/study, where tables look)",
    )
    add("--minutes", type=minutes, default=math.inf, help="stop after so long; see below")
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
    known = load_results(results)
    facts = {recipe: _facts(options, recipe) for recipe in recipes}
    for recipe in known.keys() & facts.keys():
        require_alike(known[recipe], facts[recipe])
    jobs = {
        recipe: [
            Job(recipe, seed, out / recipe.replace("/", "-") / str(seed)) for seed in options.seeds
        ]
        for recipe in recipes
    }
    with ThreadPoolExecutor(options.jobs) as pool:
        pending = {
            recipe: [pool.submit(_run, job, options, now) for job in of_recipe]
            for recipe, of_recipe in jobs.items()
        }
        try:
            for recipe, futures in pending.items():
                seconds = [future.result() for future in futures]
                here = environment(device_named(options.device))
                runs = [told(j.folder, took, here) for j, took in zip(jobs[recipe], seconds)]
                record = {**facts[recipe], "runs": runs}
                file = record_file(results, recipe)
                # As it is by now: another study may have put down runs of other seeds.
                record = joined(load_record(file), record) if file.exists() else placed(record)
                with writing(file) as aside:
                    aside.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
                print(f"{recipe}: {line_of(record)}", flush=True)
        except BaseException:
            now.over = True
            pool.shutdown(wait=False, cancel_futures=True)
            for child in list(now.running):
                child.terminate()  # leaves a checkpoint to go on from
            raise
    print(f"put down in {results}")


def _check(options: argparse.Namespace) -> None:
    if len(set(options.seeds)) < len(options.seeds):
        raise tn.errors.ConfigError(
            "every seed of a study is another", got=" ".join(map(str, options.seeds)), at="--seeds"
        )
    if options.jobs < 1:
        raise tn.errors.ConfigError("there is at least one job", got=options.jobs, at="--jobs")


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
    before = _seconds(clock)
    if (job.folder / "results.json").exists():
        _check_settings(job, options)
        return before
    left = (now.end - time.monotonic()) / 60
    if now.over or left <= 0:
        raise KeyboardInterrupt
    command = [sys.executable, "-m", "examples.sr_trilevel.run", job.recipe]
    command += ["--seed", str(job.seed), "--out", str(job.folder)]
    command += _given(options)
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
        if now.over:
            child.terminate()
        status = child.wait()
        now.running.discard(child)
    took = before + time.monotonic() - started
    with writing(clock) as aside:
        aside.write_text(f"{took:.0f}\n", encoding="utf-8")
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status != 0:
        last = (job.folder / "log.txt").read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise tn.errors.ConfigError(
            "every run of a study comes to its end",
            got=f"one killed by signal {-status}" if status < 0 else "".join(last) or status,
            at=f"{job.recipe}, seed {job.seed}",
            fix=f"See {job.folder / 'log.txt'}; the same command goes on from there.",
        )
    return took


def _seconds(clock: Path) -> float:
    """What a run took so far; damaged, it counts for nothing."""
    try:
        value = float(clock.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
    return value if math.isfinite(value) else 0.0


def _check_settings(job: Job, options: argparse.Namespace) -> None:
    """Refuse to take the results of a run with other settings for those of this study.

    Raises:
        ConfigError: naming the first that differs.
    """
    found = read_json(job.folder / "config.json")
    wanted = {
        "recipe": json.loads(find_recipe(job.recipe).to_json()),
        "seed": job.seed,
        "data": options.data,
        "sets": list(options.sets),
        "teacher": options.teacher,
        "features": options.features,
        "compile": options.compile,
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


def _facts(options: argparse.Namespace, recipe: str) -> dict[str, Any]:
    """What is known of a record before its runs: of folders their names alone."""
    words = ["--seeds", *map(str, options.seeds), *_given(options, lambda place: Path(place).name)]
    words += ["--jobs", str(options.jobs)] if options.jobs > 1 else []
    return {
        "recipe": recipe,
        "command": shlex.join(["python", "-m", "examples.sr_trilevel.study", recipe, *words]),
        "settings": json.loads(find_recipe(recipe).to_json()),
    }


def _given(options: argparse.Namespace, shown: Callable[[str], str] = str) -> list[str]:
    """What was given of the options that a study hands on to its runs, as words of a command.

    Args:
        options: of the study.
        shown: what stands for a place.
    """
    words = []
    for name in ("data", "teacher", "teacher_cache", "features", "device"):
        value = getattr(options, name)
        words += [f"--{name.replace('_', '-')}", shown(value)] if value is not None else []
    words += ["--sets", *map(shown, options.sets)] if options.sets else []
    words += ["--skip-bad"] if options.skip_bad else []
    words += ["--compile"] if options.compile else []
    return words


if __name__ == "__main__":
    sys.exit(main())
