"""A table of truth: networks that were trained alone, as data that a command made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from trinas._core.errors import DataError
from trinas.bench.problem import Problem, Trained
from trinas.cost import count
from trinas.graph import Genotype, Graph, enumerate_genotypes

VERSION = 1
"""The version of the JSON form."""

COLUMNS = ("valid", "test", "loss", "seconds")
"""What is kept of a training, one number a seed."""


@attrs.frozen(kw_only=True, eq=False)
class Table:
    """Trained networks of a space: all of them, or those that are done so far.

    Attributes:
        paths: the decisions of the space, in order.
        rows: the outcomes of each network, in the order of `paths`; None where a network has
            no such decision.
        seeds: with which every network was trained.
        columns: ``valid``, ``test``, ``loss``, ``seconds``: for every row one number a seed.
        facts: ``params`` and ``macs``: one number a row.
        origin: ``command``, ``date``, ``hardware`` and ``recipe``, as texts and numbers.
    """

    paths: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    seeds: tuple[int, ...]
    columns: Mapping[str, tuple[tuple[float, ...], ...]]
    facts: Mapping[str, tuple[float, ...]]
    origin: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write the table; a reader finds the old file or the new one, never half of one."""
        data = {"trinas_table": VERSION, **attrs.asdict(self, recurse=False)}
        lines = [f"{json.dumps(key)}: {_layout(value)}" for key, value in data.items()]
        part = path.with_suffix(".part")
        part.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        os.replace(part, path)

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read what `save` wrote.

        Raises:
            DataError: no such file, or not such a table.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("trinas_table") != VERSION:
                raise KeyError("trinas_table")
            data["rows"] = tuple(tuple(map(_outcome, row)) for row in data["rows"])
            data["columns"] = {name: _tuples(data["columns"][name]) for name in COLUMNS}
            data["facts"] = {name: tuple(column) for name, column in data["facts"].items()}
            data["paths"], data["seeds"] = tuple(data["paths"]), tuple(data["seeds"])
            return cls(**data)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"a table is a JSON file of version {VERSION}",
                got=f"{type(error).__name__}: {error}",
                at=str(path),
                fix="Make it with: python -m trinas.bench build.",
            ) from None


def _outcome(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _tuples(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, rows))


def _layout(value: Any) -> str:
    """JSON with a line for every row, so that two versions can be compared line by line."""
    if isinstance(value, Mapping) and value and not isinstance(next(iter(value.values())), str):
        inside = ",\n".join(f"  {json.dumps(k)}: {_layout(v)}" for k, v in value.items())
        return "{\n" + inside + "\n}"
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in value) + "\n  ]"
    return json.dumps(value)


def row_of(paths: Sequence[str], genotype: Mapping[str, Any]) -> tuple[Any, ...]:
    """The outcomes of a network in the order of `paths`."""
    return tuple(_outcome(genotype.get(path)) for path in paths)


def genotype_of(graph: Graph, paths: Sequence[str], row: Sequence[Any]) -> Genotype:
    """The network of a row."""
    return Genotype.of(graph, {p: v for p, v in zip(paths, row) if v is not None})


def fill(
    problem: Problem,
    path: Path,
    *,
    seeds: Sequence[int],
    origin: Mapping[str, Any],
    every: int = 8,
) -> Iterator[tuple[Genotype, list[Trained]]]:
    """Train every network of a space alone and keep the results in a file.

    What the file has already is not done again, so that a run can be stopped at any time;
    it is written behind every few networks and at the end.

    Args:
        problem: the space and its data.
        path: the file.
        seeds: one training each.
        origin: see `Table`.
        every: networks between two writings.

    Yields:
        A network and its trainings, one a seed, as they are done.

    Raises:
        DataError: the file is no table, or one of other decisions, seeds or another recipe.
    """
    table = _begin(problem, path, tuple(seeds), origin)
    done = set(table.rows)
    for genotype in enumerate_genotypes(problem.graph):
        row = row_of(table.paths, genotype)
        if row in done:
            continue
        trained = [problem.train_alone(genotype, seed) for seed in seeds]
        table = _with(table, row, trained, problem, genotype)
        if len(table.rows) % every == 0:
            table.save(path)
        yield genotype, trained
    table.save(path)


def _begin(
    problem: Problem, path: Path, seeds: tuple[int, ...], origin: Mapping[str, Any]
) -> Table:
    paths = tuple(problem.graph.decisions)
    recipe = attrs.asdict(problem.recipe)
    if not path.exists():
        return Table(
            paths=paths,
            rows=(),
            seeds=seeds,
            columns={name: () for name in COLUMNS},
            facts={"params": (), "macs": ()},
            origin={**origin, "recipe": recipe},
        )
    table = Table.load(path)
    if (table.paths, table.seeds, table.origin["recipe"]) != (paths, seeds, recipe):
        raise DataError(
            "a table goes on with the decisions, seeds and recipe that it began with",
            got=f"{table.paths}, seeds {table.seeds}, {table.origin['recipe']}",
            at=str(path),
            fix="Give another file, or move this one away.",
        )
    return table


def _with(
    table: Table, row: tuple[Any, ...], trained: list[Trained], problem: Problem, g: Genotype
) -> Table:
    cost = count(problem.graph, g)
    new = {
        "valid": [round(t.measured.valid, 4) for t in trained],
        "test": [round(t.measured.test, 4) for t in trained],
        "loss": [round(t.loss, 5) for t in trained],
        "seconds": [round(t.seconds, 2) for t in trained],
    }
    return attrs.evolve(
        table,
        rows=(*table.rows, row),
        columns={name: (*table.columns[name], tuple(new[name])) for name in COLUMNS},
        facts={
            "params": (*table.facts["params"], cost.params),
            "macs": (*table.facts["macs"], cost.macs),
        },
    )
