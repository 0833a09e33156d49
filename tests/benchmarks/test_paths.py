"""The planted depths, and that the expected loss finds one where the mixture does not."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks import paths
from benchmarks.measure import Options


def test_rows_say_where_each_seed_ends():
    rows = paths.measure(Options(quick=True))

    assert [(row["space"], row["planted"]) for row in rows] == [
        (kind, depth) for kind in ("tree", "repeat") for depth in (1, 2)
    ]
    assert all(1 <= int(row["found"]) <= paths.DEEPEST for row in rows)


@pytest.mark.parametrize("kind", ["tree", "repeat"])
def test_the_teacher_is_in_the_space(kind):
    planted = paths.Planted(kind, 2, seed=0)
    (x, y), (again, _) = planted.batch(3), planted.batch(3)

    assert torch.equal(x, again)
    assert not torch.equal(x, planted.batch(3, valid=True)[0])
    assert len(planted.exits) == 4
    assert 0.5 < F.mse_loss(torch.zeros_like(y), y) < 2


def test_the_expected_loss_ends_at_a_planted_depth_where_the_mixture_ends_at_one_block():
    planted = paths.Planted("tree", 2, seed=0)

    assert planted.search(paths.TODAY) == 1
    assert planted.search(paths.WAITING) == 2
