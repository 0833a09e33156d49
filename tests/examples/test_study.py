"""Studies: every run done once, what runs say together, and where the numbers come from."""

from __future__ import annotations

import json
import statistics
from types import SimpleNamespace

import attrs
import pytest

import trinas as tn
from examples.sr_trilevel import study
from examples.sr_trilevel.recipes import RECIPES, VARIANTS, find_recipe, smoke
from examples.sr_trilevel.records import entropy, gap, length, load_results, recipe_of, scores
from examples.sr_trilevel.run import main as run_main
from examples.sr_trilevel.study import main


@pytest.fixture
def runs(monkeypatch):
    """The smoke recipe with hardly any steps, in this process; what was called."""
    short = attrs.evolve(
        smoke(),
        search=attrs.evolve(smoke().search, pretrain_steps=1, search_steps=2),
        train=attrs.evolve(smoke().train, steps=2),
    )
    monkeypatch.setitem(RECIPES, "smoke", lambda: short)
    called = []

    class Child:
        def __init__(self, command, *, stdout, **_):
            assert command[1:3] == ["-m", "examples.sr_trilevel.run"]
            called.append(command[3:])
            self._command = command[3:]

        def wait(self):
            return run_main(self._command)

    # Graphviz is called by way of subprocess, too.
    monkeypatch.setattr(study, "subprocess", SimpleNamespace(Popen=Child))
    return called


def test_a_study_runs_every_seed_once_and_puts_down_what_they_say(runs, tmp_path, capsys):
    out, results = tmp_path / "runs", tmp_path / "results"
    names = ["smoke/trellis", "smoke/random"]
    command = [*names, "--seeds", "0", "1", "--out", str(out), "--results", str(results)]

    assert main(command) == 0
    assert [call[0] for call in runs] == ["smoke/trellis"] * 2 + ["smoke/random"] * 2
    assert main(command) == 0
    assert len(runs) == 4, "what is finished is not run again"

    records = load_results(results)
    assert set(records) == set(names)
    for name, record in records.items():
        assert record["command"] == f"python -m examples.sr_trilevel.study {name} --seeds 0 1"
        folders = [out / name.replace("/", "-") / str(seed) for seed in (0, 1)]
        written = [json.loads((folder / "results.json").read_text()) for folder in folders]
        trained = [row["psnr"] for facts in written for row in facts["rows"][-1:]]
        found = scores(record, "trained")
        assert found is not None
        assert found.mean == pytest.approx(statistics.mean(trained))
        assert found.spread == pytest.approx(statistics.stdev(trained))
        assert [run["path"] for run in record["runs"]] == [facts["path"] for facts in written]
        blocks = [len(run["path"].split("-")) for run in record["runs"]]
        assert length(record).mean == statistics.mean(blocks)
        assert name == "smoke/random" or blocks == [3, 3], "a trellis has one length"
        assert "train" in {phase for phase, _, _ in record["runs"][0]["curve"]}
    assert (gap(records["smoke/random"]), entropy(records["smoke/random"], "beta")) == (None, None)
    lost, left = gap(records["smoke/trellis"]), entropy(records["smoke/trellis"], "alpha")
    assert lost is not None
    assert left is not None
    assert abs(lost.mean) < 1e-3, "sparsestmax ends one-hot"
    assert left.mean == 0
    assert str(tmp_path) not in (results / "smoke-trellis.json").read_text()


def test_a_run_that_fails_ends_the_study_with_its_reason(runs, tmp_path, capsys):
    command = ["smoke/A", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "runs")]

    assert main([*command, "--results", str(tmp_path / "results")]) == 2
    text = capsys.readouterr().err
    assert "every run of a study comes to its end" in text
    assert "smoke/A, seed 0" in text


