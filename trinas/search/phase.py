"""The stretches of a run, and the names of its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import attrs


@attrs.frozen
class Phase:
    """Steps that do the same.

    Attributes:
        name: as reports have it.
        steps: how many.
        progress: share of the phase done to the progress of the supernets, which stays where it
            is where None.
        learns: whether the mixtures of its steps are differentiable.
        alike: whether all its steps draw the same from torch's global generators, so that what
            they look at differs in nothing else.
    """

    name: str
    steps: int
    progress: Callable[[float], float] | None = None
    learns: bool = False
    alike: bool = False

    def seed(self, seed: int, step: int, number: int) -> int:
        """The seed of what a step draws from torch's global generators.

        Args:
            seed: of the run.
            step: its number within the run.
            number: within the phase.
        """
        return (seed * 1_000_003 + (step - number if self.alike else step)) % 2**63


def phase_at(phases: Sequence[Phase], step: int) -> tuple[Phase, int]:
    """The phase of a step of a run, and its number there."""
    number = step
    for phase in phases:
        if number < phase.steps:
            return phase, number
        number -= phase.steps
    raise AssertionError(step)


def numbered(names: Iterable[str]) -> tuple[str, ...]:
    """The names, those that come again with a number."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return tuple(found)
