"""Choices of k of n: against enumeration, at their limits, their ties and their derivatives."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from relax.relax_oracles import distance, from_middle, inclusion, subset_by_enumeration

import trinas as tn
from trinas._core.errors import RelaxationError
from trinas.relax import circumradius, gumbel_softmax, softmax, sparsemax, sparsestmax
from trinas.relax._functions import Rule
from trinas.relax._subset import subset_softmax_rows, subset_sparsestmax_rows

FEW = settings(max_examples=60, deadline=None)
SOME = settings(max_examples=25, deadline=None)
VALUES = st.integers(-3000, 3000).map(lambda i: i / 1024)
SHARES = st.integers(0, 1000).map(lambda i: i / 1000)


@st.composite
def choices(draw, most=5):
    """Logits and how many of them are chosen."""
    n = draw(st.integers(2, most))
    return draw(st.lists(VALUES, min_size=n, max_size=n)), draw(st.integers(1, n))


def clear(choice):
    """Whether the k largest are distinct from the rest."""
    z, k = sorted(choice[0], reverse=True), choice[1]
    return k == len(z) or z[k - 1] > z[k]


def double(values, **kwargs):
    return torch.tensor(values, dtype=torch.float64, **kwargs)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def random_rows(seed, rows, n, scale=1.0):
    return torch.randn(rows, n, generator=rng(seed), dtype=torch.float64) * scale


def outside(z, k, share):
    return sparsestmax(z, share * circumradius(z.shape[-1], ones=k), k=k)


def at(share):
    return lambda z, k: outside(z, k, share)


CERTAIN = {
    "softmax": lambda z, k: softmax(z, k=k),
    "sparsemax": lambda z, k: sparsemax(z, k=k),
    "sparsestmax 0.5": at(0.5),
    "sparsestmax 0.8": at(0.8),
    "sparsestmax 1": at(1.0),
}
NOISY = {
    f"gumbel hard={hard}": lambda z, k, hard=hard: gumbel_softmax(z, 0.7, hard, rng(7), k=k)
    for hard in (False, True)
}
EVERY = CERTAIN | NOISY
every = pytest.mark.parametrize("relax", EVERY.values(), ids=EVERY.keys())
certain = pytest.mark.parametrize("relax", CERTAIN.values(), ids=CERTAIN.keys())


@FEW
@given(choices().filter(clear), SHARES)
def test_equals_the_best_of_all_states(choice, share):
    z, k = choice
    radius = share * circumradius(len(z), ones=k)
    expected = subset_by_enumeration(z, k, radius)

    got = sparsestmax(double(z), radius, k=k).tolist()

    assert distance(got, z) <= distance(expected, z) + 1e-9
    assert got == pytest.approx(expected, abs=1e-6)


@FEW
@given(choices())
def test_sparsemax_equals_the_best_of_all_states(choice):
    z, k = choice

    assert sparsemax(double(z), k=k).tolist() == pytest.approx(
        subset_by_enumeration(z, k, 0.0), abs=1e-12
    )


def test_meets_the_radius_for_many_entries():
    """Where no enumeration reaches: the distance is the radius, and no way along q is better."""
    for n, k in ((40, 1), (40, 7), (33, 30)):
        z = random_rows(n + k, 50, n, 0.1)
        for share in (0.3, 0.7, 0.95):
            radius = share * circumradius(n, ones=k)
            q = subset_sparsestmax_rows(z, k, radius, Rule(False, 1e-15, 0.0))
            off = (q - k / n).norm(dim=-1)
            inner = sparsemax(z, k=k)

            assert (q.sum(-1) - k).abs().max() < 1e-9
            assert (off >= radius - 1e-9).all()
            on_sphere = (inner - k / n).norm(dim=-1) < radius
            assert on_sphere.any()
            assert (off[on_sphere] - radius).abs().max() < 1e-9
            assert torch.allclose(q[~on_sphere], inner[~on_sphere])
            # It is a projection of t z: logits of free entries differ by q / t, one t a row.
            for row, own in zip(z[on_sphere][:10], q[on_sphere][:10]):
                free = (own > 1e-9) & (own < 1 - 1e-9)
                t = (own[free].max() - own[free].min()) / (row[free].max() - row[free].min())
                assert torch.allclose(own, sparsemax(t * row, k=k), atol=1e-7)


@FEW
@given(choices())
def test_softmax_equals_the_sum_over_all_sets(choice):
    z, k = choice

    assert softmax(double(z), k=k).tolist() == pytest.approx(inclusion(z, k), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(VALUES, min_size=2, max_size=7), SHARES)
def test_one_of_n_by_the_general_way_is_the_relaxation_as_it_was(z, share):
    rows = double(z)
    radius = share * circumradius(len(z))
    general = subset_sparsestmax_rows(rows, 1, radius, Rule(False, 1e-15, 0.0))

    assert torch.equal(softmax(rows, k=1), softmax(rows))
    assert torch.equal(sparsestmax(rows, radius, k=1), sparsestmax(rows, radius))
    assert torch.allclose(subset_softmax_rows(rows, 1), softmax(rows), atol=1e-12)
    if clear((z, 1)) or share < 0.5:
        assert torch.allclose(general, sparsestmax(rows, radius), atol=1e-9)


@every
@SOME
@given(choice=choices(7))
def test_weights_lie_between_0_and_1_and_sum_to_k(relax, choice):
    z, k = choice
    for rows, error in ((double(z), 1e-9), (torch.tensor(z), 1e-5), (torch.tensor(z) * 3e3, 1e-5)):
        q = relax(rows, k)

        assert (q.shape, q.dtype) == (rows.shape, rows.dtype)
        assert q.min() >= 0
        assert q.max() <= 1 + 1e-12
        assert abs(q.sum().item() - k) < error
        if k == len(z):
            assert q.tolist() == [1] * k


@every
@SOME
@given(choice=choices(7), shift=st.integers(-4, 4))
def test_adding_a_constant_changes_nothing(relax, choice, shift):
    z, k = choice

    assert torch.allclose(relax(double(z) + shift, k), relax(double(z), k), atol=1e-9)


@certain
@SOME
@given(choice=choices(6).filter(clear), seed=st.integers(0, 100))
def test_permuting_the_entries_permutes_the_weights(relax, choice, seed):
    z, k = choice
    order = random.Random(seed).sample(range(len(z)), len(z))

    assert torch.allclose(relax(double(z)[order], k), relax(double(z), k)[order], atol=1e-12)


@certain
@SOME
@given(choice=choices(6), rise=st.integers(1, 3000))
def test_a_larger_logit_has_no_smaller_weight(relax, choice, rise):
    z, k = choice
    q = relax(double(z), k)
    raised = double([z[0] + rise / 1000, *z[1:]])

    assert q[double(z).argsort(stable=True, descending=True)].diff().max() <= 1e-12
    assert relax(raised, k)[0] >= q[0] - 1e-9


@every
def test_a_batch_equals_its_rows(relax):
    z = random_rows(0, 60, 6).reshape(5, 12, 6)
    if relax in CERTAIN.values():
        rows = torch.stack([torch.stack([relax(row, 3) for row in part]) for part in z])
        assert torch.allclose(relax(z, 3), rows, atol=1e-12)
    assert torch.equal(relax(z.mT.contiguous().mT, 3), relax(z, 3))
    assert relax(z[:, :0], 3).shape == (5, 0, 6)


def test_any_dimension_and_a_radius_for_each_row():
    z = random_rows(1, 12, 5).reshape(3, 4, 5)
    radius = torch.linspace(0, 1, 12, dtype=torch.float64).reshape(3, 4, 1)
    radius = radius * circumradius(5, ones=2)
    got = sparsestmax(z, radius, k=2)

    for i, j in itertools.product(range(3), range(4)):
        assert torch.allclose(got[i, j], sparsestmax(z[i, j], radius[i, j].item(), k=2))
    moved = z.movedim(-1, 0)
    assert torch.equal(sparsestmax(moved, radius.movedim(-1, 0), 0, k=2).movedim(0, -1), got)
    for function in (softmax, sparsemax):
        assert torch.allclose(function(moved, 0, k=2).movedim(0, -1), function(z, k=2))
    assert torch.equal(sparsestmax(z, radius[0], k=2)[0], got[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [3, 5, 8, 33])
def test_full_radius_gives_exactly_k_ones_at_the_largest(dtype, n):
    z = random_rows(n, 40, n).to(dtype)
    for k in (2, n - 1):
        for radius in (circumradius(n, ones=k), torch.tensor(circumradius(n, ones=k))):
            q = sparsestmax(z, radius, k=k)

            assert ((q == 0) | (q == 1)).all()
            assert (q.sum(-1) == k).all()
            worst = z.masked_fill(q == 0, math.inf).amin(-1)
            assert (z.masked_fill(q == 1, -math.inf).amax(-1) <= worst).all()


def test_ties_that_a_radius_would_have_to_break():
    """Equal below the largest radius, and not moving; at it the first ones win."""
    z = double([[2.0, 1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]], requires_grad=True)
    limit = circumradius(5, ones=2)
    below, end = sparsestmax(z, 0.99 * limit, k=2), sparsestmax(z, limit, k=2)
    (grad,) = torch.autograd.grad((below * torch.arange(5)).sum(), z, create_graph=True)

    assert below[0].tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3, 0])
    assert below[1].tolist() == pytest.approx([2 / 5] * 5)
    assert end.tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0]]
    assert grad.abs().sum() == 0
    assert torch.isfinite(torch.autograd.grad(grad.sum(), z)[0]).all()
    assert torch.autograd.grad(end.sum(), z)[0].abs().sum() == 0


def test_the_fixed_entries_stay_fixed_as_the_radius_grows():
    z = random_rows(3, 30, 7)
    states = [outside(z, 3, share / 50) for share in range(51)]

    for now, later in itertools.pairwise(states):
        assert (later[now == 1] == 1).all()
        assert (later[now == 0] == 0).all()


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e4])
def test_float32_keeps_its_digits_at_every_scale(scale):
    z = (random_rows(1, 200, 6) * scale).float()
    for share in (0.0, 0.3, 0.6, 0.9):
        assert (outside(z, 2, share) - outside(z.double(), 2, share)).abs().max() < 3e-6
    assert (softmax(z, k=2) - softmax(z.double(), k=2)).abs().max() < 1e-6


def test_entries_a_millionth_apart_beside_some_far_away():
    near = torch.tensor([0.0, 1e-6, 3e-6, -1e-6])
    far = torch.cat([torch.tensor([1e4]), near, torch.tensor([-1e4])])

    for share in (0.8, 0.95):
        q = outside(far, 3, share)
        assert (q - outside(far.double(), 3, share)).abs().max() < 3e-6
        assert from_middle(q.tolist(), 3) >= share * circumradius(6, ones=3) - 1e-5


@pytest.mark.parametrize("tiny", [1e-18, 1e-24, 1e-38])
def test_tiny_differences_leave_finite_weights_and_gradients(tiny):
    z = torch.tensor([1.0, tiny, 0.0, -tiny, -1.0], requires_grad=True)
    q = outside(z, 2, 0.8)
    (grad,) = torch.autograd.grad(q[1], z)

    assert q.sum().item() == pytest.approx(2, abs=1e-6)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("name", ["softmax", "sparsemax", "sparsestmax 0.5", "sparsestmax 0.8"])
@pytest.mark.parametrize(("n", "k"), [(3, 2), (5, 2), (5, 4), (6, 3)])
def test_gradcheck_and_gradgradcheck(name, n, k):
    relax = CERTAIN[name]
    rows = [z for z in random_rows(n + k, 60, n, 0.5) if name == "softmax" or calm(relax, z, k)]
    z = torch.stack(rows[:3]).requires_grad_()

    assert torch.autograd.gradcheck(lambda z: relax(z, k), z)
    assert torch.autograd.gradgradcheck(lambda z: relax(z, k), z)


def calm(relax, z, k):
    """Whether no entry is near 0 or 1 without being there."""
    near = [relax(z * (1 + d), k) for d in (-1e-2, 0.0, 1e-2)]
    states = {(tuple((q > 0).tolist()), tuple((q < 1).tolist())) for q in near}
    free = near[1][(near[1] > 0) & (near[1] < 1)]
    inner = from_middle(sparsemax(z, k=k).tolist(), k)
    off = [abs(inner - share * circumradius(len(z), ones=k)) for share in (0.5, 0.8)]
    return (
        len(states) == 1 and free.numel() > 1 and min(off) > 1e-3 < free.min() < free.max() < 0.999
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, loading forward mode
def test_every_way_to_a_hessian_agrees():
    from torch.func import hessian, jacfwd, jacrev, vmap

    z = random_rows(8, 3, 5, 0.3)

    def score(row):
        q = torch.cat([outside(row, 2, 0.7), sparsemax(row, k=2), softmax(row, k=2)])
        return (q**3).sum()

    for row in z:
        expected = torch.autograd.functional.hessian(score, row)
        assert expected.abs().sum() > 0
        for outer, inner in ((jacfwd, jacrev), (jacrev, jacfwd), (jacrev, jacrev)):
            assert torch.allclose(outer(inner(score))(row), expected)
    assert torch.allclose(vmap(hessian(score))(z)[-1], expected)
    assert torch.allclose(vmap(lambda row: outside(row, 2, 0.7))(z), outside(z, 2, 0.7))


def test_min_spread_bounds_the_gradient_and_nothing_else():
    z = double([1e-5, 0.0, -2e-5, -1.0], requires_grad=True)
    grads = []
    for floor in (0.0, 0.01):
        q = sparsestmax(z, 0.9, min_spread=floor, k=2)
        grads.append((q, torch.autograd.grad(q[0], z)[0]))
    own = z[(q > 0) & (q < 1)].detach()

    assert torch.equal(grads[0][0], grads[1][0])
    factor = (own - own.mean()).norm() / 0.01
    assert torch.allclose(grads[1][1], grads[0][1] * factor)


@certain
@SOME
@given(choice=choices(7), dropped=st.sets(st.integers(0, 6), max_size=4))
def test_minus_infinity_equals_dropping_the_entry(relax, choice, dropped):
    z, k = choice
    left = [i for i in range(len(z)) if i not in dropped]
    if len(left) < k:
        return
    masked = double(z)
    masked[[i for i in dropped if i < len(z)]] = -math.inf
    masked.requires_grad_()
    share = {name: float(name.split()[1]) for name in CERTAIN if " " in name}
    name = next(name for name, function in CERTAIN.items() if function is relax)
    run = (
        (lambda z: relax(z, k))
        if name not in share
        else (lambda z: tn.relax.Sparsestmax(share[name])(z, k=k))
    )
    q, alone = run(masked), run(double(z)[left])
    (grad,) = torch.autograd.grad(q.square().sum(), masked)

    assert torch.allclose(q[left], alone, atol=1e-12)
    assert q.sum().item() == pytest.approx(k)
    assert torch.isfinite(grad).all()


@every
@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([0.0, math.nan, 0.0, 0.0], "logits must be numbers below +inf; got nan; at row (1, 0). "),
        ([0.0, math.inf, 0.0, 0.0], "logits must be numbers below +inf; got inf; at row (1, 0). "),
        ([-math.inf] * 4, "at least one logit above -inf; got -inf throughout; at row (1, 0). "),
        (
            [-math.inf, -math.inf, 1.0, -math.inf],
            "a choice of 2 needs as many logits above -inf; got 1 of them; at row (1, 0). A logit",
        ),
    ],
)
def test_rows_that_define_no_choice_are_named(relax, row, text, monkeypatch):
    z = torch.zeros(2, 3, 4)
    z[1, 0] = torch.tensor(row)

    with pytest.raises(RelaxationError) as error:
        relax(z, 2)

    assert text in str(error.value)
    with pytest.raises(RelaxationError, match="at the only row"):
        relax(z[1, 0], 2)
    # An accelerator's part, played by a host that reads nothing.
    monkeypatch.setattr("trinas.relax._rows.torch.compiler.is_compiling", lambda: True)
    q = relax(z, 2)
    assert q[1, 0].isnan().all()
    assert not q[0].isnan().any()


@every
def test_nothing_is_read_back_from_a_device(relax):
    z = torch.zeros(3, 5, device="meta", requires_grad=True)
    q = gumbel_softmax(z, 0.5, k=2) if relax in NOISY.values() else relax(z, 2)
    (grad,) = torch.autograd.grad(q.sum(), z, create_graph=True)

    assert (q.device.type, grad.shape) == ("meta", z.shape)


@every
@pytest.mark.parametrize("k", [0, 6, -1, 2.0, True])
def test_so_many_cannot_be_chosen(relax, k):
    with pytest.raises(
        RelaxationError, match=r"whole number from 1 to that of all; got k = .* of 5"
    ):
        gumbel_softmax(torch.zeros(5), k=k) if relax in NOISY.values() else relax_at(relax, k)


def relax_at(relax, k):
    """Call where `relax` itself must not work out a radius for k."""
    if relax in (CERTAIN["softmax"], CERTAIN["sparsemax"]):
        return relax(torch.zeros(5), k)
    return sparsestmax(torch.zeros(5), 0.5, k=k)


def test_a_radius_out_of_range_is_refused():
    with pytest.raises(RelaxationError) as error:
        sparsestmax(torch.zeros(4), 1.1, k=2)

    text = "the circumradius sqrt(k (1 - k/K)); got 1.1. With K = 4 the range is [0, 1]; see "
    assert text + "circumradius(4, ones=2)." in str(error.value)
    with pytest.raises(RelaxationError, match="to that of all; got k = 5 of 4"):
        circumradius(4, ones=5)


def test_hard_draws_are_those_of_the_largest_perturbed_logits():
    """Without replacement: the first two of a race with rates exp(z)."""
    z = double([0.5, -0.5, 1.0, 0.0])
    draws = gumbel_softmax(z.expand(20000, 4), generator=rng(), k=2)
    rates = z.exp().tolist()
    expected = [0.0] * 4
    for i, j in itertools.permutations(range(4), 2):
        p = rates[i] / sum(rates) * rates[j] / (sum(rates) - rates[i])
        expected[i] += p
        expected[j] += p

    assert ((draws == 0) | (draws == 1)).all()
    assert (draws.sum(-1) == 2).all()
    assert (draws.mean(0) - double(expected)).abs().max() < 0.012


def test_hard_draws_have_the_gradient_of_the_soft_ones():
    z = random_rows(1, 5, 4).requires_grad_()
    weights = random_rows(9, 5, 4)
    grads = []
    for hard in (True, False):
        y = gumbel_softmax(z, 0.8, hard, rng(2), k=2)
        grads.append(torch.autograd.grad((y * weights).sum(), z)[0])
    noisy = (z.detach() - torch.empty_like(z).exponential_(generator=rng(2)).log()) / 0.8

    assert grads[0].abs().sum() > 0
    assert torch.allclose(*grads)
    assert torch.allclose(y[0], double(inclusion(noisy[0].tolist(), 2)))


def test_modules_equal_their_functions():
    z = random_rows(2, 6, 5)
    radius = 0.45 * circumradius(5, ones=2)

    for got, expected in (
        (tn.relax.Softmax()(z, k=2), softmax(z, k=2)),
        (tn.relax.Sparsemax()(z, k=2), sparsemax(z, k=2)),
        (tn.relax.Sparsestmax()(z, progress=0.45, k=2), sparsestmax(z, radius, k=2)),
        (
            tn.relax.GumbelSoftmax(0.5)(z, generator=rng(), k=2),
            gumbel_softmax(z, 0.5, True, rng(), k=2),
        ),
    ):
        assert torch.allclose(got, expected)


def test_relaxations_of_one_entry_say_so():
    for relax in (tn.relax.SortedSparsestmax(), tn.relax.ReinMax()):
        assert not relax.subsets
        with pytest.raises(
            RelaxationError, match=r"chooses one entry; got k = 2; at (Sorted|Rein)"
        ):
            relax(torch.zeros(3), order=(-1, 0, 1), k=2)
