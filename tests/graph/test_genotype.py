"""Genotypes: canonical, checked, the same after writing and reading."""

import copy
import json
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import IN_SHAPE, spaces

import trinas as tn
from trinas import Genotype
from trinas._core.errors import GenotypeError

INNER = tn.seq(tn.choice(x=tn.conv(1, 4), y=tn.seq(), name="inner"))


def graph() -> tn.Graph:
    """A space with a decision of every kind."""
    w = tn.width(values=(2, 4))
    space = tn.seq(
        tn.choice(a=INNER, b=tn.seq(), none=tn.zero(), search_only="none", name="slot"),
        tn.repeat(tn.relu(), (0, 1)),
        tn.tree(a=tn.relu(), at_most={"a": 2}),
        tn.cell(3, tn.relu(), keep=2, merge="last"),
        tn.seq(tn.conv(1, w), tn.conv(1, 4), name="body"),
    )
    return tn.lower(space, IN_SHAPE)


ALL = {
    "slot": "a",
    "slot/a/inner": "y",
    "repeat": 1,
    "tree": "a-a",
    "cell/node[3]": (0, 2),
    "body/conv[0]/width": 4,
}


def test_it_is_a_mapping():
    genotype = Genotype.of(graph(), ALL)

    assert dict(genotype) == ALL
    assert sorted(ALL) == list(genotype)
    assert genotype["slot"] == "a"
    assert ("slot" in genotype, "slott" in genotype) == (True, False)
    assert len(ALL) == len(genotype)
    assert genotype.get("slott", 3) == 3
    assert {**genotype} == ALL


def test_the_order_of_writing_does_not_matter():
    space = graph()
    pairs = list(ALL.items())
    random.Random(1).shuffle(pairs)
    first, second = Genotype.of(space, ALL), Genotype.of(space, dict(pairs))

    assert first == second
    assert hash(first) == hash(second)
    assert first.to_json() == second.to_json()
    assert repr(first) == repr(second)


def test_it_is_equal_whatever_graph_it_was_checked_against():
    assert Genotype.of(graph(), ALL) == Genotype.of(graph(), ALL)


def test_lists_stand_for_tuples():
    space = graph()

    assert Genotype.of(space, ALL) == Genotype.of(space, {**ALL, "cell/node[3]": [0, 2]})


def test_inactive_outcomes_are_dropped():
    """Two descriptions of one network are one genotype."""
    genotype = Genotype.of(graph(), {**ALL, "slot": "b"})

    assert "slot/a/inner" not in genotype
    without = {path: value for path, value in ALL.items() if path != "slot/a/inner"}
    assert genotype == Genotype.of(graph(), {**without, "slot": "b"})


def test_text():
    space = tn.lower(tn.seq(INNER, INNER), IN_SHAPE)
    genotype = Genotype.of(space, {"inner[1]": "x", "inner[0]": "y"})

    assert repr(genotype) == "Genotype(inner[0]='y', inner[1]='x')"


@given(spaces(), st.integers(0, 3))
def test_reading_gives_what_was_written(space, seed):
    lowered = tn.lower(space, IN_SHAPE)
    genotype = tn.sample(lowered, seed)
    other = Genotype.from_json(genotype.to_json(), lowered)

    assert genotype == other
    assert genotype.to_json() == other.to_json()
    assert genotype == Genotype.of(lowered, dict(genotype))


def test_the_json_form():
    text = Genotype.of(graph(), ALL).to_json()

    assert text.endswith("}\n")
    assert json.loads(text) == {"trinas_genotype": 1, "decisions": {**ALL, "cell/node[3]": [0, 2]}}
    assert '    "slot": "a",\n' in text


def test_files(tmp_path):
    space = graph()
    path = tmp_path / "genotype.json"
    genotype = Genotype.of(space, ALL)
    genotype.save(path)

    assert genotype == Genotype.from_json(path, space)
    genotype.save(str(path))
    assert genotype.to_json() == path.read_text()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
