"""Every error trinas raises on bad input.

All of them are `ValueError`s, so that code which knows nothing of trinas can catch
them, and each says four things: the rule that was broken, the value that broke it,
the place, and what to do about it.
"""

from __future__ import annotations

_UNSET = object()


class TrinasError(ValueError):
    """Bad input to trinas.

    Args:
        rule: the rule that was broken, as a sentence without a full stop.
        got: the offending value (left out of the text when not given).
        at: where it was found: a path in a space, a node of a graph, a file.
        fix: what the user can do.

    The four parts stay available as attributes, for programs that react to them.

    >>> print(TrinasError("a width is positive", got=-3, at="stem/conv", fix="Give at least 1."))
    a width is positive; got -3; at stem/conv. Give at least 1.
    """

    def __init__(
        self, rule: str, *, got: object = _UNSET, at: object = None, fix: str | None = None
    ) -> None:
        self.rule = rule
        self.got = None if got is _UNSET else got
        self.at = None if at is None else str(at)
        self.fix = fix
        text = rule
        if got is not _UNSET:
            text += f"; got {got if isinstance(got, str) else repr(got)}"
        if at is not None:
            text += f"; at {at}"
        if fix is not None:
            text += f". {fix}"
        super().__init__(text)


class SpaceError(TrinasError):
    """A search space that cannot exist: raised while its nodes are being built."""


class ShapeError(TrinasError):
    """Two tensors that have to agree in shape do not: raised while a space is lowered."""


class GraphError(TrinasError):
    """A graph that breaks its written contract: raised by `trinas.graph.lint`."""


class GenotypeError(TrinasError):
    """A genotype that does not fit the space it is used with, or cannot be read."""


class RelaxationError(TrinasError):
    """Logits or settings for which a relaxation is not defined."""


class UnknownNameError(TrinasError):
    """A name that is not registered; the message offers the nearest ones."""


class CheckpointError(TrinasError):
    """A checkpoint that belongs to another space or configuration."""


class DataError(TrinasError):
    """Training or test data that cannot be used; the message names the file."""


class ConfigError(TrinasError):
    """Settings that contradict each other or are out of range."""


class DivergenceError(TrinasError):
    """A loss or a gradient that is not a finite number."""


class DrawingError(TrinasError):
    """A drawing that cannot be made or rendered."""
