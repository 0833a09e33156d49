"""What studies say about the method: measures of every recipe, claims, and verdicts on them."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from scipy.stats import t as student

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


# -- measures ------------------------------------------------------------------------------


def _per_run(path: Callable[[Record], float | None]) -> Callable[[Record], list[float] | None]:
    def of(record: Record) -> list[float] | None:
        values = [path(run) for run in record["runs"]]
        return None if None in values else [v for v in values if v is not None]

    return of


def _entropy(which: str) -> Callable[[Record], float | None]:
    return lambda run: None if run["entropy"] is None else run["entropy"][which]


def _gap(run: Record) -> float | None:
    stages = run["stages"]
    if "supernet" not in stages:
        return None
    return stages["supernet"]["psnr"] - stages["derived"]["psnr"]


def _psnr(run: Record) -> float:
    trained = run["stages"]["trained"]
    first = next(iter(trained["sets"].values()), trained)
    return first["psnr"]


def _held_out(run: Record) -> float:
    return run["stages"]["trained"]["psnr"]


def _early(run: Record) -> float | None:
    """A third of the training done, or the first measurement behind that."""
    steps = [(step, psnr) for phase, step, psnr in run["curve"] if phase == "train"]
    return next((psnr for step, psnr in steps if 3 * step >= run["steps"][1]), None)


def _trained(which: str, unit: float) -> Callable[[Record], float]:
    return lambda run: run["stages"]["trained"][which] / unit


MEASURES: dict[str, Callable[[Record], list[float] | None]] = {
    "entropy of operations": _per_run(_entropy("alpha")),
    "entropy of paths": _per_run(_entropy("beta")),
    "gap, dB": _per_run(_gap),
    "blocks on the path": _per_run(lambda run: len(run["path"].split("-"))),
    "parameters, thousands": _per_run(_trained("params", 1e3)),
    "multiply-adds, G": _per_run(_trained("macs", 1e9)),
    "PSNR, dB": _per_run(_psnr),
    "PSNR of held-out pictures, dB": _per_run(_held_out),
    "PSNR after a third of training, dB": _per_run(_early),
}
"""What is compared, one number for every run of a record; None where a run has no such number.