def test_copies(copied):
    genotype = Genotype.of(graph(), ALL)
    other = copied(genotype)

    assert genotype == other
    assert genotype.graph == other.graph
    assert other["slot"] == "a"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"slot": "c"},
            "an outcome is one of the options of its decision; got 'c'; at slot. "
            "The options are a, b.",
        ),
        (
            {"slot": "none"},
            "an outcome is one of the options of its decision; got 'none'; at slot. "
            "The options are a, b.",
        ),
        (
            {"repeat": True},
            "an outcome is one of the options of its decision; got True; at repeat. "
            "The options are 0, 1.",
        ),
        (
            {"cell/node[3]": (2, 0)},
            "an outcome is one of the options of its decision; got (2, 0); at cell/node[3]. "
            "Give 2 different numbers of [0, 1, 2], ascending.",
        ),
        (
            {"body/conv[0]/width": 3},
            "an outcome is one of the options of its decision; got 3; at body/conv[0]/width. "
            "The options are 2, 4.",
        ),
        (
            {"slto": "a"},
            "a genotype names decisions of its space; got slto; at slto. Did you mean 'slot'?",
        ),
        (
            {"entirely/different": "a"},
            "a genotype names decisions of its space; got entirely/different; at "
            "entirely/different. Was it made for another space?",
        ),
        ({3: "a"}, "a genotype names decisions of its space; got 3; at 3. Was it made for"),
    ],
)
def test_what_does_not_fit_is_named(change, text):
    with pytest.raises(GenotypeError) as caught:
        Genotype.of(graph(), {**ALL, **change})

    assert str(caught.value).startswith(text)


def test_every_active_decision_has_an_outcome():
    given = {path: value for path, value in ALL.items() if path != "tree"}
    with pytest.raises(GenotypeError) as caught:
        Genotype.of(graph(), given)

    text = (
        "a genotype settles every active decision; got nothing for 'tree'; at tree. "
        "Was it made for another space?"
    )
    assert text == str(caught.value)


def test_a_genotype_of_another_space():
    other = tn.lower(tn.choice(a=tn.conv(3, 4), b=tn.seq(), name="shot"), IN_SHAPE)
    genotype = tn.sample(other, 0)

    with pytest.raises(GenotypeError, match=r"got shot; at shot\. Did you mean 'slot'"):
        Genotype.of(graph(), genotype)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a genotype is JSON; got Expecting value: line 1 column 1"),
        ("genotype.json", "a genotype is JSON; .* Pass its text, or a pathlib.Path to read a file"),
        ("[]", 'a genotype is an object with "trinas_genotype" and "decisions"'),
        ('{"decisions": []}', 'a genotype is an object with "trinas_genotype" and "decisions"'),
        ('{"decisions": {}}', "this trinas reads genotypes of version 1; got None"),
        (
            '{"trinas_genotype": 2, "decisions": {}}',
            "this trinas reads genotypes of version 1; got 2. Read it with the trinas that wrote",
        ),
        (
            '{"trinas_genotype": 1, "decisions": {"slot": "c"}}',
            "an outcome is one of the options",
        ),
        ('{"trinas_genotype": 1, "decisions": {"slot": {}}}', "an outcome is one of the options"),
        ('{"trinas_genotype": 1, "decisions": {"slot": [[]]}}', "an outcome is one of"),
    ],
)
def test_what_cannot_be_read(text, message):
    with pytest.raises(GenotypeError, match=message):
        Genotype.from_json(text, graph())


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text("{")

    with pytest.raises(GenotypeError, match=r"at .*broken\.json"):
        Genotype.from_json(path, graph())
    with pytest.raises(GenotypeError, match=r"read from a text file; .* at .*nowhere\.json"):
        Genotype.load(tmp_path / "nowhere.json", graph())
    path.write_bytes(b"\x89PNG\r\n\xff")
    with pytest.raises(GenotypeError, match=r"read from a text file; .* at .*broken\.json"):
        Genotype.load(str(path), graph())


def test_looking_up_takes_the_same_time_in_large_genotypes():
    """Three thousand decisions are read one by one in well under a second."""
    space = tn.lower(tn.seq(*[tn.choice(a=tn.relu(), b=tn.seq())] * 3000), IN_SHAPE)
    genotype = tn.sample(space, 0)

    assert len(dict(genotype.items())) == 3000
    assert dict(tn.specialise(space, genotype).decisions) == {}
