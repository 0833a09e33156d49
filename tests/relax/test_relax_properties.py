"""What every relaxation is held to, whichever it is."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from relax.relax_oracles import random_tree, without

from trinas._core.errors import RelaxationError
from trinas.relax import (
    circumradius,
    gumbel_softmax,
    softmax,
    sorted_sparsestmax,
    sparsemax,
    sparsestmax,
)

K = 5
TREE = (-1, 0, 1, 1, 0)
SOME = settings(max_examples=25, deadline=None)


def at(share):
    return lambda z, dim=-1: sparsestmax(z, share * circumradius(z.shape[dim]), dim)


def ordered(form, share=0.6, order=TREE):
    def relax(z, dim=-1):
        k = z.shape[dim]
        return sorted_sparsestmax(z, share * circumradius(k), order[:k], 0.3, form, dim)

    return relax


def gumbel(hard):
    def relax(z, dim=-1):
        return gumbel_softmax(z, 0.7, hard, torch.Generator().manual_seed(7), dim)

    return relax


UNORDERED = {
    "softmax": softmax,
    "sparsemax": sparsemax,
    "sparsestmax 0.4": at(0.4),
    "sparsestmax 0.8": at(0.8),
    "sparsestmax 1": at(1.0),
}
SORTED = {form: ordered(form) for form in ("linear", "hinge", "strict")}
NOISY = {"gumbel soft": gumbel(False), "gumbel hard": gumbel(True)}
EVERY = UNORDERED | SORTED | NOISY
every = pytest.mark.parametrize("relax", EVERY.values(), ids=EVERY.keys())
certain = pytest.mark.parametrize(
    "relax", (UNORDERED | SORTED).values(), ids=(UNORDERED | SORTED).keys()
)

# Multiples of a power of two: adding a constant is exact, ties stay ties.
VALUES = st.integers(-2048, 2048).map(lambda i: i / 1024)
ROWS = st.lists(st.lists(VALUES, min_size=K, max_size=K), min_size=1, max_size=3)
ROUGH = st.lists(st.floats(-1e4, 1e4, width=32), min_size=K, max_size=K)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


@every
@SOME
@given(z=ROWS)
def test_weights_lie_on_the_simplex(relax, z):
    q = relax(double(z))

    assert q.min() >= 0
    assert (q.sum(-1) - 1).abs().max() < 1e-9


@every
@SOME
@given(z=ROUGH)
def test_rough_float32_rows_stay_on_the_simplex(relax, z):
    q = relax(torch.tensor(z))

    assert q.dtype is torch.float32
    assert q.min() >= 0
    assert (q.sum(-1) - 1).abs().max() < 1e-5


@every
@SOME
@given(z=ROWS, shift=st.integers(-4, 4))
def test_adding_a_constant_changes_nothing(relax, z, shift):
    z = double(z)

    assert torch.allclose(relax(z + shift), relax(z), atol=1e-9)


@pytest.mark.parametrize("relax", UNORDERED.values(), ids=UNORDERED.keys())
@SOME
@given(z=ROWS, order=st.permutations(range(K)))
def test_permuting_the_entries_permutes_the_weights(relax, z, order):
    z = double(z)

    assert torch.allclose(relax(z[:, order]), relax(z)[:, order], atol=1e-12)


@pytest.mark.parametrize("form", ["linear", "hinge", "strict"])
@SOME
@given(z=ROWS, seed=st.integers(0, 1000))
def test_renaming_the_entries_of_a_tree_renames_the_weights(form, z, seed):
    z, rng = double(z), random.Random(seed)
    tree = random_tree(rng, K)
    names = rng.sample(range(K), K)  # old entry names[i] becomes entry i
    place = {old: new for new, old in enumerate(names)}
    renamed = tuple(-1 if tree[old] < 0 else place[tree[old]] for old in names)

    expected = ordered(form, order=tree)(z)[:, names]

    assert torch.allclose(ordered(form, order=renamed)(z[:, names]), expected, atol=1e-9)


@pytest.mark.parametrize("relax", UNORDERED.values(), ids=UNORDERED.keys())
@SOME
@given(z=ROWS)
def test_a_larger_logit_has_no_smaller_weight(relax, z):
    z = double(z)
    by_logit = z.sort(-1).indices

    assert relax(z).gather(-1, by_logit).diff().min() >= 0


@every
@SOME
@given(z=ROWS, entry=st.integers(0, K - 1), rise=st.integers(1, 3000))
def test_raising_a_logit_does_not_lower_its_weight(relax, z, entry, rise):
    z = double(z)
    raised = z.clone()
    raised[:, entry] += rise / 1000

    change = relax(raised)[:, entry] - relax(z)[:, entry]

    assert change.min() >= -1e-9


@certain
def test_a_batch_equals_its_rows(relax):
    z = torch.randn(4, 300, K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.stack([relax(row) for row in z[:, ::100].reshape(-1, K)])

    assert torch.allclose(relax(z)[:, ::100].reshape(-1, K), rows, atol=1e-12)


@every
def test_any_dimension_by_either_name(relax):
    z = torch.randn(3, K, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    last = z.movedim(1, -1).contiguous()
    expected = relax(last).movedim(-1, 1)

    for got in (relax(z, 1), relax(z, -2), relax(last.movedim(-1, 1), 1)):
        assert got.shape == z.shape
        assert torch.allclose(got, expected, atol=1e-12)
    assert torch.allclose(relax(last.movedim(-1, 0), 0), expected.movedim(1, 0), atol=1e-12)
    assert torch.equal(relax(last[0, 0], 0), relax(last[0, 0], -1))


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_is_kept_also_by_the_gradient(relax, dtype):
    z = torch.randn(6, K, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
    q = relax(z)
    (grad,) = torch.autograd.grad(q[:, 0].sum(), z)

    assert (q.dtype, grad.dtype) == (dtype, dtype)
    assert torch.isfinite(grad).all()


@every
def test_gradients_reach_the_logits_and_leave_constants_alone(relax):
    z = double([[0.3, 0.1, 0.05, -0.2, 0.2]]).requires_grad_()
    (grad,) = torch.autograd.grad((relax(z) * double([1, 2, 3, 4, 5])).sum(), z)

    assert grad.sum().item() == pytest.approx(0, abs=1e-9)
    assert (grad.abs().sum() > 0) == (relax is not UNORDERED["sparsestmax 1"])


@every
def test_one_entry_and_no_rows(relax):
    assert relax(torch.tensor([[3.0], [-1e9]])).tolist() == [[1.0], [1.0]]
    z = torch.zeros(1, 1, requires_grad=True)
    assert torch.autograd.grad(relax(z).sum(), z)[0].tolist() == [[0.0]]
    empty = torch.zeros(2, 0, K, requires_grad=True)
    assert relax(empty).shape == (2, 0, K)
    assert torch.autograd.grad(relax(empty).sum(), empty)[0].shape == (2, 0, K)


def test_no_rows_with_a_radius_each():
    assert sparsestmax(torch.zeros(0, 3), torch.zeros(0, 1)).shape == (0, 3)


@pytest.mark.parametrize("relax", UNORDERED.values(), ids=UNORDERED.keys())
@SOME
@given(z=ROWS, dropped=st.sets(st.integers(0, K - 1), max_size=K - 1))
def test_minus_infinity_equals_dropping_the_entry(relax, z, dropped):
    z = double(z)
    left = [i for i in range(K) if i not in dropped]
    masked = z.clone()
    masked[:, sorted(dropped)] = -math.inf
    both = torch.cat([masked, z])  # rows with and without a mask in one batch
    radius = min(0.6, circumradius(len(left)))

    for q, expected in (
        (relax(masked), relax(z[:, left])) if relax in (softmax, sparsemax) else (None, None),
        (sparsestmax(both, 0.6)[: len(z)], sparsestmax(z[:, left], radius)),
        (sparsestmax(both, 0.6)[len(z) :][:, left], sparsestmax(z, 0.6)[:, left]),
    ):
        if q is not None:
            assert q.shape[-1] == len(left) or q[:, sorted(dropped)].abs().sum() == 0
            own = q if q.shape[-1] == len(left) else q[:, left]
            assert torch.allclose(own, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["linear", "hinge", "strict"])
@settings(max_examples=60, deadline=None)
@given(z=ROWS, seed=st.integers(0, 1000), dropped=st.sets(st.integers(0, K - 1), max_size=K - 1))
def test_minus_infinity_takes_the_entry_out_of_its_tree(form, z, seed, dropped):
    z, tree = double(z), random_tree(random.Random(seed), K, roots=1 + seed % 2)
    left, smaller = without(tree, dropped)
    masked = z.clone()
    masked[:, sorted(dropped)] = -math.inf
    weights = torch.arange(1.0, K + 1, dtype=torch.float64)
    results = []
    for rows, order, names in ((masked, tree, left), (z[:, left], smaller, range(len(left)))):
        rows.requires_grad_()
        radius = min(0.3, circumradius(len(left)))
        q = sorted_sparsestmax(rows, radius, order, 0.4, form)[:, list(names)]
        (grad,) = torch.autograd.grad((q * weights[left]).sum(), rows)
        results.append((q, grad[:, list(names)]))

    assert torch.allclose(results[0][0], results[1][0], rtol=0, atol=1e-10)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)


def test_minus_infinity_is_never_drawn():
    z = torch.zeros(500, 3)
    z[:, 1] = -math.inf
    for hard in (True, False):
        q = gumbel_softmax(z, generator=torch.Generator().manual_seed(0), hard=hard)
        assert q[:, 1].abs().sum() == 0
        assert (q[:, 0] > 0.5).float().mean().item() == pytest.approx(0.5, abs=0.1)


@every
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "logits must be numbers below +inf; got nan; at row (1, 0). Look for a loss"),
        (math.inf, "logits must be numbers below +inf; got inf; at row (1, 0). "),
        (-math.inf, "at least one logit above -inf; got -inf throughout; at row (1, 0). "),
    ],
)
def test_rows_that_define_no_weights_are_named(relax, value, text):
    z = torch.zeros(2, 3, K)
    z[1, 0] = -math.inf
    z[1, 0, 2] = value

    with pytest.raises(RelaxationError) as error:
        relax(z)

    assert text in str(error.value)
    with pytest.raises(RelaxationError, match="at the only row"):
        relax(z[1, 0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("relax", EVERY.values(), ids=EVERY.keys())
def test_such_rows_are_nan_throughout_where_nothing_can_be_read(relax, value, monkeypatch):
    """An accelerator's part, played by a host that reads nothing."""
    monkeypatch.setattr("trinas.relax._rows.torch.compiler.is_compiling", lambda: True)
    z = torch.zeros(3, K)
    z[1] = -math.inf
    z[1, 2] = value
    q = relax(z)

    assert q[1].isnan().all()
    assert not q[[0, 2]].isnan().any()


