"""Gumbel-softmax: its law, its formula, its repeatability and its gradient."""

import math

import pytest
import torch

from trinas._core.errors import RelaxationError
from trinas.relax import gumbel_softmax


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_draws_follow_the_softmax_at_every_temperature():
    z = torch.tensor([0.5, -0.5, 1.0, 0.0])
    for temperature in (0.1, 1.0, 10.0):
        draws = gumbel_softmax(z.expand(20000, 4), temperature, generator=rng())

        # three standard deviations of a frequency over 20,000 draws are below 0.011
        assert (draws.mean(0) - torch.softmax(z, -1)).abs().max() < 0.011


def test_soft_sample_is_the_formula_on_the_same_noise():
    z = torch.tensor([[0.5, -0.5, 1.0]], dtype=torch.float64)
    waits = torch.empty(1, 3, dtype=torch.float64).exponential_(generator=rng(3))
    gumbel = -torch.log(waits)
    expected = torch.exp((z + gumbel) / 0.7) / torch.exp((z + gumbel) / 0.7).sum()

    assert torch.allclose(gumbel_softmax(z, 0.7, False, rng(3)), expected)


def test_hard_sample_is_exactly_one_hot_at_the_largest_soft_weight():
    z = torch.randn(500, 6, generator=rng(1))
    hard, soft = (gumbel_softmax(z, 0.3, h, rng(2)) for h in (True, False))

    assert torch.equal(hard, torch.eye(6)[soft.argmax(-1)])


def test_hard_sample_has_the_gradient_of_the_soft_one():
    z = torch.randn(5, 4, generator=rng(1), dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 4, generator=rng(9), dtype=torch.float64)
    grads = []
    for hard in (True, False):
        y = gumbel_softmax(z, 0.8, hard, rng(2))
        (first,) = torch.autograd.grad((y * weights).sum(), z, create_graph=True)
        grads.append((first, torch.autograd.grad((first * weights).sum(), z)[0]))

    for straight_through, smooth in zip(*grads):
        assert smooth.abs().sum() > 0
        assert torch.allclose(straight_through, smooth)


def test_gradcheck_of_the_soft_sample():
    z = torch.randn(3, 4, generator=rng(1), dtype=torch.float64, requires_grad=True)

    def sample(x):
        return gumbel_softmax(x, 0.8, False, rng(2))

    assert torch.autograd.gradcheck(sample, z)
    assert torch.autograd.gradgradcheck(sample, z)


def test_the_same_generator_state_gives_the_same_sample():
    z = torch.zeros(50, 4)
    generator = rng(5)
    state = generator.get_state()
    first, second = gumbel_softmax(z, generator=generator), gumbel_softmax(z, generator=generator)
    generator.set_state(state)

    assert torch.equal(gumbel_softmax(z, generator=generator), first)
    assert not torch.equal(first, second)
    untouched = torch.random.get_rng_state()
    gumbel_softmax(z, generator=generator)
    assert torch.equal(torch.random.get_rng_state(), untouched)
    torch.manual_seed(3)
    by_default = gumbel_softmax(z)
    torch.manual_seed(3)
    assert torch.equal(gumbel_softmax(z), by_default)


def test_every_argument_changes_something():
    z = torch.randn(4, 4, generator=rng(1))
    base = gumbel_softmax(z, 1.0, False, rng(1))

    assert not torch.allclose(gumbel_softmax(z, 0.5, False, rng(1)), base)
    assert not torch.allclose(gumbel_softmax(z, 1.0, True, rng(1)), base)
    assert not torch.allclose(gumbel_softmax(z, 1.0, False, rng(2)), base)
    assert not torch.allclose(gumbel_softmax(z, 1.0, False, rng(1), 0), base)


def test_a_low_temperature_is_nearly_one_hot_and_a_high_one_nearly_uniform():
    z = torch.zeros(100, 4)

    assert gumbel_softmax(z, 1e-3, False, rng()).amax(-1).mean() > 0.99
    assert gumbel_softmax(z, 1e3, False, rng()).amax() < 0.26


def test_no_noise_however_rare_breaks_a_row(monkeypatch):
    """A generator may return a wait of 0, whose logarithm is -inf."""

    def never(self, *, generator=None):
        return self.zero_()

    monkeypatch.setattr(torch.Tensor, "exponential_", never)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        q = gumbel_softmax(torch.tensor([[1.0, 0.0]], dtype=dtype), 0.1, False)
        assert torch.isfinite(q).all()


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_is_positive(value):
    with pytest.raises(RelaxationError) as error:
        gumbel_softmax(torch.zeros(2, 3), value)

    text = f"a temperature is a positive, finite number; got {value!r}. For one-hot weights use"
    assert text in str(error.value)
