"""Work grows in proportion to a space, counted in calls of functions rather than in time."""

import operator
import pickle
import sys
from collections.abc import Callable
from functools import partial

import pytest

import trinas as tn


def chain(count: int) -> tn.Node:
    """Choices in a row, as the benchmark of large spaces has them."""
    return tn.seq(*(tn.choice(a=tn.conv(3, 8), b=tn.seq(), name="c") for _ in range(count)))


def widths(count: int) -> tn.Node:
    """Widths that are in reach everywhere, and as many that are not."""
    items = []
    for i in range(count):
        far, near = tn.width(values=(4, 8), name=f"far{i}"), tn.width(values=(4, 8))
        items += [tn.conv(3, far), tn.conv(1, far), tn.conv(1, near), tn.conv(1, 8)]
    return tn.seq(*items)


def concat(count: int) -> tn.Node:
    """One tensor of many searched pieces."""
    pieces = (tn.conv(1, tn.width(values=(4, 8))) for _ in range(count))
    return tn.seq(tn.concat(*pieces), tn.relu(), tn.conv(1, 8))


def stack(count: int) -> tn.Node:
    return tn.stack(*(tn.choice(a=tn.conv(3, 8), b=tn.relu()) for _ in range(count)))


def shared(count: int) -> tn.Node:
    return tn.seq(*[tn.share("key", tn.choice(a=tn.conv(3, 8), b=tn.relu()), weights=True)] * count)


def calls(work: Callable[[], object]) -> int:
    """How many functions are called, builtin ones included."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def lowered(space: tn.Node) -> tn.Graph:
    return tn.lower(space, (8, 8, 8))


def sampled(space: tn.Node) -> tn.Genotype:
    return tn.sample(lowered(space), 0)


def prepared(space: tn.Node) -> dict[str, Callable[[], object]]:
    """What there is to do, with everything at hand that it starts from."""
    graph, genotype = lowered(space), sampled(space)
    return {
        "lower": partial(lowered, space),
        "specialise": partial(tn.specialise, graph, genotype),
        "sample": partial(tn.sample, graph, 0),
        "read": partial(tn.Genotype.from_json, genotype.to_json(), graph),
        "text": partial(getattr, graph, "text"),
        "networkx": partial(getattr, graph, "nx"),
        "cardinality": partial(tn.cardinality, space),
        "equality": partial(operator.eq, space, pickle.loads(pickle.dumps(space))),
        "hash": partial(hash, space),
        "repr": partial(repr, space),
    }


JOBS = tuple(prepared(tn.relu()))
# The joint settings of widths in reach of each other are counted together.
CASES = [
    (job, make)
    for job in JOBS
    for make in (chain, widths, concat, stack, shared)
    if job != "cardinality" or make not in (widths, concat)
]


@pytest.mark.parametrize(("job", "make"), CASES)
def test_four_times_the_space_is_four_times_the_work(job, make):
    small, large = (calls(prepared(make(count))[job]) for count in (50, 200))

    assert large <= 4.3 * small


def test_the_growth_of_work_is_seen():
    """The check above can fail."""
    small, large = (calls(lambda n=n: [len(str(i)) for i in range(n**2)]) for n in (50, 200))

    assert large > 10 * small
