"""The garbage collector is paused for a while, and afterwards as it was."""

import gc

import pytest

import trinas as tn
from trinas._core.collector import paused_collector


@pytest.fixture(params=[True, False], ids=["on", "off"])
def enabled(request):
    """The collector as a program may have it."""
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


def test_it_is_as_it_was_afterwards(enabled):
    with paused_collector():
        assert not gc.isenabled()

    assert enabled == gc.isenabled()


def test_it_is_as_it_was_after_an_error(enabled):
    with pytest.raises(KeyError), paused_collector():
        raise KeyError

    assert enabled == gc.isenabled()


def test_pauses_can_be_nested(enabled):
    with paused_collector(), paused_collector():
        pass

    assert enabled == gc.isenabled()


def test_pauses_of_two_threads_may_overlap(enabled):
    first, second = paused_collector(), paused_collector()
    for pause in (first, second):
        pause.__enter__()
    for pause in (first, second):
        pause.__exit__(None, None, None)

    assert enabled == gc.isenabled()


def test_a_space_that_cannot_be_lowered_leaves_it_on():
    with pytest.raises(tn.TrinasError):
        tn.lower(tn.linear(3), (3, 8, 8))

    assert gc.isenabled()
