"""The registry of operations: what is in it, by which names."""

import inspect

import attrs
import pytest

import trinas as tn
from trinas._core.errors import SpaceError, UnknownNameError
from trinas.space.nodes import Node

OURS = [name for name in tn.operations if tn.operations[name].__module__.startswith("trinas.ops")]


def test_every_word_for_an_operation_is_registered_under_its_own_name():
    words = {
        n
        for n, thing in vars(tn).items()
        if getattr(thing, "__module__", "").startswith("trinas.ops")
    }

    assert set(OURS) == words - {"Operation", "op", "operation", "operations", "Cut"}


@pytest.mark.parametrize("name", OURS)
def test_registered_words_are_documented_and_typed(name):
    word = tn.operations[name]
    signature = inspect.signature(word)

    assert word is getattr(tn, name)
    assert word.__doc__
    assert signature.return_annotation is not signature.empty
    assert all(p.annotation is not p.empty for p in signature.parameters.values())


def test_an_operation_by_name():
    assert tn.conv(3, 8, stride=2) == tn.op("conv", 3, 8, stride=2)
    assert tn.conv(3, 8, name="stem") == tn.op("conv", 3, 8, name="stem")
    assert tn.resblock(8).named("block") == tn.op("resblock", 8, name="block")


def test_every_operation_goes_by_name_and_is_a_node():
    for make in (lambda: tn.op("relu"), lambda: tn.op("dwsblock", 8)):
        assert isinstance(make(), Node)


def test_an_unknown_operation_offers_near_names():
    with pytest.raises(UnknownNameError) as caught:
        tn.op("cnov", 3, 8)

    text = str(caught.value)
    assert text.startswith("unknown operation; got 'cnov'; at test_ops_registry.py:")
    assert "Did you mean 'conv'" in text
    assert "Known: activation, affine, avg_pool, " in text


def test_a_taken_name_is_refused():
    with pytest.raises(SpaceError, match="operation names are unique; got conv"):
        tn.operation("conv")(lambda: tn.relu())

    assert tn.operations["conv"] is tn.conv


@pytest.mark.parametrize("name", ["my op", "", "a/b", None])
def test_a_name_that_does_not_fit_into_a_path_is_refused(name):
    with pytest.raises(SpaceError, match="a name in a space is made of letters"):
        tn.operation(name)


def test_a_block_stays_the_function_that_it_is():
    def twice(channels: int) -> Node:
        return tn.seq(tn.conv(3, channels), tn.conv(3, channels))

    assert twice is tn.operation("registry_twice")(twice)
    assert twice(4) == tn.op("registry_twice", 4)


def test_a_class_that_is_frozen_already_keeps_its_defaults():
    @tn.operation("registry_frozen")
    @attrs.frozen
    class Frozen(tn.Operation):
        times: int = 3

    assert Frozen().times == 3
    assert Frozen(4).times == 4
    assert Frozen().kind == "registry_frozen"
