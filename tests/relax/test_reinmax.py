"""ReinMax: the law of its draws, its formula, and what its gradient is on average."""

import math

import pytest
import torch

import trinas as tn
from trinas._core.errors import RelaxationError
from trinas.relax import gumbel_softmax, reinmax


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def double(values, **kwargs):
    return torch.tensor(values, dtype=torch.float64, **kwargs)


def mean_gradient(z, loss, estimator, monkeypatch):
    """The mean over the draws of the gradient of `loss`: draws are forced one by one."""
    total = torch.zeros_like(z)
    probabilities = z.detach().softmax(-1)
    for i in range(len(z)):
        # A wait of nearly 0 comes first, whatever the logits.
        waits = torch.full_like(z, 1.0).detach()
        waits[i] = 1e-300

        def race(self, *, generator=None, waits=waits):
            return self.copy_(waits)

        monkeypatch.setattr(torch.Tensor, "exponential_", race)
        y = estimator(z)
        assert y.tolist() == torch.eye(len(z))[i].tolist()
        (grad,) = torch.autograd.grad(loss(y), z)
        total += probabilities[i] * grad
    return total


def exact_gradient(z, loss):
    losses = torch.stack([loss(row) for row in torch.eye(len(z), dtype=z.dtype)])
    return torch.autograd.grad((z.softmax(-1) * losses).sum(), z)[0]


def quadratic(seed, n):
    a = torch.randn(n, n, generator=rng(seed), dtype=torch.float64)
    b = torch.randn(n, generator=rng(seed + 1), dtype=torch.float64)
    return lambda y: y @ a @ y + b @ y


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_the_mean_gradient_is_exact_for_quadratic_losses(n, seed, monkeypatch):
    z = torch.randn(n, generator=rng(seed + 50), dtype=torch.float64, requires_grad=True)
    loss = quadratic(seed, n)
    exact = exact_gradient(z, loss)

    assert torch.allclose(mean_gradient(z, loss, reinmax, monkeypatch), exact, atol=1e-10)


def test_it_is_nearer_than_straight_through_beyond_quadratic(monkeypatch):
    errors = {"reinmax": 0.0, "straight through": 0.0}
    for seed in range(8):
        z = torch.randn(4, generator=rng(seed), dtype=torch.float64, requires_grad=True)
        w = torch.randn(4, generator=rng(seed + 9), dtype=torch.float64)
        target = double([0.5])

        def loss(y, w=w, target=target):
            return (torch.tanh(y @ w) - target).square().sum()

        exact = exact_gradient(z, loss)
        for name, estimator in (("reinmax", reinmax), ("straight through", plain)):
            found = mean_gradient(z, loss, estimator, monkeypatch)
            errors[name] += (found - exact).square().sum().item()

    assert errors["reinmax"] < 0.5 * errors["straight through"]


def plain(z):
    """Straight-through: the draw, with the gradient of the softmax."""
    draw = reinmax(z.detach())
    return draw + (z.softmax(-1) - z.softmax(-1).detach())


def test_draws_follow_the_softmax_at_every_temperature():
    z = torch.tensor([0.5, -0.5, 1.0, 0.0])
    for temperature in (0.5, 1.0, 10.0):
        draws = reinmax(z.expand(20000, 4), temperature, rng())

        assert ((draws == 0) | (draws == 1)).all()
        assert (draws.mean(0) - torch.softmax(z, -1)).abs().max() < 0.011


def test_the_gradient_is_the_formula():
    z = torch.randn(6, 4, generator=rng(1), dtype=torch.float64, requires_grad=True)
    g = torch.randn(6, 4, generator=rng(2), dtype=torch.float64)
    for temperature in (1.0, 2.0):
        draw = reinmax(z, temperature, rng(3))
        (grad,) = torch.autograd.grad((draw * g).sum(), z)
        p = z.detach().softmax(-1)
        m = (draw.detach() + (z.detach() / temperature).softmax(-1)) / 2

        def jacobian(q):
            return q * (g - (q * g).sum(-1, keepdim=True))

        assert torch.allclose(grad, 2 * jacobian(m) - jacobian(p) / 2)


def test_masks_dims_and_dtypes():
    z = torch.randn(5, 4, 3, generator=rng(4))
    z[:, 1] = -math.inf
    z.requires_grad_()
    q = reinmax(z, generator=rng(), dim=1)
    (grad,) = torch.autograd.grad((q * torch.arange(4)[:, None]).sum(), z)

    assert q[:, 1].abs().sum() == 0
    assert torch.equal(q.sum(1), torch.ones(5, 3))
    assert torch.isfinite(grad).all()
    moved = reinmax(z.detach().movedim(1, -1), generator=rng())
    assert torch.equal(moved.movedim(-1, 1), q)
    assert reinmax(z.detach().half(), generator=rng(), dim=1).dtype is torch.float16
    assert reinmax(torch.zeros(2, 0, 3)).shape == (2, 0, 3)
    assert reinmax(torch.tensor([[2.0]])).tolist() == [[1.0]]
    far = torch.tensor([0.0, -1e4], requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(reinmax(far)[0], far)[0]).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rows_that_define_no_weights_are_named(value, monkeypatch):
    z = torch.zeros(3, 4)
    z[2, 1] = value
    with pytest.raises(RelaxationError, match=r"below \+inf; got (nan|inf); at row \(2,\)"):
        reinmax(z)
    with pytest.raises(RelaxationError, match="a temperature is a positive, finite number"):
        reinmax(torch.zeros(3), 0.0)
    monkeypatch.setattr("trinas.relax._rows.torch.compiler.is_compiling", lambda: True)
    q = reinmax(z)
    assert q[2].isnan().all()
    assert not q[:2].isnan().any()


def test_the_module_is_the_function_and_says_what_it_needs():
    z = torch.randn(3, 4, generator=rng(5))
    relax = tn.relax.ReinMax(tn.relax.Linear(2.0, 1.0))

    assert relax.stochastic
    assert relax.runs_all
    assert not relax.closed_at_zero
    assert torch.equal(relax(z, progress=1.0, generator=rng()), reinmax(z, 1.0, rng()))
    assert repr(relax) == "ReinMax(temperature=Linear(start=2.0, end=1.0, warmup=0.0))"
    with pytest.raises(RelaxationError, match="a temperature is a positive"):
        tn.relax.ReinMax(0.0)


def test_gumbel_can_ask_for_all_options():
    assert not tn.relax.GumbelSoftmax().runs_all
    relax = tn.relax.GumbelSoftmax(1.0, all_options=True)

    assert relax.runs_all
    assert repr(relax).endswith("hard=True, all_options=True)")
    z = torch.zeros(2, 3)
    assert torch.equal(relax(z, generator=rng()), gumbel_softmax(z, generator=rng()))
