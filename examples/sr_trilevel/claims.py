"""What studies say about the method: measures of every recipe, claims, and verdicts on them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from scipy.stats import t as student

from examples.sr_trilevel.records import Mean, Record, entropy_of, gap_of, length_of, values
from examples.sr_trilevel.results import NOT_RUN, Results, protocols_of, recipe_size, sets_of
from examples.sr_trilevel.sheets import Sheet

# -- measures ------------------------------------------------------------------------------


def _per_run(of: Callable[[Record], float | None]) -> Callable[[Record], list[float] | None]:
    return lambda record: values(record, of)


def _entropy(which: str) -> Callable[[Record], float | None]:
    return lambda run: entropy_of(run, which)


def _gap(run: Record) -> float | None:
    gap = gap_of(run)
    return None if gap is None else abs(gap)


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
    "gap either way, dB": _per_run(_gap),
    "blocks on the path": _per_run(length_of),
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
    *_sparse("gap either way, dB", "sparsestmax leaves no gap to the derived network"),
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
            ("leaves less of a gap", "gap either way, dB", "softmax"),
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
            ("today's signals find better networks", "today", _METHOD),
            ("with today's signals gradients beat random search", "today", "random"),
            ("they do so at equal multiply-adds used", "today", "filled"),
            ("today's blocks beat the paper's", "efficient", _METHOD),
        )
        for measure in _SCORES
    ),
    Claim("today's signals use the budget", _OURS, "multiply-adds, G", "today", ("more", _METHOD)),
    Claim(
        "today's signals find deeper paths", _OURS, "blocks on the path", "today", ("more", _METHOD)
    ),
    *(
        Claim(
            f"with today's signals the order {what}",
            _OURS,
            measure,
            "today",
            (way, "lambda-0+today"),
        )
        for what, measure, way in (
            ("shortens paths", "blocks on the path", "less"),
            ("loses no PSNR", "PSNR, dB", "no less"),
        )
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
    if "dB" in claim.measure and _pictures(one) != _pictures(other):
        return str(means[0]), str(means[1]), "", "of other pictures"
    difference = means[0].mean - means[1].mean
    pairs = _same_networks(one, other)
    margin = interval(first, second, pairs=pairs)
    shown = f"{difference:+.2f}" + ("" if margin is None else f" ± {margin:.2f}")
    said = verdict(difference, margin, claim.than[0])
    return str(means[0]), str(means[1]), shown + " (in pairs)" * pairs, said


def _pictures(record: Record) -> Any:
    """What scores are of: the first set, how many pictures were held out, and the protocol."""
    run = record["runs"][0]
    protocol = run["stages"]["trained"]["protocol"]
    return next(iter(sets_of(record)), None), run.get("held_out"), protocol


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
            "network loses of the supernet's, or gains; PSNR is that on the first set of pictures, "
            "unless it says held-out pictures.",
            *protocols_of(used),
        ),
    )
