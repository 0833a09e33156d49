"""A genotype: what a search decided, and nothing else.

It is always bound to the graph it was checked against, holds exactly the decisions that
are active in the network it describes, and is written as a small JSON object.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import attrs

from trinas._core.collector import paused_collector
from trinas._core.errors import GenotypeError
from trinas.graph.ir import Graph, require_graph
from trinas.graph.walk import check_outcome, enumerate_outcomes, sample_outcomes, settle
from trinas.space.decision import Decision, Picked

VERSION = 1
"""The version of the JSON form that this trinas writes, and the only one it reads."""


def _canonical(values: Mapping[str, Picked]) -> tuple[tuple[str, Picked], ...]:
    return tuple(sorted(values.items(), key=itemgetter(0)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GenotypeError(
            "a genotype is read from a text file",
            got=str(error),
            at=str(path),
            fix="Give the file that Genotype.save wrote.",
        ) from None


@attrs.frozen(repr=False)
class Genotype(Mapping[str, Picked]):
    """One network of a space, as a mapping from decision path to outcome.

    Made by `Genotype.of`, `Genotype.from_json`, `trinas.derive` or `trinas.sample`.
    Equality and hash look at the outcomes only, never at the order of writing.

    Attributes:
        items_: the outcomes, sorted by path.
        graph: the graph it was validated against; not part of equality or of the JSON.
    """

    items_: tuple[tuple[str, Picked], ...]
    graph: Graph = attrs.field(eq=False)
    _by_path: dict[str, Picked] = attrs.field(
        init=False, eq=False, default=attrs.Factory(lambda self: dict(self.items_), takes_self=True)
    )

    @classmethod
    def of(cls, graph: Graph, values: Mapping[str, Any]) -> Genotype:
        """The genotype of these outcomes, validated against `graph`.

        Outcomes of decisions that the described network does not contain are dropped, so
        that two descriptions of one network are equal.

        Raises:
            GenotypeError: an unknown path, an outcome outside its domain, or an active
                decision without one. The message names the path.

        >>> import trinas as tn
        >>> graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
        >>> Genotype.of(graph, {"slot": "c"})
        Traceback (most recent call last):
            ...
        trinas._core.errors.GenotypeError: an outcome is one of the options of its decision;
        got 'c'; at slot. The options are a, b.
        """
        require_graph(graph)
        if not isinstance(values, Mapping):
            raise GenotypeError(
                "a genotype is made from a mapping of decision paths to outcomes",
                got=values,
                fix="See graph.decisions for the paths.",
            )
        given = {path: tuple(v) if isinstance(v, list) else v for path, v in values.items()}
        for path, value in given.items():
            check_outcome(graph, path, value)

        def pick(decision: Decision) -> Picked:
            if decision.path not in given:
                raise GenotypeError(
                    "a genotype settles every active decision",
                    got=f"nothing for {decision.path!r}",
                    at=decision.path,
                    fix="Was it made for another space?",
                )
            return given[decision.path]

        with paused_collector():
            return cls(_canonical(settle(graph, pick)), graph)

    @classmethod
    def from_json(cls, text: str | Path, graph: Graph) -> Genotype:
        """Read what `to_json` wrote (a text, or the path of a file) for a space.

        Raises:
            GenotypeError: not such JSON, another version, or not of this space.
        """
        if isinstance(text, Path):
            place: str | None = str(text)
            text = _read(text)
        else:
            place = None
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise GenotypeError(
                "a genotype is JSON",
                got=str(error),
                at=place,
                fix="Pass its text, or a pathlib.Path to read a file.",
            ) from None
        if not isinstance(data, dict) or not isinstance(data.get("decisions"), dict):
            raise GenotypeError(
                'a genotype is an object with "trinas_genotype" and "decisions"',
                got=text[:60],
                at=place,
                fix="Write it with Genotype.to_json.",
            )
        if data.get("trinas_genotype") != VERSION:
            raise GenotypeError(
                f"this trinas reads genotypes of version {VERSION}",
                got=data.get("trinas_genotype"),
                at=place,
                fix="Read it with the trinas that wrote it.",
            )
        return cls.of(graph, data["decisions"])

    @classmethod
    def load(cls, path: str | Path, graph: Graph) -> Genotype:
        """Read the file that `save` wrote, for a space.

        Raises:
            GenotypeError: no such file, or not a genotype of this space.
        """
        return cls.from_json(Path(path), graph)

    def to_json(self) -> str:
        """The genotype as a JSON object, keys sorted, one decision a line."""
        data = {"trinas_genotype": VERSION, "decisions": dict(self.items_)}
        return json.dumps(data, indent=2, sort_keys=True) + "\n"

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def __getitem__(self, path: str) -> Picked:
        return self._by_path[path]

    def __iter__(self) -> Iterator[str]:
        return (path for path, _ in self.items_)

    def __len__(self) -> int:
        return len(self.items_)

    def __repr__(self) -> str:
        inside = ", ".join(f"{path}={value!r}" for path, value in self.items_)
        return f"Genotype({inside})"


def sample(graph: Graph, rng: random.Random | int | None = None) -> Genotype:
    """A random genotype: every active decision is settled evenly over its own options.

    Args:
        graph: the space.
        rng: a ``random.Random``, or a seed; fresh randomness where None.
    """
    require_graph(graph)
    source = rng if isinstance(rng, random.Random) else random.Random(rng)
    with paused_collector():
        return Genotype(_canonical(sample_outcomes(graph, source)), graph)


def enumerate_genotypes(graph: Graph) -> Iterator[Genotype]:
    """Every genotype of the space once, in a fixed order.

    >>> import trinas as tn
    >>> block = tn.seq(tn.conv(3, tn.width(values=(8, 9))), tn.conv(1, 3))
    >>> space = tn.repeat(block, (1, 2))        # every run of the block has its own width
    >>> len(list(enumerate_genotypes(tn.lower(space, (3, 8, 8))))), tn.cardinality(space)
    (6, 6)
    """
    for values in enumerate_outcomes(require_graph(graph)):
        yield Genotype(_canonical(values), graph)
