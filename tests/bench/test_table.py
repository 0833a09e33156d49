"""Tables are made by a run that can be stopped anywhere, and read back as they were."""

from __future__ import annotations

import json
from itertools import islice

import attrs
import pytest

import trinas as tn
from trinas._core.errors import DataError
from trinas.bench import Recipe, Table, fill
from trinas.bench.planting import planted_problem
from trinas.bench.problem import Problem

ORIGIN = {"command": "none", "date": "2026-01-01", "hardware": "any"}


def quick(name: str = "width") -> Problem:
    recipe = Recipe(steps=3, batch=4, lr=1e-2)
    return attrs.evolve(planted_problem(name), recipe=recipe)


def made(path, problem=None, seeds=(0, 1)) -> Table:
    list(fill(problem or quick(), path, seeds=seeds, origin=ORIGIN))
    return Table.load(path)


def without_times(table: Table) -> dict:
    data = attrs.asdict(table)
    del data["columns"]["seconds"]
    return data


def test_a_table_holds_every_network_once(tmp_path):
    problem = quick("edges-1of3")
    table = made(tmp_path / "t.json", problem)
    networks = list(tn.enumerate_genotypes(problem.graph))
    decided = [{p: v for p, v in zip(table.paths, r) if v is not None} for r in table.rows]

    assert decided == [dict(genotype) for genotype in networks]
    assert list(table.facts["params"]) == [tn.cost.params(problem.graph, g) for g in networks]
    assert list(table.facts["macs"]) == [tn.cost.macs(problem.graph, g) for g in networks]
    assert all(len(row) == 2 for column in table.columns.values() for row in column)


def test_numbers_are_those_of_a_training_alone(tmp_path):
    problem = quick()
    table = made(tmp_path / "t.json", problem)
    genotype = tn.Genotype.of(problem.graph, {"conv[0]/width": 4})
    trained = problem.train_alone(genotype, seed=1)
    row = table.rows.index((4,))

    assert table.columns["test"][row][1] == pytest.approx(trained.measured.test, abs=1e-4)
    assert table.columns["valid"][row][1] == pytest.approx(trained.measured.valid, abs=1e-4)
    assert table.columns["loss"][row][1] == pytest.approx(trained.loss, abs=1e-5)


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_stopped_run_goes_on_where_it_stopped(tmp_path, stop):
    whole = made(tmp_path / "whole.json")
    path = tmp_path / "parts.json"
    list(islice(fill(quick(), path, seeds=(0, 1), origin=ORIGIN, every=1), stop))
    rest = list(fill(quick(), path, seeds=(0, 1), origin=ORIGIN, every=1))

    assert len(rest) == 4 - stop
    assert without_times(Table.load(path)) == without_times(whole)
    assert list(fill(quick(), path, seeds=(0, 1), origin=ORIGIN)) == []


def test_a_table_goes_on_as_it_began(tmp_path):
    path = tmp_path / "t.json"
    made(path)
    slower = attrs.evolve(quick(), recipe=Recipe(steps=4, batch=4, lr=1e-2))

    with pytest.raises(DataError, match="goes on with the decisions, seeds and recipe"):
        made(path, seeds=(0, 1, 2))
    with pytest.raises(DataError, match="recipe"):
        made(path, slower)
    with pytest.raises(DataError, match="decisions"):
        made(path, quick("operation"))


def test_files_that_are_no_table_are_refused(tmp_path):
    path = tmp_path / "t.json"
    made(path)
    data = json.loads(path.read_text())
    for spoiled in ("", "[]", "{}", json.dumps({**data, "trinas_table": 9})):
        path.write_text(spoiled)
        with pytest.raises(DataError, match=r"a table is a JSON file of version 1; .*t\.json"):
            Table.load(path)
    with pytest.raises(DataError, match="FileNotFoundError"):
        Table.load(tmp_path / "none.json")
