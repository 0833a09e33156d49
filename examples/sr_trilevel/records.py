"""What studies put down: a file of runs for every recipe, and what runs say together."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeAlias

import attrs

import trinas as tn
from examples.sr_trilevel.recipe import Recipe
from examples.sr_trilevel.recipes import find_recipe

Record: TypeAlias = Mapping[str, Any]
"""A recipe's runs, with where they come from."""

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "study"

_PLACES = ("date", "hardware", "torch", "trinas")


# -- one run -------------------------------------------------------------------------------


def read_json(
    file: Path, fix: str = "Remove the folder of the run; the study does it again."
) -> dict[str, Any]:
    """A JSON file that a run left, or a study.

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
            fix=fix,
        ) from None


def told(folder: Path, seconds: float, here: Mapping[str, str]) -> dict[str, Any]:
    """What a finished run left, as far as tables want to know it.

    Args:
        folder: of the run.
        seconds: that it took.
        here: the environment that stands for the run's, where it is of a version that did not say.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    results = read_json(folder / "results.json")
    config = read_json(folder / "config.json")
    rows = {row.pop("name"): row for row in results.pop("rows")}
    return {
        "seconds": seconds,
        **{key: results[key] for key in ("seed", "path", "one_hot", "entropy")},
        "steps": [results["search_steps"], results["train_steps"]],
        "difference": results["supernet_minus_derived"],
        "held_out": len(results["held_out"]),
        "environment": config.get("environment", here),
        "stages": rows,
        "genotype": read_json(folder / "genotype.json"),
        "curve": results["curve"],
        # Runs of earlier versions left none.
        **({"timing": read_json(timing)} if (timing := folder / "timing.json").exists() else {}),
    }


# -- a file of them ------------------------------------------------------------------------


def record_file(folder: Path, recipe: str) -> Path:
    """The file of a recipe.

    >>> print(record_file(Path("study"), "tiny/A").as_posix())
    study/tiny-A.json
    """
    return folder / f"{recipe.replace('/', '-')}.json"


def load_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """What was put down in a folder, by recipe.

    Raises:
        CheckpointError: a file is damaged, or something else.
    """
    records = [load_record(file) for file in sorted(folder.glob("*.json"))]
    return {record["recipe"]: record for record in records}


def load_record(file: Path) -> dict[str, Any]:
    """What was put down of one recipe.

    Raises:
        CheckpointError: the file is missing, damaged, or something else.
        UnknownNameError: there is no such recipe.
    """
    record = read_json(file, fix="Remove the file, or run its study again.")
    missing = _missing(record)
    if missing is not None:
        raise tn.errors.CheckpointError(
            "a folder of results holds what studies put down",
            got=f"a file without {missing}",
            at=file,
            fix="Move the file elsewhere, or run its study again.",
        )
    try:
        find_recipe(record["recipe"])
    except tn.TrinasError as error:
        error.add_note(f"in {file}")
        raise
    return record


_OF_A_RECORD = ("recipe", "command", *_PLACES, "runs")
_OF_A_RUN = ("seed", "path", "entropy", "steps", "stages", "genotype", "curve", "seconds")


def _missing(record: object) -> str | None:
    """What a record lacks, or its runs."""
    if not isinstance(record, dict):
        return ", ".join(_OF_A_RECORD)
    absent = [key for key in _OF_A_RECORD if key not in record]
    if absent:
        return ", ".join(absent)
    runs = record["runs"]
    if not isinstance(runs, list) or not runs:
        return "any run"
    for run in runs:
        absent = [key for key in _OF_A_RUN if not isinstance(run, dict) or key not in run]
        if absent:
            return f"{', '.join(absent)} of a run"
        if not isinstance(run["stages"], dict) or "trained" not in run["stages"]:
            return "the trained network of a run"
    return None


def recipe_of(record: Record) -> Recipe:
    """The recipe that a record was run with, as far as it was written down: recipes change.

    Records of earlier versions hold its name alone.
    """
    recipe, settings = find_recipe(record["recipe"]), record.get("settings")
    if settings is None:
        return recipe
    search = {key: settings["search"][key] for key in ("pretrain_steps", "search_steps")}
    return attrs.evolve(
        recipe.with_plain(settings),
        search=attrs.evolve(recipe.search, **search),
        train=attrs.evolve(recipe.train, steps=settings["train"]["steps"]),
    )


def joined(before: Record, new: Record) -> dict[str, Any]:
    """A record with those runs of an earlier one that were not done anew.

    Raises:
        ConfigError: the earlier one is of other settings or of other pictures.
    """
    require_alike(before, new)
    told = {key: before[key] for key in _PLACES}
    seeds = {run["seed"] for run in new["runs"]}
    kept = [{"environment": told, **run} for run in before["runs"] if run["seed"] not in seeds]
    return placed({**new, "runs": sorted([*kept, *new["runs"]], key=lambda run: run["seed"])})


