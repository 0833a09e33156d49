"""What someone may have meant who wrote a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

_LOOKED_AT = 10_000  # names; more would keep the one who waits for the message


def did_you_mean(name: object, known: Iterable[str], *, then: str = "", most: int = 1) -> str:
    """The nearest known names as a question, or nothing where none is near.

    Args:
        name: what was written.
        known: what could have been meant.
        then: a sentence that follows in any case.
        most: how many names to offer.

    >>> did_you_mean("cnov", ["conv", "relu"], then="Known: conv, relu.")
    "Did you mean 'conv'? Known: conv, relu."
    >>> did_you_mean("xyz", ["conv", "relu"], then="Known: conv, relu.")
    'Known: conv, relu.'
    """
    near = difflib.get_close_matches(str(name), islice(known, _LOOKED_AT), n=most, cutoff=0.5)
    question = f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return " ".join(filter(None, (question, then)))
