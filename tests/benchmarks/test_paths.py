"""The planted depths, and that the losses at exits find one where the mixture does not."""

import pytest
import torch
from torch.nn.functional import mse_loss

from benchmarks import paths
from benchmarks.measure import Options


def test_rows_say_where_each_seed_ends():
    rows = paths.measure(Options(quick=True))

    assert [row["task"] for row in rows] == ["path-2-cost", "rotated-2-cost"] * 2
    assert all(1 <= int(row["found"]) <= paths.DEEPEST for row in rows)
    assert all(row["passes"] > 0 for row in rows)


@pytest.mark.parametrize("kind", ["tree", "repeat"])
def test_the_teacher_is_in_the_space(kind):
    planted = paths.Planted(kind, 2, seed=0)
    (x, y), (again, _) = planted.batch(3), planted.batch(3)

    assert torch.equal(x, again)
    assert not torch.equal(x, planted.batch(3, valid=True)[0])
    assert len(planted.exits) == 4
    assert 0.5 < mse_loss(torch.zeros_like(y), y) < 2


def test_exits_end_at_a_planted_depth_where_the_mixture_ends_at_one_block():
    mixture, exits = (
        paths.search("rotated-2-cost", paths.SETTINGS[name], 0)
        for name in ("mixture alone", "exits")
    )

    assert mixture.depth == 1
    assert exits.depth == 2
    assert exits.odds >= paths.SURE
