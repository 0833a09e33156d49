"""Sparsestmax against an enumeration of supports, at its limits, and its derivatives."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from relax.relax_oracles import distance, feasible_points, from_centre, sparsestmax_by_enumeration

from trinas._core.errors import RelaxationError
from trinas.relax import circumradius, sparsemax, sparsestmax

FEW = settings(max_examples=60, deadline=None)
VALUES = st.integers(-3000, 3000).map(lambda i: i / 1000)
ROWS = st.integers(2, 7).flatmap(lambda k: st.lists(VALUES, min_size=k, max_size=k))
UNIQUE_TOP = ROWS.filter(lambda z: sorted(z)[-1] > sorted(z)[-2])
SHARES = st.integers(0, 1000).map(lambda i: i / 1000)


def double(values, **kwargs):
    return torch.tensor(values, dtype=torch.float64, **kwargs)


def naive(z, radius, support):
    """The formula on a known support, for autograd to differentiate by itself."""
    own = z[support]
    k, centred = len(support), own - own.mean()
    c2 = radius**2 - 1 / k + 1 / len(z)
    norm = (centred**2).sum().sqrt()
    out = 1 / k + (centred if c2 <= norm.item() ** 2 else math.sqrt(c2) * centred / norm)
    return torch.zeros_like(z).index_put((torch.tensor(support),), out)


def away_from_kinks(z, radius, margin=1e-3):
    """No weight just above zero or about to appear, and not where the sphere is just met."""
    limit = circumradius(len(z))
    radii = [min(radius * (1 + d), limit) for d in (-margin, 0.0, margin)]
    near = [sparsestmax(double(z), r) for r in radii]
    supports = {tuple((q > 0).tolist()) for q in near}
    smallest = min(v for v in near[1].tolist() if v > 0)
    off = abs(from_centre(sparsemax(double(z)).tolist()) - radius)
    others = sparsestmax(double(z) * (1 - margin), radius), sparsestmax(double(z) + 0, radius)
    supports |= {tuple((q > 0).tolist()) for q in others}
    return len(supports) == 1 and smallest > margin and off > margin


def random_rows(seed, n, k, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, k, generator=generator, dtype=torch.float64) * scale


@FEW
@given(UNIQUE_TOP, SHARES)
def test_equals_the_best_of_all_supports(z, share):
    radius = share * circumradius(len(z))
    expected = sparsestmax_by_enumeration(z, radius)

    got = sparsestmax(double(z), radius).tolist()

    assert distance(got, z) <= distance(expected, z) + 1e-9
    assert got == pytest.approx(expected, abs=1e-6)


@FEW
@given(ROWS)
def test_sparsemax_equals_the_best_of_all_supports(z):
    assert sparsemax(double(z)).tolist() == pytest.approx(
        sparsestmax_by_enumeration(z, 0.0), abs=1e-12
    )


@settings(max_examples=15, deadline=None)
@given(UNIQUE_TOP, SHARES, st.integers(0, 10**6))
def test_no_feasible_point_is_better(z, share, seed):
    radius = share * circumradius(len(z))
    got = sparsestmax(double(z), radius).tolist()

    for point in feasible_points(len(z), radius, 200, seed):
        assert from_centre(point) >= radius - 1e-9
        assert distance(got, z) <= distance(point, z) + 1e-8


@FEW
@given(UNIQUE_TOP, SHARES)
def test_is_feasible_when_the_maximum_is_unique(z, share):
    radius = share * circumradius(len(z))
    q = sparsestmax(double(z), radius)

    assert q.min() >= 0
    assert q.sum().item() == pytest.approx(1, abs=1e-12)
    assert from_centre(q.tolist()) >= radius - 1e-9


@FEW
@given(UNIQUE_TOP)
def test_support_shrinks_as_the_radius_grows(z):
    supports = [
        set(torch.nonzero(sparsestmax(double(z), r / 40 * circumradius(len(z)))).flatten().tolist())
        for r in range(41)
    ]

    assert all(later <= earlier for earlier, later in itertools.pairwise(supports))
    assert supports[-1] == {z.index(max(z))}


@FEW
@given(ROWS)
def test_radius_zero_is_sparsemax(z):
    """By the shortcut for a number, and by the general way for a tensor."""
    expected = sparsemax(double(z))

    assert torch.equal(sparsestmax(double(z), 0.0), expected)
    assert torch.allclose(sparsestmax(double(z), torch.zeros(())), expected, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [2, 3, 5, 8, 16, 64, 333])
def test_full_radius_is_one_hot_at_the_maximum(dtype, k):
    z = random_rows(k, 50, k).to(dtype)
    z[:, 0] = z.amax(-1) + 0.25
    z[:, 1:3] = z[:, 1:2]  # equal followers reach the radius together

    for radius in (circumradius(k), circumradius(k) * (1 + 1e-8), torch.tensor(circumradius(k))):
        assert sparsestmax(z, radius)[:, 0].tolist() == [1] * 50
        assert sparsestmax(z, radius)[:, 1:].abs().sum() == 0


def test_circumradius_is_the_distance_to_a_vertex():
    assert [circumradius(k) for k in (1, 2, 5)] == pytest.approx(
        [from_centre([1.0] + [0.0] * (k - 1)) for k in (1, 2, 5)]
    )


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 1.0])
def test_ties_at_the_top_stay_equal_and_do_not_move(share):
    z = double([[1.0, 1.0, 0.99, -2.0], [0.001] * 4, [3.0, 3.0, 3.0, 2.0]], requires_grad=True)
    q = sparsestmax(z, share * circumradius(4))

    weights = double([[1, 2, 3, 4]]).expand(3, 4)
    (grad,) = torch.autograd.grad((q * weights).sum(), z, create_graph=True)

    assert q.sum(-1).tolist() == pytest.approx([1] * 3)
    tied = [[0, 1], [0, 1, 2, 3], [0, 1, 2]]
    for row, names in zip(q.tolist(), tied):
        assert {row[i] for i in names} == {row[names[0]]}
    beyond = from_centre([1 / 2, 1 / 2, 0, 0]) < share * circumradius(4)
    assert grad[1].tolist() == [0] * 4
    if beyond:
        assert q[0].tolist() == [0.5, 0.5, 0, 0]
        assert q[2].tolist() == pytest.approx([1 / 3] * 3 + [0])
        assert grad.abs().sum() == 0
    (second,) = torch.autograd.grad(grad.sum(), z, allow_unused=True)
    assert second is None or torch.isfinite(second).all()


def test_a_tie_that_is_far_enough_out_keeps_its_gradient():
    """Sparsemax of a tie may be feasible as it is: then the answer is unique, and moves."""
    z = double([1.0, 1.0, -5.0], requires_grad=True)
    (grad,) = torch.autograd.grad(sparsestmax(z, 0.3)[0], z)

    assert grad.tolist() == [0.5, -0.5, 0]


def test_equal_logits_have_a_gradient_at_radius_zero():
    z = torch.full((4,), 0.001, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(sparsestmax(z, 0.0)[0], z)

    assert grad.tolist() == [0.75, -0.25, -0.25, -0.25]


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_float32_keeps_its_digits_at_every_scale(scale, share):
    z = (random_rows(1, 200, 6) * scale).float()
    exact = sparsestmax(z.double(), share * circumradius(6))

    assert (sparsestmax(z, share * circumradius(6)) - exact).abs().max() < 2e-6


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_entries_a_millionth_apart(offset):
    z = torch.tensor([offset, offset + 1e-6, offset + 3e-6, offset - 1e-6])
    exact = sparsestmax(z.double(), 0.6)
    far = torch.cat([z, torch.tensor([-1e4, -9999.5])])

    q = sparsestmax(z, 0.6)

    assert (q - exact).abs().max() < 2e-6
    assert from_centre(q.tolist()) == pytest.approx(0.6, abs=1e-5)
    exact = sparsestmax(far.double(), 0.6)
    assert (sparsestmax(far, 0.6) - exact).abs().max() < 2e-6


def test_entries_a_millionth_apart_far_from_zero():
    z = double([1e4, 1e4 + 1e-6, 1e4 - 2e-6])

    assert sparsestmax(z, 0.5).tolist() == pytest.approx(
        sparsestmax_by_enumeration([0.0, 1e-6, -2e-6], 0.5), abs=1e-4
    )


@pytest.mark.parametrize("tiny", [1e-18, 1e-20, 1e-24, 1e-38])
def test_tiny_differences_leave_finite_weights_and_gradients(tiny):
    z = torch.tensor([tiny, 0.0, -tiny, -1.0], requires_grad=True)
    q = sparsestmax(z, 0.7)
    (grad,) = torch.autograd.grad(q[0], z)

    assert q.sum().item() == pytest.approx(1, abs=1e-6)
    assert q.min() >= 0
    assert q[3] == 0
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    z = random_rows(3, 40, 5).to(dtype)
    r = 0.8 * circumradius(5)

    assert sparsestmax(z, r).dtype is dtype
    assert torch.equal(sparsestmax(z, r), sparsestmax(z.float(), r).to(dtype))
    assert torch.equal(sparsemax(z), sparsemax(z.float()).to(dtype))


def test_one_radius_per_row():
    z = random_rows(4, 6, 5).reshape(2, 3, 5)
    radius = torch.linspace(0, circumradius(5), 6, dtype=torch.float64).reshape(2, 3, 1)
    expected = [[sparsestmax(z[i, j], radius[i, j].item()) for j in range(3)] for i in range(2)]

    got = sparsestmax(z, radius)

    assert torch.allclose(got, torch.stack([torch.stack(row) for row in expected]))
    moved = sparsestmax(z.movedim(-1, 0), radius.movedim(-1, 0), 0)
    assert torch.equal(moved.movedim(0, -1), got)
    assert torch.equal(sparsestmax(z, radius[0]), sparsestmax(z, radius[:1].expand(2, 3, 1)))
    shared = sparsestmax(z, torch.tensor(0.5, dtype=torch.float64))
    assert torch.allclose(shared, sparsestmax(z, 0.5))


@settings(max_examples=25, deadline=None)
@given(UNIQUE_TOP, SHARES, st.integers(0, 6))
def test_gradient_is_that_of_the_formula_on_the_support(z, share, index):
    radius = share * circumradius(len(z))
    assume(away_from_kinks(z, radius))
    ours, theirs = double(z, requires_grad=True), double(z, requires_grad=True)
    q = sparsestmax(ours, radius)
    expected = naive(theirs, radius, torch.nonzero(q).flatten().tolist())
    weights = double(range(1, len(z) + 1)).sqrt()

    grads = []
    for value, at in ((q, ours), (expected, theirs)):
        (first,) = torch.autograd.grad((value**2 * weights).sum(), at, create_graph=True)
        (second,) = torch.autograd.grad(first[index % len(z)], at, create_graph=True)
        (third,) = torch.autograd.grad((second * weights).sum(), at)
        grads.append((value, first, second, third))

    for mine, other in zip(*grads):
        assert torch.allclose(mine, other, rtol=1e-6, atol=1e-6 * (1 + other.abs().max().item()))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_gradcheck_and_gradgradcheck(share, k):
    radius = share * circumradius(k)
    rows = [z for z in random_rows(k, 60, k, 0.5).tolist() if away_from_kinks(z, radius, 1e-2)]
    z = double(rows[:4], requires_grad=True)

    assert torch.autograd.gradcheck(lambda z: sparsestmax(z, radius), z)
    assert torch.autograd.gradgradcheck(lambda z: sparsestmax(z, radius), z)
    assert torch.autograd.gradcheck(sparsemax, z)
    assert torch.autograd.gradgradcheck(sparsemax, z)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, loading forward mode
def test_every_way_to_a_hessian_agrees():
    from torch.func import hessian, jacfwd, jacrev, vmap

    z, radius = random_rows(8, 4, 5, 0.3), torch.tensor([[0.4], [0.5], [0.6], [0.7]])

    def score(row, r):
        return (sparsestmax(row, r) ** 3).sum() + (sparsemax(row) ** 3).sum()

    for row, r in zip(z, radius):
        expected = torch.autograd.functional.hessian(lambda x, r=r: score(x, r), row)
        assert expected.abs().sum() > 0
        for outer, inner in ((jacfwd, jacrev), (jacrev, jacfwd), (jacrev, jacrev)):
            assert torch.allclose(outer(inner(score))(row, r), expected)
    mapped = vmap(hessian(score))(z, radius)
    assert torch.allclose(mapped[-1], expected)
    assert torch.allclose(vmap(sparsestmax, (None, 0))(z[0], radius)[2], sparsestmax(z[0], 0.6))


def test_radius_takes_no_gradient():
    z = random_rows(0, 2, 3).requires_grad_()
    radius = torch.full((2, 1), 0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(sparsestmax(z, radius)[0, 0], radius, allow_unused=True) == (None,)


def test_min_spread_bounds_the_gradient_and_nothing_else():
    z = double([[1e-5, 0.0, -2e-5], [1.0, 0.2, 0.1]], requires_grad=True)
    weights = double([1, 2, 3])

    def grad(min_spread, rows=z):
        q = sparsestmax(rows, 0.7, min_spread=min_spread)
        return q, torch.autograd.grad((q * weights).sum(), rows, create_graph=True)[0]

    (q, exact), (same, floored) = grad(0.0), grad(0.01)
    own = z[0][q[0] > 0]
    norm = (own - own.mean()).norm()

    assert torch.equal(q, same)
    assert torch.allclose(floored[0], exact[0] * norm / 0.01)
    assert torch.equal(floored[1], exact[1])
    # Its own derivative: the scale is constant where the floor holds.
    (second,) = torch.autograd.grad((floored * weights**2).sum(), z)
    step = 1e-8
    for j in range(3):
        shift = torch.zeros_like(z)
        shift[0, j] = step
        ahead, back = [
            (grad(0.01, (z + d).detach().requires_grad_())[1] * weights**2).sum().item()
            for d in (shift, -shift)
        ]
        assert second[0, j].item() == pytest.approx((ahead - back) / (2 * step), rel=1e-3, abs=1e-2)


@pytest.mark.parametrize(
    ("radius", "text"),
    [
        (-0.1, "the radius lies between 0 and the circumradius sqrt(1 - 1/K); got -0.1. "),
        (0.9, "got 0.9. With K = 3 the range is [0, 0.816497]; see circumradius(3)."),
        (math.nan, "got nan"),
        (torch.tensor([[0.1], [1.5]]), "got 1.5"),
        (torch.tensor([[-1.0], [0.5]]), "got -1.0"),
        (torch.tensor([[math.nan], [0.5]]), "got nan"),
    ],
)
def test_a_radius_out_of_range_is_refused(radius, text):
    with pytest.raises(RelaxationError) as error:
        sparsestmax(torch.zeros(2, 3), radius)

    assert text in str(error.value)


def test_other_bad_settings_are_refused():
    with pytest.raises(RelaxationError, match=r"got shape \(3, 1\). It must broadcast to \(2, 1\)"):
        sparsestmax(torch.zeros(2, 4), torch.zeros(3, 1))
    with pytest.raises(RelaxationError, match="got shape \\(2, 4\\)"):
        sparsestmax(torch.zeros(2, 4), torch.zeros(2, 4))
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(RelaxationError, match="min_spread is a finite number, 0 or more"):
            sparsestmax(torch.zeros(2, 4), 0.1, min_spread=value)
    with pytest.raises(RelaxationError, match=r"at least one entry; got 0; at circumradius\(k\)"):
        circumradius(0)


def test_the_ablation_that_the_note_reports():
    """The published iteration (project, push from the centre of the face) is not the argmin."""
    rng = random.Random(0)
    worse = 0
    for _ in range(300):
        k = rng.randrange(3, 7)
        z = [rng.gauss(0, 1) for _ in range(k)]
        radius = rng.uniform(0.2, 0.95) * circumradius(k)
        q = sparsestmax(double(z), radius).tolist()
        once = sparsemax(double(z))
        if from_centre(once.tolist()) >= radius:
            continue
        face = (once > 0).double() / (once > 0).sum()
        pushed = sparsemax(face + radius * (once - face) / (once - face).norm().clamp_min(1e-9))
        if from_centre(pushed.tolist()) >= radius - 1e-9:
            worse += distance(pushed.tolist(), z) > distance(q, z) + 1e-9
            assert distance(pushed.tolist(), z) >= distance(q, z) - 1e-9
    assert worse > 0


def test_tables_kept_for_speed_do_not_remember_where_they_were_made():
    """They are made on first use, which may be in inference mode or under another device."""
    z = random_rows(0, 2, 17).requires_grad_()
    with torch.inference_mode(), torch.device("meta"):
        sparsestmax(z, 0.5)

    q = sparsestmax(z, 0.5)
    assert torch.autograd.grad(q[:, 0].sum(), z)[0].shape == z.shape


def test_autocast_does_not_touch_the_weights():
    z = random_rows(0, 3, 5).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sparsestmax(z, 0.5), sparsemax(z)

    assert torch.equal(inside[0], sparsestmax(z, 0.5))
    assert torch.equal(inside[1], sparsemax(z))