PSNR is that on the first set of pictures, or where there is none on those held out.
"""


# -- claims --------------------------------------------------------------------------------


@attrs.frozen
class Claim:
    """That one variant has less of something than another, or more.

    Attributes:
        words: the claim.
        source: who makes it.
        measure: of `MEASURES`.
        variant: that has less or more.
        than: less, more or no less, than which other variant.
    """

    words: str
    source: str
    measure: str
    variant: str
    than: tuple[str, str]


def _sparse(measure: str, words: str) -> list[Claim]:
    source = "section 4.1"
    others = ("softmax", "sparsemax", "gumbel")
    return [Claim(words, source, measure, "lambda-0.1", ("less", other)) for other in others]


TOLERANCE = 0.1
"""What in dB is no loss: about what separates two seeds."""

_OURS = "a question of ours"
_METHOD = "lambda-0.1"
_SCORES = ("PSNR, dB", "PSNR of held-out pictures, dB")
_SMALLER_AND_AS_GOOD = (
    ("finds smaller networks", "parameters, thousands", "less"),
    ("finds cheaper networks", "multiply-adds, G", "less"),
    *(("loses no PSNR", measure, "no less") for measure in _SCORES),
)

CLAIMS: tuple[Claim, ...] = (
    *_sparse("entropy of operations", "sparsestmax decides operations"),
    *_sparse("entropy of paths", "sparsestmax decides the path"),
    *_sparse("gap, dB", "sparsestmax leaves no gap to the derived network"),
    *(
        Claim("the order shortens paths", "Table 4", "blocks on the path", one, ("less", other))
        for one, other in (
            ("lambda-0.01", "lambda-0"),
            (_METHOD, "lambda-0"),
            (_METHOD, "lambda-0.01"),
        )
    ),
    *(
        Claim(f"a stronger order {what}", "Table 4", measure, _METHOD, (direction, "lambda-0"))
        for what, measure, direction in _SMALLER_AND_AS_GOOD
    ),
    *(
        Claim(f"{form} {what}", _OURS, measure, form, ("less", than))
        for form in ("hinge", "strict")
        for what, measure, than in (
            ("shortens paths", "blocks on the path", "lambda-0"),
            ("decides the path", "entropy of paths", "softmax"),
            ("leaves less of a gap", "gap, dB", "softmax"),
        )
    ),
    *(
        Claim(words, "Figure 4", measure, _METHOD, ("more", "scratch"))
        for words, measure in (
            ("training from the search ends better", "PSNR, dB"),
            ("training from the search is ahead early", "PSNR after a third of training, dB"),
        )
    ),
    *(
        Claim(f"{words} {what}", source, measure, _METHOD, (direction, other))
        for other, words, source in (
            ("softmax", "sparsestmax", "Table 5"),
            ("trellis", "the tree", "Table 1"),
            ("bilevel", "searching paths, too,", "Table 6"),
        )
        for what, measure, direction in _SMALLER_AND_AS_GOOD
    ),
    *(
        Claim(f"{words} at equal cost", source, measure, "third", ("more", f"{other}+third"))
        for other, words, source in (
            ("trellis", "the tree is ahead", "Table 1"),
            ("bilevel", "searching paths, too, is ahead", "Table 6"),
        )
        for measure in _SCORES
    ),
    *(
        Claim(f"backbone B is {what} than A", "Table 1", measure, _METHOD, ("less", "A"))
        for what, measure in (("cheaper", "multiply-adds, G"), ("smaller", "parameters, thousands"))
    ),
    *(
        Claim(words, _OURS, measure, variant, ("more", other))
        for words, variant, other in (
            ("gradients beat random search", _METHOD, "random"),
            ("today's blocks beat the paper's", "efficient", _METHOD),
        )
        for measure in _SCORES
    ),
    Claim("today's blocks are cheaper", _OURS, "multiply-adds, G", "efficient", ("less", _METHOD)),
)
"""What the paper says about its method, and what a reader asks next, as comparisons."""


def verdict(difference: float, margin: float | None, direction: str) -> str:
    """What a difference of means says about a claim.

    Args:
        difference: of the first variant from the second.
        margin: half the width of its interval; None where there is one run alone.
        direction: ``less``, ``more``, or ``no less``, which allows for `TOLERANCE`, as claimed.

    >>> verdict(-0.5, 0.1, "less"), verdict(-0.5, 0.1, "more"), verdict(-0.5, 0.6, "less")
    ('holds', 'does not hold', 'open')
    >>> verdict(-0.05, 0.02, "no less"), verdict(-0.5, None, "less")
    ('holds', 'one run: no verdict')
    """
    if margin is None:
        return "one run: no verdict"
    sign = -1 if direction == "less" else 1
    least = -TOLERANCE if direction == "no less" else 0.0
    if sign * difference - margin > least:
        return "holds"
    return "does not hold" if sign * difference + margin < least else "open"


def interval(first: Sequence[float], second: Sequence[float], *, pairs: bool) -> float | None:
    """Half the width of the 95 % confidence interval of a difference of means.

    Args:
        first: one number for every run.
        second: the same of the other variant.
        pairs: the two are of the same networks, one by one: Student's interval of their
            differences. Else Welch's, which takes no two spreads for equal.

    Returns:
        None where a variant has one run alone.

    >>> interval([1.0, 2.0, 3.0], [1.5, 2.5, 3.5], pairs=True)
    0.0
    >>> round(interval([1.0, 2.0, 3.0], [1.5, 2.5, 3.5], pairs=False), 2)
    2.27
    """
    if min(len(first), len(second)) < 2:
        return None
    samples = [[a - b for a, b in zip(first, second)]] if pairs else [first, second]
    squares = [statistics.variance(sample) / len(sample) for sample in samples]
    total = sum(squares)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(s**2 / (len(x) - 1) for s, x in zip(squares, samples))
    return float(student.ppf(0.975, freedom)) * math.sqrt(total)


def compared(claim: Claim, one: Record, other: Record) -> tuple[str, str, str, str] | None:
    """Number of the first, of the second, their difference, and the verdict; None without numbers.

    Runs that trained the same networks from the same seeds are compared in pairs.
    """
    measure = MEASURES[claim.measure]
    first, second = measure(one), measure(other)
    if first is None or second is None:
        return None
    means = Mean.of(first), Mean.of(second)
    difference = means[0].mean - means[1].mean
    pairs = _same_networks(one, other)
    margin = interval(first, second, pairs=pairs)
    shown = f"{difference:+.2f}" + ("" if margin is None else f" ± {margin:.2f}")
    said = verdict(difference, margin, claim.than[0])
    return str(means[0]), str(means[1]), shown + " (in pairs)" * pairs, said


def _same_networks(one: Record, other: Record) -> bool:
    def keys(record: Record) -> list[Any]:
        return [(run["seed"], run["genotype"]) for run in record["runs"]]

    return keys(one) == keys(other)


def claims_sheet(results: Results) -> Sheet:
    """Every claim with its numbers and its verdict."""
    rows, used = [], []
    for claim in CLAIMS:
        direction, other = claim.than
        pair = results.pair(claim.variant, other)
        used += pair or ()
        numbers = None if pair is None else compared(claim, *pair)
        size = "" if pair is None else recipe_size(pair[0])
        what = f"{claim.measure}: `{claim.variant}` {direction} than `{other}`"
        rows.append((claim.words, claim.source, what, size, *(numbers or ("", "", "", NOT_RUN))))
    return Sheet(
        title="Claims",
        head=("claim", "whose", "as numbers", "size", "first", "second", "difference", "verdict"),
        rows=rows,
        notes=(
            "First and second: mean ± standard deviation over the seeds. Difference: with its 95 % "
            "confidence interval, Welch's, or Student's where both variants trained the same "
            "networks (in pairs). A claim holds where the interval is on its side, is open where "
            "the interval reaches over, and of so many claims one in twenty would fall on a side "
            f"by chance. No less in dB allows for {TOLERANCE:g}.",
            "Entropy is a share of the largest there can be; the gap is the PSNR that the derived "
            "network loses of the supernet's; PSNR is that on the first set of pictures, unless it "
            "says held-out pictures.",
            *protocols_of(used),
        ),
    )


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
