"""Hints: the nearest of the known names."""

import pytest

from trinas._core.hints import did_you_mean


@pytest.mark.parametrize(
    ("name", "known", "settings", "text"),
    [
        ("red", [], {}, ""),
        ("rad", ["blue", "red"], {}, "Did you mean 'red'?"),
        ("rad", ["blue", "red"], {"then": "Look."}, "Did you mean 'red'? Look."),
        ("green", ["blu", "rod"], {"then": "Look."}, "Look."),
        ("rad", ["rid", "red"], {}, "Did you mean 'rid'?"),
        ("rad", ["rid", "red"], {"most": 2}, "Did you mean 'rid' or 'red'?"),
        (7, ["71", "x"], {}, "Did you mean '71'?"),
        ("convolution", {"conv": 1, "relu": 2}, {}, "Did you mean 'conv'?"),
    ],
)
def test_hints(name, known, settings, text):
    assert text == did_you_mean(name, known, **settings)


def test_only_so_many_names_are_looked_at():
    """A message about a large space does not keep anyone waiting."""
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield "x" * (taken % 7)

    assert did_you_mean("xx", endless()) == "Did you mean 'xx'?"
    assert taken == 10_000
