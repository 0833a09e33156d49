"""Methods against benchmarks, one record each: resumable, a line of JSON at a time."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from trinas._core.errors import DataError
from trinas.bench.benchmark import Benchmark
from trinas.bench.methods import BASELINES, BY_PASSES, METHODS, Allowance, Found

KEY = ("benchmark", "method", "against", "seed")


@attrs.frozen(kw_only=True)
class Record:
    """One method on one benchmark with one seed.

    Attributes:
        benchmark: by name.
        method: by name.
        against: for a baseline the method whose cost it was given, else empty.
        seed: of the run.
        genotype: what was found.
        score: of it, and so on as in `Benchmark`.
        passes: what was spent, in forward passes.
        seconds: what was spent in time.
        facts: see `trinas.bench.Found`; NaN is written as null.
        steps: pretraining and search steps of the method.
        origin: command, date, hardware.
    """

    benchmark: str
    method: str
    against: str
    seed: int
    genotype: Mapping[str, Any]
    score: float
    regret: float
    percentile: float
    right: bool
    passes: float
    seconds: float
    facts: Mapping[str, float | None]
    steps: tuple[int, int]
    origin: Mapping[str, str]

    @property
    def key(self) -> tuple[Any, ...]:
        """What the record is of."""
        return tuple(getattr(self, name) for name in KEY)


def read(path: Path) -> list[Record]:
    """All records of a file, or of all ``.jsonl`` files of a folder, in order.

    Raises:
        DataError: a line that is no record.
    """
    records = []
    for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                data = json.loads(line)
                records.append(Record(**{**data, "steps": tuple(data["steps"])}))
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(
                    "a file of records has one JSON object a line",
                    got=f"{type(error).__name__}: {error}",
                    at=f"{file}:{number}",
                    fix="A run that was killed may leave half a line at the end; delete it.",
                ) from None
    return records


def run(
    benchmark: Benchmark,
    path: Path,
    *,
    methods: Sequence[str],
    baselines: Sequence[str],
    seeds: Sequence[int],
    allowance: Allowance,
    origin: Mapping[str, str],
) -> Iterator[Record]:
    """Run methods, each followed by the baselines at its cost, and append a record of each.

    What the file has already is not run again.

    Args:
        benchmark: a searchable one.
        path: the file of records.
        methods: names in `METHODS`.
        baselines: names in `BASELINES`.
        seeds: each method and baseline runs with all of them.
        allowance: the steps of the methods; passes and seconds follow from what they spend.
        origin: see `Record`.

    Yields:
        The new records as they are done.

    Raises:
        UnknownNameError: an unknown method or baseline.
        DataError: the file is no file of records, or its methods had other steps.
    """
    done = {record.key: record for record in read(path)}
    steps = (allowance.pretrain_steps, allowance.search_steps)
    _require_steps(done.values(), steps, path)

    def keep(record: Record) -> Record:
        done[record.key] = record
        return _append(path, record)

    for seed, name in itertools.product(seeds, methods):
        spent = done.get((benchmark.name, name, "", seed))
        if spent is None:
            result = METHODS[name](benchmark, allowance, seed)
            spent = keep(_record(benchmark, result, (name, "", seed), steps, origin))
            yield spent
        same = attrs.evolve(allowance, passes=spent.passes, seconds=spent.seconds)
        for baseline in baselines:
            if (benchmark.name, baseline, name, seed) in done:
                continue
            record = _at_equal_passes(done, baseline, spent)
            if record is None:
                result = BASELINES[baseline](benchmark, same, seed)
                record = _record(benchmark, result, (baseline, name, seed), steps, origin)
            yield keep(record)


def _at_equal_passes(
    done: Mapping[tuple[Any, ...], Record], baseline: str, spent: Record
) -> Record | None:
    """What a baseline did at the cost of another method that spent as much."""
    if baseline not in BY_PASSES:
        return None
    for record in done.values():
        other = done.get((spent.benchmark, record.against, "", spent.seed))
        same = (record.benchmark, record.method, record.seed)
        wanted = (spent.benchmark, baseline, spent.seed)
        if same == wanted and other is not None and other.passes == spent.passes:
            return attrs.evolve(record, against=spent.method)
    return None


def _require_steps(records: Any, steps: tuple[int, int], path: Path) -> None:
    for record in records:
        if record.steps != steps:
            raise DataError(
                "all records of a file have the same steps",
                got=f"{record.steps}, and {steps} now",
                at=str(path),
                fix="Give another folder.",
            )


def _record(
    benchmark: Benchmark,
    found: Found,
    what: tuple[str, str, int],
    steps: tuple[int, int],
    origin: Mapping[str, str],
) -> Record:
    method, against, seed = what
    genotype = found.genotype
    facts = {k: None if math.isnan(v) else round(v, 6) for k, v in found.facts.items()}
    return Record(
        benchmark=benchmark.name,
        method=method,
        against=against,
        seed=seed,
        genotype=dict(genotype),
        score=benchmark.score(genotype),
        regret=benchmark.regret(genotype),
        percentile=benchmark.percentile(genotype),
        right=benchmark.accepts(genotype),
        passes=found.passes,
        seconds=round(found.seconds, 3),
        facts=facts,
        steps=steps,
        origin=origin,
    )


def _append(path: Path, record: Record) -> Record:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(attrs.asdict(record, recurse=False)) + "\n")
    return record
