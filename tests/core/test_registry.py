"""Registries: names are unique, and a wrong one leads to the right one."""

import pytest

from trinas._core.errors import SpaceError, UnknownNameError
from trinas._core.registry import Registry


@pytest.fixture
def colours() -> Registry[str]:
    registry: Registry[str] = Registry("colour")
    registry.register("red")("#f00")
    registry.register("blue")("#00f")
    return registry


def test_register_returns_the_thing():
    thing = object()

    assert Registry("thing").register("it")(thing) is thing


def test_what_is_registered_can_be_looked_up(colours):
    assert colours["red"] == "#f00"
    assert "red" in colours
    assert "green" not in colours


def test_names_come_sorted_whatever_the_order_of_registration(colours):
    assert list(colours) == ["blue", "red"]
    assert len(colours) == 2


def test_a_taken_name_is_refused_and_the_old_thing_stays(colours):
    with pytest.raises(SpaceError) as caught:
        colours.register("red")("#e00")

    assert str(caught.value).startswith("colour names are unique; got red; at test_registry.py:")
    assert str(caught.value).endswith("It is taken by '#f00'; choose another name.")
    assert colours["red"] == "#f00"


def test_an_unknown_name_offers_near_ones_and_lists_all(colours):
    with pytest.raises(UnknownNameError) as caught:
        colours["rad"]

    assert str(caught.value) == "unknown colour; got 'rad'. Did you mean 'red'? Known: blue, red."


def test_a_name_like_no_other_only_lists_all(colours):
    with pytest.raises(UnknownNameError) as caught:
        colours["xyzzy"]

    assert str(caught.value) == "unknown colour; got 'xyzzy'. Known: blue, red."


@pytest.mark.parametrize("name", [3, None, ["red"]])
def test_a_name_that_is_no_text_is_unknown_too(colours, name):
    with pytest.raises(UnknownNameError, match="unknown colour"):
        colours[name]


def test_a_definition_run_twice_replaces_itself():
    """As when the cell of a notebook is run again."""
    colours = Registry("colour")

    def define():
        @colours.register("red")
        def red():
            return object()

        return red

    define()
    second = define()

    assert colours["red"] is second
    assert len(colours) == 1

    def other():
        return None

    with pytest.raises(SpaceError, match="colour names are unique; got red"):
        colours.register("red")(other)
