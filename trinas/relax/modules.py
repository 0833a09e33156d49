"""Relaxations as modules: a function with its settings, called alike by every supernet.

Shapes: logits `[..., K]`, weights `[..., K]`. The modules hold no state; logits, progress, order
and generator come with the call.
"""

from __future__ import annotations

import abc
from typing import ClassVar

import torch
from torch import Tensor, nn

from trinas._core.errors import RelaxationError
from trinas.relax._order import Order
from trinas.relax.gumbel import check_temperature, gumbel_softmax, reinmax
from trinas.relax.ordered import check_strength, form_named, sort_outside
from trinas.relax.schedule import Exponential, Linear, Schedule, as_schedule, value_at
from trinas.relax.simplex import check_min_spread, project_outside, softmax, sparsemax

# Defaults: the paper's linear growth of the radius, and a cooling as in Gumbel-based search.
_FULL_RANGE = Linear(0.0, 1.0)
_COOLING = Exponential(5.0, 0.2)


class Relaxation(nn.Module, abc.ABC):
    """How a supernet turns the K logits of one choice into K weights.

    Subclass it to bring your own: implement `forward` with this signature (ignore what you do not
    need) and state the class attributes. One that leaves `subsets` at False need not take `k`.

    Attributes:
        closed_at_zero: an entry of weight exactly 0 takes no gradient through its weight, so
            that a supernet may skip its branch with every gradient unchanged.
        stochastic: the weights depend on a generator besides the logits.
        subsets: k > 1 of the entries can be chosen.
        ends_one_hot: at the end of a search (or in every draw) k weights are 1 and the others 0,
            unless logits tie. Options that can be searched but not derived have to leave before.
        runs_all: of a stochastic one: options that were not drawn take a gradient all the same,
            so that a supernet has to run them all. Where False it runs what was drawn.

    >>> class Half(Relaxation):
    ...     def forward(self, logits, *, progress=1.0, order=None, generator=None):
    ...         return 0.5 * softmax(logits) + 0.5 * sparsemax(logits)
    >>> Half()(torch.zeros(2)), Half.closed_at_zero
    (tensor([0.5000, 0.5000]), False)
    """

    closed_at_zero: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False
    subsets: ClassVar[bool] = False
    ends_one_hot: bool = False
    runs_all: bool = False

    @abc.abstractmethod
    def forward(
        self,
        logits: Tensor,
        *,
        progress: float | Tensor = 1.0,
        order: Order | None = None,
        generator: torch.Generator | None = None,
        k: int = 1,
    ) -> Tensor:
        """Return the weights of `logits`.

        Args:
            logits: `[..., K]`.
            progress: the share of the search that is done, in [0, 1], a number or a tensor `[]`;
                for schedules.
            order: what comes before what among the entries; for sorted relaxations.
            generator: the source of noise; for stochastic relaxations.
            k: how many entries are chosen, which is the sum of the weights.
        """


