"""The additive model of losses: what it finds, what it forgets, what it holds back."""

import random

import pytest
import torch

from trinas._core.errors import CheckpointError
from trinas.search import additive
from trinas.search.additive import Additive

LIKE = torch.zeros((), dtype=torch.float64)
VALUE = torch.tensor([0.5, -0.5, 1.0, 0.0, -1.0, 2.0, 0.0, -2.0], dtype=torch.float64)
STARTS = ((0, 2), (2, 5), (5, 8))


def drawn(rng, n=4):
    rows = torch.zeros(n, 8, dtype=torch.float64)
    for row in rows:
        for start, stop in STARTS:
            row[rng.randrange(start, stop)] = 1.0
    return rows


def taught(loss, steps=40, seed=0):
    model, rng = Additive.empty(8, LIKE), random.Random(seed)
    for number in range(steps):
        draws = drawn(rng)
        model = model.seen(draws, loss(draws, number))
    return model


def centred(value):
    return torch.cat([value[a:b] - value[a:b].mean() for a, b in STARTS])


def test_it_finds_additive_losses_whatever_the_batch_adds():
    model = taught(lambda draws, number: draws @ VALUE + 100.0 * (-1) ** number)

    torch.testing.assert_close(centred(model.value), centred(VALUE), atol=0.02, rtol=0.0)


def test_it_is_ridge_regression_on_decayed_losses(monkeypatch):
    monkeypatch.setattr(additive, "WINDOW", 12)
    model = taught(lambda draws, _: draws @ VALUE + draws[:, 0] * draws[:, 2], steps=9)
    weights = additive.KEEP**model.ages
    gram = model.draws.T @ (weights[:, None] * model.draws)
    gram += additive.RIDGE * torch.eye(8, dtype=torch.float64)
    fitted = torch.linalg.solve(gram, model.draws.T @ (weights * model.losses))

    assert model.ages.tolist() == [2.0] * 4 + [1.0] * 4 + [0.0] * 4
    torch.testing.assert_close(model.fitted, fitted)


def test_what_does_not_predict_is_held_back():
    rng = random.Random(1)
    noise = taught(lambda draws, _: torch.tensor([rng.gauss(0, 1) for _ in draws]).to(LIKE))

    assert noise.fitted.norm() > 0.5
    assert noise.value.norm() < 0.5 * noise.fitted.norm()


def test_it_forgets():
    model, rng = taught(lambda draws, _: draws @ VALUE), random.Random(3)
    for _ in range(additive.WINDOW // 4):
        model = model.seen(drawn(rng), torch.zeros(4, dtype=torch.float64))

    assert not model.value.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_losses_that_are_not_finite_leave_no_trace(bad):
    before = taught(lambda draws, _: draws @ VALUE)
    after = before.seen(drawn(random.Random(9)), torch.tensor([1.0, bad, 0.0, 2.0]).to(LIKE))

    assert after.value.isfinite().all()
    torch.testing.assert_close(after.value, before.value, atol=0.02, rtol=0.0)


def test_its_memory_makes_it_again():
    model = taught(lambda draws, _: draws @ VALUE, steps=5)
    again = Additive.remembering(model.memory())

    for name, value in model.memory().items():
        assert torch.equal(value, getattr(again, name))
    with pytest.raises(CheckpointError, match="additive baseline"):
        Additive.remembering({})
    with pytest.raises(CheckpointError, match="additive baseline"):
        Additive.remembering({**model.memory(), "losses": torch.zeros(3)})