def test_an_interrupted_run_goes_on(runs, tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "smoke-trellis" / "0"
    folder.mkdir(parents=True)
    inner = tn.Training.advance

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(tn.Training, "advance", stop)
    assert run_main(["smoke/trellis", "--out", str(folder)]) == 130
    monkeypatch.setattr(tn.Training, "advance", inner)

    results = str(tmp_path / "results")
    command = ["smoke/trellis", "--seeds", "0", "--out", str(tmp_path / "runs")]
    assert main([*command, "--results", results]) == 0
    assert "--resume" in runs[-1]


def test_a_study_stops_in_time_and_the_same_command_goes_on(runs, tmp_path, capsys, monkeypatch):
    """Until it is done, each time a little further, as on a machine that is lent."""
    results = tmp_path / "results"
    command = ["smoke/trellis", "smoke/random", "--seeds", "0", "--out", str(tmp_path / "runs")]
    command += ["--results", str(results)]

    assert main([*command, "--minutes", "0"]) == 130
    assert "interrupted: the same command goes on" in capsys.readouterr().err
    assert runs == [], "no time for any"
    monkeypatch.setattr(study, "time", SimpleNamespace(monotonic=lambda: 0.0))  # there is, now
    statuses = []
    while 0 not in statuses:
        statuses.append(main([*command, "--minutes", "1e-9"]))
    assert len(statuses) > 8, "a step of one run each time"
    assert set(statuses[:-1]) == {130}
    assert [call.count("--resume") for call in runs].count(0) == 2, "every run was begun once"
    assert set(load_results(results)) == {"smoke/trellis", "smoke/random"}


def test_runs_of_versions_that_took_no_times_still_tell(runs, tmp_path):
    command = ["smoke/trellis", "--seeds", "0", "--out", str(tmp_path / "runs")]
    command += ["--results", str(tmp_path / "results")]
    timing = tmp_path / "runs" / "smoke-trellis" / "0" / "timing.json"

    assert main(command) == 0
    (run,) = load_results(tmp_path / "results")["smoke/trellis"]["runs"]
    assert run["timing"] == json.loads(timing.read_text())
    timing.unlink()
    assert main(command) == 0
    (run,) = load_results(tmp_path / "results")["smoke/trellis"]["runs"]
    assert "timing" not in run


def test_runs_of_further_seeds_are_put_beside_those_before(runs, tmp_path, capsys):
    results = tmp_path / "results"
    command = ["smoke/trellis", "--out", str(tmp_path / "runs"), "--results", str(results)]
    assert main([*command, "--seeds", "1"]) == 0
    first = load_results(results)["smoke/trellis"]
    assert main([*command, "--seeds", "0", "2"]) == 0

    record = load_results(results)["smoke/trellis"]
    assert [run["seed"] for run in record["runs"]] == [0, 1, 2]
    assert record["runs"][1] == first["runs"][0]
    assert record["command"] == "python -m examples.sr_trilevel.study smoke/trellis --seeds 0 1 2"
    assert f"put down in {results}" in capsys.readouterr().out


def test_runs_of_other_settings_are_not_put_beside_those_before(runs, tmp_path, capsys):
    """Before any of them begins."""
    results = tmp_path / "results"
    command = ["smoke/trellis", "--seeds", "0", "--results", str(results)]
    assert main([*command, "--out", str(tmp_path / "a")]) == 0
    file = results / "smoke-trellis.json"
    before = file.read_text()

    assert main([*command, "--out", str(tmp_path / "b"), "--teacher", "t.pth"]) == 2
    error = capsys.readouterr().err
    assert "have their --teacher in common; got none before, t.pth; at smoke/trellis" in error
    record = json.loads(before)
    file.write_text(json.dumps({**record, "settings": {**record["settings"], "flips": "none"}}))
    assert main([*command, "--out", str(tmp_path / "b")]) == 2
    assert "their settings in common; got others" in capsys.readouterr().err
    del record["settings"]  # of an earlier version
    file.write_text(json.dumps({**record, "runs": [{**record["runs"][0], "steps": [3, 7]}]}))
    assert main([*command, "--out", str(tmp_path / "b")]) == 2
    assert "their steps of training in common; got 7 before, 2" in capsys.readouterr().err
    assert len(runs) == 1
    file.write_text(before)
    assert main([*command, "--out", str(tmp_path / "b")]) == 0


def test_what_differs_is_that_of_the_recipe_as_it_was(runs, tmp_path, monkeypatch):
    """Recipes change, what was measured does not."""
    results = tmp_path / "results"
    command = ["smoke/trellis", "--seeds", "0", "--out", str(tmp_path / "runs")]
    assert main([*command, "--results", str(results)]) == 0
    monkeypatch.setitem(RECIPES, "smoke", smoke)
    record = load_results(results)["smoke/trellis"]

    assert find_recipe("smoke/trellis").train.steps == 60
    recipe = recipe_of(record)
    assert (recipe.search.total_steps, recipe.train.steps, recipe.paths) == (3, 2, "trellis")


def test_a_record_without_something_is_told_with_its_file(runs, tmp_path, capsys):
    command = ["smoke/trellis", "--seeds", "0", "--out", str(tmp_path / "runs")]
    assert main([*command, "--results", str(tmp_path / "results")]) == 0
    file = tmp_path / "results" / "smoke-trellis.json"
    record = json.loads(file.read_text())
    (run,) = record["runs"]
    for damaged, text in (
        ({**record, "runs": []}, "without any run"),
        ({**record, "runs": [{**run, "stages": {}}]}, "without the trained network of a run"),
        ({**record, "runs": [{k: v for k, v in run.items() if k != "path"}]}, "path of a run"),
        ({k: v for k, v in record.items() if k != "date"}, "without date"),
    ):
        file.write_text(json.dumps(damaged))
        with pytest.raises(tn.errors.CheckpointError, match=rf"{text}; at .*trellis\.json"):
            load_results(file.parent)
    file.write_text(json.dumps({**record, "recipe": "tiny/nothing"}))
    with pytest.raises(tn.errors.UnknownNameError) as caught:
        load_results(file.parent)
    assert str(file) in caught.value.__notes__[0]


@pytest.mark.parametrize("content", ["{", "[]", '{"recipe": "smoke/trellis"}'])
def test_results_that_are_none(content, runs, tmp_path, capsys):
    (tmp_path / "other.json").write_text(content)
    command = ["smoke/trellis", "--seeds", "0", "--out", str(tmp_path / "runs")]

    assert main([*command, "--results", str(tmp_path)]) == 2
    assert "other.json" in capsys.readouterr().err
    assert runs == []


def test_minutes_are_a_number(capsys):
    for wrong in ("-1", "nan", "soon"):
        with pytest.raises(SystemExit, match="2"):
            main(["smoke/trellis", "--minutes", wrong])
        assert f"minutes are a number from 0 on; got {wrong}" in capsys.readouterr().err


def test_date_and_machine_are_those_of_the_runs_and_not_of_the_writing(runs, tmp_path):
    command = ["smoke/trellis", "--seeds", "0", "1", "--out", str(tmp_path / "runs")]
    command += ["--results", str(tmp_path / "results")]
    assert main(command) == 0
    config = tmp_path / "runs" / "smoke-trellis" / "0" / "config.json"
    facts = json.loads(config.read_text())
    earlier = {**facts["environment"], "date": "2001-02-03", "hardware": "an abacus"}
    config.write_text(json.dumps({**facts, "environment": earlier}))
    assert main(command) == 0

    record = load_results(tmp_path / "results")["smoke/trellis"]
    now = facts["environment"]
    assert record["date"] == f"2001-02-03, {now['date']}"
    assert record["hardware"] == f"an abacus, {now['hardware']}"
    assert record["torch"] == now["torch"]


def test_a_size_stands_for_all_its_variants():
    every = [f"tiny/{variant}" for variant in VARIANTS]
    assert study.recipes_of(["tiny"], features=True) == every
    assert study.recipes_of(["tiny"]) == [name for name in every if name != "tiny/visual"]
    assert study.recipes_of(["tiny/softmax", "smoke/A", "tiny/softmax"]) == [
        "tiny/softmax",
        "smoke/A",
    ]
    with pytest.raises(tn.errors.UnknownNameError, match="no recipe of this variant"):
        study.recipes_of(["tiny/nothing"])


def test_results_of_other_settings_are_not_taken_for_those_of_this_study(runs, tmp_path, capsys):
    command = ["smoke/trellis", "--seeds", "0", "--out", str(tmp_path / "runs")]
    command += ["--results", str(tmp_path / "results")]
    assert main(command) == 0
    before = (tmp_path / "results" / "smoke-trellis.json").read_text()
    capsys.readouterr()

    assert main([*command[:-1], str(tmp_path / "others"), "--data", "elsewhere"]) == 2
    assert "a finished run of a study has its data; got None instead of 'elsewhere'" in (
        capsys.readouterr().err
    )
    (tmp_path / "runs" / "smoke-trellis" / "0" / "results.json").write_text("{")
    assert main(command) == 2
    assert "leaves its settings and results as JSON" in capsys.readouterr().err
    assert (tmp_path / "results" / "smoke-trellis.json").read_text() == before


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (["--seeds", "0", "1", "0"], "every seed of a study is another; got 0 1 0"),
        (["--jobs", "0"], "there is at least one job; got 0"),
    ],
)
def test_settings_that_make_no_study(runs, wrong, rule, tmp_path, capsys):
    assert main(["smoke/A", "--results", str(tmp_path), *wrong]) == 2
    assert rule in capsys.readouterr().err
    assert runs == []
