"""The state of a run: what a checkpoint holds, and how one is taken up."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trinas._core.errors import CheckpointError
from trinas.search.loading import (
    as_lists,
    load_part,
    python_random_state,
    require_dict,
    require_keys,
    require_plan,
    require_random_state,
    require_step,
)

if TYPE_CHECKING:
    from trinas.search.engine import Run

FORMAT = "trinas run 2"
"""What this version writes into a checkpoint, and the only form it reads."""

_KEYS = (
    "format",
    "plan",
    "device",
    "step",
    "total",
    "model",
    "parts",
    "generator",
    "rng",
    "data",
    "scaler",
)
_FREE = "rates, schedules, clips, terms and prune"


def state_of(run: Run[Any]) -> dict[str, Any]:
    """Everything that a run needs to go on: tensors and plain values only."""
    scaler = run.task.scaler
    return {
        "format": FORMAT,
        "plan": run.plan(),
        "device": run.task.device.type,
        "step": run.step,
        "total": run.total,
        "model": run.task.model.state_dict(),
        "parts": {name: part.state_dict() for name, part in zip(run.names, run.parts)},
        "generator": run.generator.get_state(),
        "rng": as_lists(run.rng.getstate()),
        "data": [stream.state_dict() for stream in run.streams],
        "scaler": None if scaler is None else scaler.state_dict(),
    }


def load_state(run: Run[Any], state: Any) -> None:
    """Take up a state; where it does not fit, the run is as it was.

    Raises:
        CheckpointError: it does not fit.
    """
    rng = _checked(run, state)
    before = copy.deepcopy(state_of(run))
    try:
        _load(run, state, rng)
    except BaseException:
        _load(run, before, python_random_state(before["rng"]))
        raise


def _checked(run: Run[Any], state: Any) -> Any:
    """The state of the host's generator, after a look at everything that has no tensors."""
    found = state.get("format") if isinstance(state, dict) else None
    if isinstance(state, dict) and found != FORMAT and {"net", "model"} & set(state):
        raise CheckpointError(
            f"this trinas resumes checkpoints of the form {FORMAT!r}",
            got=f"form {found!r}",
            fix="Resume with the trinas that saved it. The weights in it (entry net or model) "
            "load by themselves.",
        )
    require_keys(state, _KEYS, run.what, of=type(run).__name__)
    model = require_dict(state["model"], "model")
    for name, net in run.task.nets.items():
        net.require_space(model.get(f"{name}._extra_state" if name else "_extra_state"))
    require_plan(state["plan"], run.plan(), run.what, free=_FREE)
    if state["device"] != run.task.device.type:
        raise CheckpointError(
            f"a {run.what} resumes on the kind of device that its random numbers came from",
            got=f"a checkpoint from {state['device']}",
            at=f"a {run.what} on {run.task.device}",
            fix="Move the network before its run is made.",
        )
    require_step(state["total"], sum(phase.steps for phase in run.phases), run.what)
    require_step(state["step"], state["total"], run.what)
    require_random_state(state["generator"], run.generator)
    data, parts = state["data"], require_dict(state["parts"], "parts")
    if not isinstance(data, list) or len(data) != len(run.streams):
        raise CheckpointError("a checkpoint has the state of all data", got=repr(data)[:60])
    # Terms and watchers may be put into a method, or taken out, for the rest of a run.
    lost = [n for n, p in zip(run.names, run.parts) if p.optimisers and n not in parts]
    if lost:
        raise CheckpointError(
            "a checkpoint has the state of all parts with optimisers",
            got=f"none of {', '.join(lost)}",
            at=f"a {run.what} of {', '.join(run.names)}",
        )
    return python_random_state(state["rng"])


def _load(run: Run[Any], state: Mapping[str, Any], rng: Any) -> None:
    run.task.load(state["model"])
    for part in run.parts:
        part.refresh()
    for name, part in zip(run.names, run.parts):
        if name in state["parts"]:
            part.load_state_dict(state["parts"][name])
    for stream, saved in zip(run.streams, state["data"]):
        stream.load_state_dict(saved)
    if run.task.scaler is not None and state["scaler"] is not None:
        load_part(run.task.scaler, state["scaler"], "scaler")
    run.generator.set_state(state["generator"].cpu())
    run.rng.setstate(rng)
    run.step, run.total = state["step"], state["total"]
