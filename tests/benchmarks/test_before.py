"""The comparison with an earlier commit measures what `benchmarks steps` does."""

import json
from pathlib import Path

from benchmarks import before

STEPS = Path(before.__file__).parent / "results" / "steps.json"


def test_every_case_of_the_steps_is_there():
    measured = {row["case"] for row in json.loads(STEPS.read_text())["rows"]}

    assert len(before.CASES) == len(measured)
    for case in before.CASES:
        space, _, what = case.rpartition(", ")
        assert any(m.startswith(space) and (what in m or what == "all alive") for m in measured)


def test_a_step_reaches_weights_and_architecture():
    steps = before.make_steps("NAS-Bench-201")

    assert [f"NAS-Bench-201, {what}" for what in before.PASSES["NAS-Bench-201"]] == [*steps]
    steps["NAS-Bench-201, one network"]()