def require_alike(before: Record, new: Record) -> None:
    """Check that runs can stand in one record.

    Args:
        before: the record there is.
        new: with at least ``recipe``, ``command`` and ``settings``.

    Raises:
        ConfigError: naming the first thing that differs.
    """
    pairs: dict[str, tuple[Any, ...]] = {}
    if "settings" in before:
        pairs["settings"] = (before["settings"], new["settings"])
    else:  # of an earlier version
        _, steps = before["runs"][0]["steps"]
        pairs["steps of training"] = (steps, new["settings"]["train"]["steps"])
    options = ["--data", "--teacher", "--sets"]
    options += ["--features"] if find_recipe(new["recipe"]).loss.perceptual else []
    for option in options:
        pairs[option] = tuple(" ".join(_behind(r["command"], option)) for r in (before, new))
    for what, (one, other) in pairs.items():
        if one != other:
            shown = "others" if what == "settings" else f"{one or 'none'} before, {other or 'none'}"
            raise tn.errors.ConfigError(
                f"runs that are put down together have their {what} in common",
                got=shown,
                at=new["recipe"],
                fix="Give other --results, or remove the file from before.",
            )


def placed(record: Record) -> dict[str, Any]:
    """A record with the seeds, the dates and the machines of its runs."""
    runs = record["runs"]
    places = {
        key: ", ".join(dict.fromkeys(run["environment"][key] for run in runs)) for key in _PLACES
    }
    words = shlex.split(record["command"])
    at = words.index("--seeds") + 1
    old = len(_behind(record["command"], "--seeds"))
    words[at : at + old] = [str(run["seed"]) for run in runs]
    return {**record, "command": shlex.join(words), **places}


def _behind(command: str, option: str) -> list[str]:
    """The words behind an option, up to the next one."""
    words = shlex.split(command)
    rest = words[words.index(option) + 1 :] if option in words else []
    return list(takewhile(lambda word: not word.startswith("--"), rest))


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


def scores(record: Record, stage: str, name: str | None = None) -> Mean | None:
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


def values(record: Record, of: Callable[[Record], float | None]) -> list[float] | None:
    """One number for every run; None where a run has none."""
    found = [of(run) for run in record["runs"]]
    return None if None in found else [value for value in found if value is not None]


def _mean(record: Record, of: Callable[[Record], float | None]) -> Mean | None:
    found = values(record, of)
    return None if found is None else Mean.of(found)


def gap_of(run: Record) -> float | None:
    """How much PSNR the network loses that the supernet had, in dB: the discretisation gap."""
    stages = run["stages"]
    if "supernet" not in stages:
        return None
    return stages["supernet"]["psnr"] - stages["derived"]["psnr"]


def gap(record: Record) -> Mean | None:
    """`gap_of` all runs."""
    return _mean(record, gap_of)


def entropy_of(run: Record, which: str) -> float | None:
    """Of ``alpha`` or ``beta`` at the end of the search, as a share of the largest."""
    return None if run["entropy"] is None else run["entropy"][which]


def entropy(record: Record, which: str) -> Mean | None:
    """`entropy_of` all runs."""
    return _mean(record, lambda run: entropy_of(run, which))


def length_of(run: Record) -> int:
    """Blocks on the path."""
    return len(run["path"].split("-"))


def length(record: Record) -> Mean:
    """`length_of` all runs."""
    return Mean.of([length_of(run) for run in record["runs"]])


def paths_of(record: Record) -> str:
    """The paths that were found, with how often where more than once.

    >>> paths_of({"runs": [{"path": "a-b"}, {"path": "a"}, {"path": "a-b"}]})
    'a-b (2), a'
    """
    paths = [run["path"] for run in record["runs"]]
    counts = {path: paths.count(path) for path in paths}
    return ", ".join(path if n == 1 else f"{path} ({n})" for path, n in counts.items())


def line_of(record: Record) -> str:
    """The most important in one line."""
    lost, left = gap(record), [entropy(record, which) for which in ("alpha", "beta")]
    seconds = sum(run["seconds"] for run in record["runs"])
    parts = [
        f"held out {scores(record, 'trained')} dB",
        *([] if lost is None else [f"gap {lost} dB"]),
        *([] if None in left else [f"entropy {left[0]}, {left[1]}"]),
        f"paths {paths_of(record)}",
        f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min",
    ]
    return "; ".join(parts)
