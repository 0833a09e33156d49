"""Channel counts that are searched: arithmetic, normal form, comparison."""

import copy
import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trinas as tn
from trinas._core.errors import SpaceError
from trinas.space.shape import Shape
from trinas.space.values import (
    IN,
    Var,
    Width,
    add_up,
    assignments,
    check_value,
    exact_quotient,
    joint_size,
    largest,
    same,
    smallest,
    substitute,
    symbols,
)

A, B, C = Width((3, 8, 17), "a"), Width((4, 9), "b"), Width((5, 11, 30), "c")
EVERYWHERE = [
    dict(zip((A, B, C), numbers)) for numbers in itertools.product(A.values, B.values, C.values)
]

# An expression, and the same function of the widths in plain Python.
leaves = st.sampled_from([(w, (lambda at, w=w: at[w])) for w in (A, B, C)])


def _grow(pairs):
    times = st.builds(lambda p, k: (p[0] * k, lambda at: p[1](at) * k), pairs, st.integers(1, 6))
    over = st.builds(lambda p, k: (p[0] // k, lambda at: p[1](at) // k), pairs, st.integers(1, 9))
    plus = st.builds(lambda p, q: (p[0] + q[0], lambda at: p[1](at) + q[1](at)), pairs, pairs)
    more = st.builds(lambda p, k: (k + p[0], lambda at: p[1](at) + k), pairs, st.integers(0, 9))
    less = st.builds(lambda p, k: (p[0] - k, lambda at: p[1](at) - k), pairs, st.integers(0, 9))
    return st.one_of(times, over, plus, more, less)


expressions = st.recursive(leaves, _grow, max_leaves=6)


@given(expressions)
def test_an_expression_is_the_function_it_was_written_as(pair):
    value, function = pair

    assert [function(at) for at in EVERYWHERE] == [substitute(value, at) for at in EVERYWHERE]


@given(st.lists(expressions.map(lambda pair: pair[0]) | st.integers(1, 9), max_size=5))
def test_adding_up_at_once_is_adding_one_by_one(values):
    assert add_up(values) == sum(values)


@given(expressions)
def test_extremes_are_those_of_all_cases(pair):
    value, function = pair
    cases = [function(at) for at in EVERYWHERE]

    assert (min(cases), max(cases)) == (smallest(value), largest(value))


@given(expressions, expressions)
def test_same_is_equality_in_all_cases(left, right):
    agree = all(left[1](at) == right[1](at) for at in EVERYWHERE)

    assert agree == same(left[0], right[0])


@given(expressions, st.sampled_from([(A,), (A, B), (B, C)]))
def test_widths_can_be_settled_one_after_another(pair, first):
    value, function = pair
    for at in EVERYWHERE[::5]:
        step = substitute(value, {w: at[w] for w in first})
        assert not set(first) & set(symbols(step))
        assert function(at) == substitute(step, at)


@given(expressions, st.integers(1, 9))
def test_exact_quotient_exists_where_every_case_divides(pair, divisor):
    value, function = pair
    part = exact_quotient(value, divisor)
    divides = all(function(at) % divisor == 0 for at in EVERYWHERE)

    assert divides == (part is not None)
    if part is not None:
        assert all(function(at) == substitute(part, at) * divisor for at in EVERYWHERE)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (A * 2, A + A),
        (A + B, B + A),
        (A + 1 - 1, A),
        (A * 4 // 4, A),
        ((A * 2 + B * 2) // 2, A + B),
        ((A * 2) // 4, A // 2),
        ((A * 5) // 4, A + A // 4),
        ((A + 8) // 8, A // 8 + 1),
        ((A // 2) // 3, A // 6),
        ((A // 2 + 1) // 3, (A + 2) // 6),
        (((A + 3) // 2 + B) // 1, (A + 3) // 2 + B),
        ((IN * 2) // 4, IN // 2),
        (A // 100, 0),
        ((A // 2) * 2 // 4, (A // 2) // 2),
    ],
)
def test_equal_functions_have_one_normal_form(left, right):
    assert left == right
    assert str(left) == str(right)


def test_the_normal_form_does_not_depend_on_the_order_of_alike_widths():
    first, second = Width((3, 8)), Width((3, 8))

    assert first // 3 + second // 3 == second // 3 + first // 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (A, "a"),
        (Width((8, 16)), "width[8, 16]"),
        (A * 3 + B + 2, "3*a + b + 2"),
        (A - 2, "a - 2"),
        ((A * 3 + B) // 2, "((a + b) // 2) + a"),
        (IN * 2, "2*IN"),
    ],
)
def test_text(value, text):
    assert text == str(value)


def test_a_width_is_a_variable_and_equals_itself_only():
    first, second = Width((8, 16)), Width((8, 16))

    assert first == first  # that is the point
    assert first != second
    assert not same(first, second)
    assert len({first, second}) == 2


def test_a_place_is_named_by_its_path():
    assert Var("slot/width", (8, 16)) == Var("slot/width", (8, 16))
    assert Var("slot/width", (8, 16)) != Var("slot/width", (8, 24))


def test_copies_of_an_expression_stay_consistent():
    pair = (A * 2, A + A)

    left, right = copy.deepcopy(pair)
    assert left == right
    left, right = pickle.loads(pickle.dumps(pair))
    assert left == right
    assert pickle.loads(pickle.dumps(IN * 2)) == IN * 2


def test_comparing_many_widths_is_given_up_not_got_wrong():
    """Beyond the limit only the normal form counts, and unknown is taken for different."""
    many = [Width((3, 4, 5)) for _ in range(12)]
    total = many[0]
    for width in many[1:]:
        total = total + width

    assert joint_size(symbols(total)) == 3**12
    assert same(total * 2, total + total)
    assert not same(total, total // 2)
    assert exact_quotient(total * 4, 4) == total
    assert exact_quotient(total, 2) is None


def test_assignments_cover_the_searched_symbols_only():
    assert list(assignments((IN, A))) == [{A: 3}, {A: 8}, {A: 17}]
    assert list(assignments(())) == [{}]


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda: A * 0, "a width is multiplied by a whole number of at least 1; got 0"),
        (lambda: A * 1.5, "a width is multiplied by a whole number of at least 1; got 1.5"),
        (lambda: A * B, "a width is multiplied by a whole number of at least 1; got Width"),
        (lambda: A // 0, "a width is divided by a whole number of at least 1; got 0"),
        (lambda: A // True, "a width is divided by a whole number of at least 1; got True"),
        (lambda: A - B, "only a whole number can be taken from a width; got Width"),
        (lambda: A - -1, "only a whole number can be taken from a width; got -1"),
        (lambda: 64 - A, "a channel count grows with its widths, so no width is taken away"),
        (lambda: A / 2, "a channel count is a whole number; got a / 2"),
        (lambda: A + 1.0, "a channel count is an int, a width, or an expression of widths"),
        (lambda: A + "1", "a channel count is an int, a width, or an expression of widths"),
    ],
)
def test_what_cannot_be_written_says_so_and_where(write, text):
    with pytest.raises(SpaceError) as caught:
        write()

    assert str(caught.value).startswith(text)
    assert f"at test_values.py:{write.__code__.co_firstlineno}" in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("value", [1, A, A * 2, A - 2, IN, IN - 99, A // 3])
def test_usable_counts(value):
    assert value is check_value(value)


@pytest.mark.parametrize("value", [0, -3, A - 3, A // 4])
def test_a_count_that_can_fall_below_one_is_refused(value):
    with pytest.raises(SpaceError, match="a channel count is at least 1; got "):
        check_value(value)


@pytest.mark.parametrize("value", [2.0, True, None, "8", [8]])
def test_a_count_that_is_no_count_is_refused(value):
    with pytest.raises(SpaceError, match="a channel count is an int, a width, or an expression"):
        check_value(value)


# ------------------------------------------------------------ shapes


def test_a_shape_of_numbers():
    shape = Shape.of(3, 32, 16)

    assert shape.numbers() == (3, 32, 16)
    assert shape.channels == 3
    assert shape.positions == 512
    assert shape.symbols == ()
    assert str(shape) == "3x32x16"


def test_a_vector_has_one_position():
    assert (Shape.of(12).positions, str(Shape.of(12))) == (1, "12")


def test_pieces_that_are_searched_stay_apart_and_fixed_neighbours_join():
    assert Shape((2, 3, A, 1, B), (4, 4)).segments == (5, A, 1, B)


def test_a_searched_shape():
    shape = Shape((A, B), (4, 4))

    assert shape.channels == A + B
    assert shape.symbols == (A, B)
    assert shape.numbers() == (26, 4, 4)
    assert Shape((17, 9), (4, 4)) == shape.widest
    assert Shape((3, B), (4, 4)) == shape.at({A: 3})
    assert Shape((12,), (4, 4)) == shape.at({A: 8, B: 4})
    assert Shape((A, B), (2, 1)) == shape.with_size(2, 1)
    assert Shape.of(7, 4, 4) == shape.with_channels(7)
    assert str(shape) == "(a + b)x4x4"


# ------------------------------------------------------------ the word `width`


def test_the_widths_of_the_paper():
    """Section 3.2 with base 64: the widths that its tables show."""
    ratios = (1 / 3, 1 / 2, 2 / 3, 5 / 6, 1)

    assert tn.width(64, ratios=ratios, divisor=8).values == (24, 32, 40, 56, 64)


@given(st.integers(1, 40), st.integers(1, 16), st.lists(st.floats(0.01, 1.0), min_size=1))
def test_candidates_are_multiples_near_their_share(groups, divisor, ratios):
    base = groups * divisor
    for ratio in ratios:
        (candidate,) = tn.width(base, ratios=[ratio], divisor=divisor).values

        assert candidate % divisor == 0
        assert divisor <= candidate <= base
        assert candidate >= 0.9 * base * ratio
        assert candidate - base * ratio < 1.5 * divisor


def test_values_come_sorted_and_once():
    assert tn.width(values=[16, 8, 16]).values == (8, 16)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "a width has a base with ratios"),
        ({"values": ()}, "a width has a base with ratios"),
        ({"base": 64, "values": (8,)}, "a width has a base with ratios"),
        ({"values": (8,), "ratios": (0.5,)}, "a width has a base with ratios"),
        ({"values": (8,), "divisor": 4}, "a width has a base with ratios"),
        ({"base": 64}, r"the ratios of a width lie in \(0, 1\]; got \(\)"),
        ({"base": 64, "ratios": (0.5, 1.5)}, r"the ratios of a width lie in \(0, 1\]"),
        ({"base": 64, "ratios": (0,)}, r"the ratios of a width lie in \(0, 1\]"),
        ({"base": 64, "ratios": (float("nan"),)}, r"the ratios of a width lie in \(0, 1\]"),
        ({"base": 0, "ratios": (1,)}, "the base of a width is a whole number of at least 1"),
        ({"base": 8.0, "ratios": (1,)}, "the base of a width is a whole number of at least 1"),
        ({"base": 8, "ratios": (1,), "divisor": 0}, "the divisor of a width is a whole number"),
        ({"base": 60, "ratios": (1,), "divisor": 8}, "beyond its base; got 64 of 60"),
        ({"values": (0, 8)}, "a width is a whole number of at least 1"),
        ({"values": (8, 16.0)}, "a width is a whole number of at least 1"),
        ({"values": (8, "16")}, "a width is a whole number of at least 1"),
        ({"values": (8,), "name": "a b"}, "a name in a space is made of letters"),
    ],
)
def test_a_width_that_cannot_be(settings, text):
    with pytest.raises(SpaceError, match=text) as caught:
        tn.width(**settings)

    assert "at test_values.py:" in str(caught.value)
    assert caught.value.fix