@every
def test_nothing_is_read_back_from_a_device(relax):
    """Meta tensors have no values: whatever waits for one fails on them."""
    z = torch.zeros(3, K, device="meta", requires_grad=True)
    # A generator belongs to a device, and there is none for meta.
    q = gumbel_softmax(z, 0.5) if relax in NOISY.values() else relax(z)
    (grad,) = torch.autograd.grad(q.sum(), z, create_graph=True)

    assert (q.device.type, grad.shape) == ("meta", z.shape)
    radius = torch.zeros(3, 1, device="meta")
    assert sparsestmax(z, radius, min_spread=0.1).shape == z.shape


@certain
def test_vmap_agrees_with_a_batch(relax):
    z = torch.randn(4, K, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 0.4
    weights = double([1, 2, 3, 4, 5])

    assert torch.allclose(torch.func.vmap(relax)(z), relax(z))
    mapped = torch.func.vmap(torch.func.grad(lambda row: (relax(row) * weights).sum()))(z)
    own = z.clone().requires_grad_()
    assert torch.allclose(mapped, torch.autograd.grad((relax(own) * weights).sum(), own)[0])


@every
def test_what_is_no_set_of_logits_is_refused(relax):
    with pytest.raises(RelaxationError, match=r"got 2\. The logits have shape \(3, 5\)"):
        relax_with_dim(relax, torch.zeros(3, 5), 2)
    with pytest.raises(RelaxationError, match=r"got -3"):
        relax_with_dim(relax, torch.zeros(3, 5), -3)
    with pytest.raises(RelaxationError, match=r"floating point numbers; got torch\.int64"):
        relax(torch.zeros(3, 5, dtype=torch.long))
    with pytest.raises(RelaxationError, match="dim must be a dimension"):
        relax_with_dim(relax, torch.tensor(1.0), 0)


def relax_with_dim(relax, z, dim):
    """Call with a dimension that `relax` itself must not index by."""
    if relax in (softmax, sparsemax) or relax in NOISY.values():
        return relax(z, dim)
    return sparsestmax(z, 0.0, dim)


def test_a_choice_without_entries_is_refused():
    with pytest.raises(RelaxationError, match=r"at least one entry; got shape \(3, 0\); at dim -1"):
        softmax(torch.zeros(3, 0))


@every
def test_strides_do_not_matter(relax):
    z = torch.randn(6, 2 * K, generator=torch.Generator().manual_seed(6))[:, ::2]
    before = z.clone()

    assert torch.equal(relax(z), relax(z.contiguous()))
    assert torch.equal(z, before)
