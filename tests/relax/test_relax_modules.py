"""Modules: the functions they stand for, their schedules, and one way to call them all."""

import copy
import inspect
import math
import pickle

import pytest
import torch

from trinas._core.errors import RelaxationError, UnknownNameError
from trinas.relax import (
    Exponential,
    GumbelSoftmax,
    Linear,
    ReinMax,
    Relaxation,
    Softmax,
    SortedSparsestmax,
    Sparsemax,
    Sparsestmax,
    circumradius,
    gumbel_softmax,
    softmax,
    sorted_sparsestmax,
    sparsemax,
    sparsestmax,
)

MODULES = [Softmax, Sparsemax, Sparsestmax, SortedSparsestmax, GumbelSoftmax, ReinMax]
CHAIN = ((0, 1, 2, 3),)


def logits():
    generator = torch.Generator().manual_seed(4)
    return torch.randn(6, 4, generator=generator, dtype=torch.float64) * 0.4


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", MODULES)
def test_all_are_called_alike_and_hold_no_state(kind):
    module = kind()
    q = module(logits(), progress=0.5, order=CHAIN, generator=rng())

    assert torch.allclose(q.sum(-1), torch.ones(6, dtype=torch.float64))
    assert list(module.parameters()) == list(module.buffers()) == []
    assert inspect.signature(kind.forward) == inspect.signature(Relaxation.forward)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(twin) == repr(module)
        assert torch.equal(twin(logits(), progress=0.5, order=CHAIN, generator=rng()), q)


def test_class_attributes_tell_what_a_supernet_may_do():
    closed = {kind: kind.closed_at_zero for kind in MODULES}
    noisy = {kind: kind.stochastic for kind in MODULES}

    assert closed == dict(zip(MODULES, [False, True, True, True, False, False]))
    assert noisy == dict(zip(MODULES, [False, False, False, False, True, True]))


@pytest.mark.parametrize("kind", [kind for kind in MODULES if kind.closed_at_zero])
def test_closed_at_zero_means_no_gradient_through_a_zero(kind):
    z = logits().requires_grad_()
    q = kind()(z, progress=0.6, order=CHAIN)
    zeros = q == 0
    (grad,) = torch.autograd.grad(q, z, zeros.double() * torch.arange(1.0, 5.0))

    assert zeros.any()
    assert grad.abs().sum() == 0


def test_modules_equal_their_functions():
    z, order = logits(), (-1, 0, 1, 0)
    radius = 0.45 * circumradius(4)

    for got, expected in (
        (Softmax()(z), softmax(z)),
        (Sparsemax()(z), sparsemax(z)),
        (Sparsestmax(0.45)(z), sparsestmax(z, radius)),
        (Sparsestmax()(z, progress=0.45), sparsestmax(z, radius)),
        (Sparsestmax()(z), sparsestmax(z, circumradius(4))),
        (
            SortedSparsestmax(0.2, "linear", radius=0.45)(z, order=order),
            sorted_sparsestmax(z, radius, order, 0.2, "linear"),
        ),
        (
            SortedSparsestmax()(z, order=order, progress=0.45),
            sorted_sparsestmax(z, radius, order),
        ),
        (
            GumbelSoftmax(Exponential(4.0, 1.0), hard=False)(z, progress=0.5, generator=rng()),
            gumbel_softmax(z, 2.0, False, rng()),
        ),
        (GumbelSoftmax(0.5)(z, generator=rng()), gumbel_softmax(z, 0.5, True, rng())),
    ):
        assert torch.allclose(got, expected)


def test_a_warm_up_holds_the_radius():
    relax = Sparsestmax(Linear(0.0, 1.0, warmup=0.4))

    assert torch.equal(relax(logits(), progress=0.4), sparsemax(logits()))
    assert not torch.equal(relax(logits(), progress=0.9), sparsemax(logits()))


@pytest.mark.parametrize("kind", [Sparsestmax, SortedSparsestmax])
def test_min_spread_bounds_the_gradient(kind):
    z = (logits() * 1e-4).requires_grad_()
    grads = []
    for floor in (0.0, 0.1):
        relax = kind(radius=0.6, min_spread=floor)
        grads.append(torch.autograd.grad(relax(z, order=CHAIN)[:, 0].sum(), z)[0].abs().max())

    assert grads[0] > 20 * grads[1] > 0


def test_the_radius_is_a_share_of_what_the_mask_leaves():
    """So that a masked row behaves as the smaller choice that it is."""
    z = logits()
    masked = z.clone()
    masked[:3, 1] = -math.inf
    got = Sparsestmax(0.7)(masked)

    assert torch.allclose(got[:3][:, [0, 2, 3]], Sparsestmax(0.7)(z[:3][:, [0, 2, 3]]))
    assert torch.allclose(got[3:], Sparsestmax(0.7)(z[3:]))
    assert ((Sparsestmax(1.0)(masked) == 1).sum(-1) == 1).all()


def test_settings_are_shown():
    assert repr(Sparsestmax()) == (
        "Sparsestmax(radius=Linear(start=0.0, end=1.0, warmup=0.0), min_spread=0.0)"
    )
    assert "strength=0.2, form='strict', radius=Constant(value=0.5)" in repr(
        SortedSparsestmax(0.2, "strict", radius=0.5)
    )
    assert "temperature=Constant(value=1.0), hard=False" in repr(GumbelSoftmax(1.0, hard=False))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Sparsestmax(1.5), "shares of the circumradius, in [0, 1]; got 1.5; at Constant"),
        (lambda: Sparsestmax(Linear(0, 2)), "got 2.0; at Linear(start=0, end=2, warmup=0.0) at"),
        (lambda: Sparsestmax(Linear(-1, 1)), "at progress 0.0. For an absolute radius use"),
        (lambda: SortedSparsestmax(radius=math.nan), "got nan"),
        (lambda: Sparsestmax(min_spread=-1), "min_spread is a finite number, 0 or more; got -1"),
        (lambda: SortedSparsestmax(-1), "strength of an order is a finite number, 0 or more"),
        (lambda: GumbelSoftmax(0.0), "a temperature is a positive, finite number; got 0.0"),
        (lambda: GumbelSoftmax(Linear(1, 0)), "a temperature is a positive, finite number"),
        (lambda: SortedSparsestmax()(logits()), "a sorted relaxation needs an order; got None"),
        (lambda: Sparsestmax(lambda p: 4 * p * (1 - p) * 2)(logits(), progress=0.5), "got 2.0"),
        (lambda: Sparsestmax()(logits(), progress=1.5), "progress is the share of the search"),
    ],
)
def test_bad_settings_are_refused(make, text):
    with pytest.raises(RelaxationError) as error:
        make()

    assert text in str(error.value)


def test_an_unknown_form_is_refused_with_the_nearest_names():
    with pytest.raises(UnknownNameError, match="Did you mean 'linear'"):
        SortedSparsestmax(form="liner")


def test_the_interface_cannot_be_used_by_itself():
    with pytest.raises(TypeError, match="abstract"):
        Relaxation()
