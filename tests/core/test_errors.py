"""Errors: their text, their parts, and the line of the user's code they name."""

import copy
import pickle
from pathlib import Path

import pytest

import trinas as tn
from trinas._core import errors
from trinas._core.declared import declared_at
from trinas._core.errors import SpaceError, TrinasError

ALL = [thing for thing in vars(errors).values() if isinstance(thing, type)]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "a rule"),
        ({"got": 3}, "a rule; got 3"),
        ({"got": None}, "a rule; got None"),
        ({"got": "as it is"}, "a rule; got as it is"),
        ({"at": "stem"}, "a rule; at stem"),
        ({"fix": "Do that."}, "a rule. Do that."),
        ({"got": [1], "at": 7, "fix": "Do that."}, "a rule; got [1]; at 7. Do that."),
    ],
)
def test_text(parts, text):
    assert text == str(TrinasError("a rule", **parts))


def test_the_parts_stay_available():
    error = SpaceError("a rule", got=3, at="stem", fix="Do that.")

    assert (error.rule, error.got, error.at, error.fix) == ("a rule", 3, "stem", "Do that.")


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_a_value_error_and_says_when_it_is_raised(kind):
    assert issubclass(kind, TrinasError)
    assert issubclass(kind, ValueError)
    assert kind.__doc__


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_errors_survive_a_process_boundary(copied):
    error = SpaceError("a rule", got=3, at="stem", fix="Do that.")
    other = copied(error)

    assert type(error) is type(other)
    assert str(error) == str(other)
    assert (error.rule, error.got, error.at) == (other.rule, other.got, other.at)


HERE = Path(__file__).name


def test_declared_at_is_the_line_of_the_caller():
    assert declared_at().startswith(f"{HERE}:")


@pytest.mark.parametrize(
    "make",
    [
        lambda: tn.seq(),
        lambda: tn.conv(3, 8),
        lambda: tn.conv_relu(3, 8).children[0],
        lambda: tn.resblock(8),
        lambda: tn.op("conv", 3, 8),
        lambda: tn.op("dwsblock", 8),
        lambda: tn.choice(a=tn.seq()),
        lambda: tn.repeat(tn.seq(), 2),
        lambda: tn.residual(tn.seq()),
        lambda: tn.parallel(tn.seq()),
        lambda: tn.concat(tn.seq()),
        lambda: tn.cell(1, tn.seq()),
        lambda: tn.cell(1, lambda i, j: tn.conv(3, 8)).children[0],
        lambda: tn.stack(tn.seq()),
        lambda: tn.tree(a=tn.seq(), at_most={"a": 1}),
        lambda: tn.trellis(a=tn.seq(), at_most={"a": 1}),
        lambda: tn.share("key", tn.seq()),
    ],
)
def test_every_word_notes_the_line_of_its_user(make):
    assert f"{HERE}:{make.__code__.co_firstlineno}" == make().declared


def test_an_operation_without_a_word_notes_the_line_of_the_node_around_it():
    bare = tn.conv(3, 8).operation
    node = tn.seq(bare)

    assert node.declared == node.children[0].declared
    assert node.declared.startswith(f"{HERE}:")


def test_a_renamed_node_keeps_its_line():
    node = tn.conv(3, 8)

    assert node.declared == node.named("other").declared


def test_the_line_is_not_part_of_equality():
    first = tn.conv(3, 8)
    second = tn.conv(3, 8)

    assert first.declared != second.declared
    assert first == second
    assert hash(first) == hash(second)
