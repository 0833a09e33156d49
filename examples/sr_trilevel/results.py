"""All that was measured, found by what a table asks for, and what every table says of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from examples.sr_trilevel.records import (
    RESULTS,
    Mean,
    Record,
    entropy,
    gap,
    length,
    load_results,
    paths_of,
    recipe_of,
    scores,
)
from examples.sr_trilevel.sheets import Sheet

SIZES = ("paper", "hour", "cores", "tiny")
"""Sizes that results are looked for in, the better first."""

NETWORKS = RESULTS.with_name("evaluate")
"""Folder of what ``evaluate --json`` said about published networks."""

NOT_RUN = "not run"


@attrs.frozen(kw_only=True)
class Results:
    """All that was measured.

    Attributes:
        records: of studies, by recipe; those of a folder below as ``folder:recipe``.
        networks: of published networks, by the name of the file without its suffix.
        sizes: that are asked for, the better first.
    """

    records: Mapping[str, Record] = attrs.field(factory=dict)
    networks: Mapping[str, Record] = attrs.field(factory=dict)
    sizes: tuple[str, ...] = SIZES

    @classmethod
    def load(
        cls,
        folder: Path = RESULTS,
        networks: Path = NETWORKS,
        sizes: Sequence[str] = SIZES,
    ) -> Results:
        """From the folders they were put down in; a folder that is missing holds nothing."""
        records: dict[str, Record] = {**load_results(folder)}
        for below in sorted(path for path in folder.glob("*") if path.is_dir()):
            found = load_results(below)
            records |= {f"{below.name}:{recipe}": found[recipe] for recipe in found}
        files = sorted(networks.glob("*.json"))
        reports = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
        return cls(records=records, networks=reports, sizes=tuple(sizes))

    def found(self, variants: Sequence[str], within: str | None = None) -> list[Record]:
        """At every size the first there is of these variants, the better size first.

        Args:
            variants: of recipes, the best first.
            within: a folder that comes before the others.
        """
        found = []
        for size in self.sizes:
            names = [f"{size}/{variant}" for variant in variants]
            keys = [key for name in names for key in (f"{within}:{name}", name)]
            found += [self.records[key] for key in keys if key in self.records][:1]
        return found

    def asked(self) -> list[Record]:
        """All studies of the sizes that are asked for."""
        return [r for r in self.records.values() if recipe_size(r) in self.sizes]

    def pair(self, one: str, other: str) -> tuple[Record, Record] | None:
        """Records of two variants at one size: that with most runs of both, or the better one."""
        found = [
            (first, second)
            for size in self.sizes
            if (first := self.records.get(f"{size}/{one}")) is not None
            and (second := self.records.get(f"{size}/{other}")) is not None
        ]
        return max(found, key=lambda pair: min(len(r["runs"]) for r in pair), default=None)


def recipe_size(record: Record) -> str:
    """The size of the recipe that was run.

    >>> recipe_size({"recipe": "tiny/softmax"})
    'tiny'
    """
    return record["recipe"].partition("/")[0]


def sets_of(record: Record) -> list[str]:
    """Sets of pictures that the runs were scored on, besides those held out."""
    return list(record["runs"][0]["stages"]["trained"]["sets"])


def size_of(record: Record, which: str) -> Mean:
    """``params`` or ``macs`` (at a 256x256 input) of the networks that were found."""
    return Mean.of([run["stages"]["trained"][which] for run in record["runs"]])


def curves(record: Record) -> dict[int, list[float]]:
    """PSNR by step of training, in dB, one for every run; steps that all runs have."""
    of_runs = [
        {step: psnr for phase, step, psnr in run["curve"] if phase == "train"}
        for run in record["runs"]
    ]
    shared = set.intersection(*(set(curve) for curve in of_runs))
    return {step: [curve[step] for curve in of_runs] for step in sorted(shared)}


def watched(record: Record) -> str:
    """What the PSNR of `curves` is of: the first of the sets, or a held-out picture."""
    return next(iter(sets_of(record)), "a held-out picture")


# -- what a table says of records ----------------------------------------------------------


def variants_sheet(results: Results) -> Sheet:
    """All that was measured of every recipe."""
    records = results.asked()
    sets = list(dict.fromkeys(name for record in records for name in sets_of(record)))
    head = ("recipe", "runs", "paths", "blocks", "operations")
    head += ("entropy of operations", "entropy of paths", "gap, dB", "params, k", "MACs, G")
    head += ("of the budget", "held out, dB", *(f"{s}, dB" for s in sets))
    return Sheet(
        title="Everything measured",
        head=head,
        rows=[_variant(record, sets) for record in records],
        notes=[
            "Operations are those of all runs together. The budget is the MACs that the cost term "
            "of the search aims at.",
            *(provenance(records) if records else [f"Nothing yet: {NOT_RUN}."]),
        ],
    )


def _variant(record: Record, sets: Sequence[str]) -> list[str]:
    figures = [
        length(record),
        operations_of(record),
        entropy(record, "alpha"),
        entropy(record, "beta"),
        gap(record),
        scaled(size_of(record, "params"), 1e3, 1),
        scaled(size_of(record, "macs"), 1e9, 2),
        of_budget(record),
        scores(record, "trained"),
        *(scores(record, "trained", name) for name in sets),
    ]
    shown = ["" if figure is None else str(figure) for figure in figures]
    return [f"`{record['recipe']}`", str(len(record["runs"])), paths_of(record), *shown]


def operations_of(record: Record) -> str:
    """The operations that all runs chose, the most frequent first.

    >>> decisions = {"trunk": "a", "trunk/a/slot": "conv", "trunk/a/slot/width": 8}
    >>> operations_of({"runs": [{"genotype": {"decisions": decisions}}]})
    'conv 100%'
    """
    counts = Counter(
        option
        for run in record["runs"]
        for place, option in run["genotype"]["decisions"].items()
        if isinstance(option, str) and place != "trunk"
    )
    return ", ".join(f"{name} {n / counts.total():.0%}" for name, n in counts.most_common())


def of_budget(record: Record) -> Mean | None:
    """Multiply-adds of the networks as a share of what the search aimed at; None without one."""
    recipe = recipe_of(record)
    budget = None if recipe.network is not None else recipe.budget()
    if budget is None:
        return None
    macs = size_of(record, "macs")
    unit = budget * (256 / recipe.patch) ** 2
    return Mean(macs.mean / unit, None if macs.spread is None else macs.spread / unit)


def scaled(mean: Mean, unit: float, decimals: int) -> str:
    """A mean and its spread in another unit.

    >>> scaled(Mean(12_345.0, 678.0), 1e3, 1)
    '12.3 ± 0.7'
    """
    spread = "" if mean.spread is None else f" ± {mean.spread / unit:.{decimals}f}"
    return f"{mean.mean / unit:.{decimals}f}{spread}"


def provenance(records: Sequence[Record]) -> list[str]:
    """Command, date, hardware and versions of records, then the protocol of their scores.

    Records that differ in their recipe alone share a line.
    """
    alike: dict[str, list[str]] = {}
    for record in records:
        line = f"`{record['command'].replace(record['recipe'], '@', 1)}`, {record['date']}, "
        line += f"{record['hardware']}, torch {record['torch']}, trinas {record['trinas']}."
        recipes = alike.setdefault(line, [])
        recipes += [] if record["recipe"] in recipes else [record["recipe"]]
    return [
        *(f"Ours: {line.replace('@', ' '.join(recipes), 1)}" for line, recipes in alike.items()),
        *protocols_of(records),
    ]


def protocols_of(records: Sequence[Record]) -> list[str]:
    """How the networks of these records were scored."""
    runs = [run for record in records for run in record["runs"]]
    protocols = dict.fromkeys(run["stages"]["trained"]["protocol"] for run in runs)
    return [f"Protocol: {protocol}." for protocol in protocols]