class Softmax(Relaxation):
    """`softmax` as a module; needs nothing but the logits.

    >>> Softmax()(torch.zeros(4))
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    subsets = True

    def forward(
        self,
        logits: Tensor,
        *,
        progress: float | Tensor = 1.0,
        order: Order | None = None,
        generator: torch.Generator | None = None,
        k: int = 1,
    ) -> Tensor:
        """Return `softmax(logits, k=k)`."""
        return softmax(logits, k=k)


class Sparsemax(Relaxation):
    """`sparsemax` as a module; needs nothing but the logits.

    >>> Sparsemax()(torch.tensor([1.0, 0.5, -1.0]))
    tensor([0.7500, 0.2500, 0.0000])
    """

    closed_at_zero = True
    subsets = True

    def forward(
        self,
        logits: Tensor,
        *,
        progress: float | Tensor = 1.0,
        order: Order | None = None,
        generator: torch.Generator | None = None,
        k: int = 1,
    ) -> Tensor:
        """Return `sparsemax(logits, k=k)`."""
        return sparsemax(logits, k=k)


class Sparsestmax(Relaxation):
    """`sparsestmax` whose radius grows with the search.

    Args:
        radius: the radius as a share in [0, 1] of the circumradius, of each row's unmasked entries:
            0 is sparsemax, 1 one-hot. A number, or a schedule of the progress.
        min_spread: a floor under `||z - m||` in the backward pass, see `sparsestmax`.

    Raises:
        RelaxationError: a setting is out of range (a schedule is tried at 0 and 1).

    >>> relax = Sparsestmax(radius=Linear(0.0, 1.0, warmup=0.2))
    >>> z = torch.tensor([0.3, 0.2, -0.1])
    >>> relax(z, progress=0.1)
    tensor([0.5000, 0.4000, 0.1000])
    >>> relax(z, progress=1.0)
    tensor([1., 0., 0.])
    >>> relax(z, progress=1.0, k=2)
    tensor([1., 1., 0.])
    """

    closed_at_zero = True
    subsets = True

    def __init__(self, radius: float | Schedule = _FULL_RANGE, *, min_spread: float = 0.0) -> None:
        super().__init__()
        self.radius = _radius_schedule(radius)
        self.ends_one_hot = self.radius(1.0) == 1
        self.min_spread = check_min_spread(min_spread)

    def forward(
        self,
        logits: Tensor,
        *,
        progress: float | Tensor = 1.0,
        order: Order | None = None,
        generator: torch.Generator | None = None,
        k: int = 1,
    ) -> Tensor:
        """Return `sparsestmax(logits, r, k=k)` with the radius of `progress`."""
        return project_outside(
            logits, value_at(self.radius, progress), -1, self.min_spread, share=True, k=k
        )

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"radius={self.radius}, min_spread={self.min_spread}"


class SortedSparsestmax(Relaxation):
    """`sorted_sparsestmax` whose radius grows with the search; needs an order at every call.

    Args:
        strength: weight of the order's penalty, at least 0.
        form: "linear" (the paper's), "hinge" or "strict", see `sorted_sparsestmax`.
        radius: as in `Sparsestmax`.
        min_spread: as in `Sparsestmax`.

    Raises:
        RelaxationError: a setting is out of range, or a call has no order.
        UnknownNameError: there is no such form.

    >>> relax = SortedSparsestmax(strength=0.1, radius=0.0)
    >>> relax(torch.tensor([0.3, 0.0, 0.2]), order=((0, 1, 2),))
    tensor([0.4667, 0.2167, 0.3167])
    """

    closed_at_zero = True

    def __init__(
        self,
        strength: float = 0.1,
        form: str = "hinge",
        *,
        radius: float | Schedule = _FULL_RANGE,
        min_spread: float = 0.0,
    ) -> None:
        super().__init__()
        self.strength = check_strength(strength)
        self.form = form_named(form)
        self.radius = _radius_schedule(radius)
        self.ends_one_hot = self.radius(1.0) == 1
        self.min_spread = check_min_spread(min_spread)

    def forward(
        self,
        logits: Tensor,
        *,
        progress: float | Tensor = 1.0,
        order: Order | None = None,
        generator: torch.Generator | None = None,
        k: int = 1,
    ) -> Tensor:
        """Return `sorted_sparsestmax(logits, r, order, ...)` with the radius of `progress`."""
        _choose_one(k, self)
        if order is None:
            raise RelaxationError(
                "a sorted relaxation needs an order",
                got=None,
                at="SortedSparsestmax",
                fix="Pass order=(parents or chains), or use Sparsestmax for a choice without one.",
            )
        return sort_outside(
            logits,
            value_at(self.radius, progress),
            order,
            self.strength,
            self.form,
            -1,
            self.min_spread,
            share=True,
        )

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"strength={self.strength}, form={self.form!r}, "
            f"radius={self.radius}, min_spread={self.min_spread}"
        )


class GumbelSoftmax(Relaxation):
    """`gumbel_softmax` whose temperature falls with the search.

    Args:
        temperature: above 0; a number, or a schedule of the progress.
        hard: one-hot weights with the gradient of the soft sample (straight-through).
        all_options: whether options that were not drawn run, too, for the gradient of their
            weights: straight-through as published. Where False (as in GDAS and AGD) a supernet
            runs what was drawn, which costs less, and only that takes a gradient: how much better
            others would have been is not in it.

    Raises:
        RelaxationError: the temperature is not positive (a schedule is tried at 0 and 1).

    >>> relax = GumbelSoftmax(temperature=0.5)
    >>> relax(torch.tensor([9.0, 0.0]), generator=torch.Generator().manual_seed(0))
    tensor([1., 0.])
    """

    stochastic = True
    subsets = True

    def __init__(
        self,
        temperature: float | Schedule = _COOLING,
        *,
        hard: bool = True,
        all_options: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = _temperature_schedule(temperature)
        self.hard = self.ends_one_hot = hard
        self.runs_all = all_options

    def forward(
        self,
        logits: Tensor,
        *,
        progress: float | Tensor = 1.0,
        order: Order | None = None,
        generator: torch.Generator | None = None,
        k: int = 1,
    ) -> Tensor:
        """Return `gumbel_softmax(logits, ..., k=k)` at the temperature of `progress`."""
        temperature = value_at(self.temperature, progress)
        return gumbel_softmax(logits, temperature, self.hard, generator, k=k)

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"temperature={self.temperature}, hard={self.hard}"
            f"{', all_options=True' if self.runs_all else ''}"
        )


class ReinMax(Relaxation):
    """`reinmax` as a module: one-hot draws whose gradient is right to second order.

    A supernet runs all options at every step, also those that were not drawn.

    Args:
        temperature: above 0; a number, or a schedule of the progress. 1 is exact for losses that
            are quadratic in the weights; larger ones have less variance.

    Raises:
        RelaxationError: the temperature is not positive (a schedule is tried at 0 and 1), or more
            than one entry is to be chosen.

    >>> ReinMax()(torch.tensor([9.0, 0.0]), generator=torch.Generator().manual_seed(0))
    tensor([1., 0.])
    """

    stochastic = True
    runs_all = True
    ends_one_hot = True

    def __init__(self, temperature: float | Schedule = 1.0) -> None:
        super().__init__()
        self.temperature = _temperature_schedule(temperature)

    def forward(
        self,
        logits: Tensor,
        *,
        progress: float | Tensor = 1.0,
        order: Order | None = None,
        generator: torch.Generator | None = None,
        k: int = 1,
    ) -> Tensor:
        """Return `reinmax(logits, ...)` at the temperature of `progress`."""
        _choose_one(k, self)
        return reinmax(logits, value_at(self.temperature, progress), generator)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"temperature={self.temperature}"


def _choose_one(k: int, relaxation: Relaxation) -> None:
    """Refuse to choose several entries where that has no meaning."""
    if k != 1:
        raise RelaxationError(
            "this relaxation chooses one entry",
            got=f"k = {k}",
            at=type(relaxation).__name__,
            fix="Sparsestmax, Sparsemax, Softmax and GumbelSoftmax choose several.",
        )


def _temperature_schedule(temperature: float | Schedule) -> Schedule:
    """Return `temperature` as a schedule, having tried both its ends."""
    schedule = as_schedule(temperature)
    for progress in (0.0, 1.0):
        check_temperature(schedule(progress))
    return schedule


def _radius_schedule(radius: float | Schedule) -> Schedule:
    """Return `radius` as a schedule, having tried both its ends."""
    schedule = as_schedule(radius)
    for progress in (0.0, 1.0):
        value = schedule(progress)
        if not 0 <= value <= 1:
            raise RelaxationError(
                "a radius schedule gives shares of the circumradius, in [0, 1]",
                got=value,
                at=f"{schedule} at progress {progress}",
                fix="For an absolute radius use the function sparsestmax.",
            )
    return schedule
