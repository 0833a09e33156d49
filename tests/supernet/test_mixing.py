"""The weighted sum against torch's own operators, in value and all gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trinas.supernet.compiled import merged
from trinas.supernet.mixing import apart, concatenated, joint_sum, weighted_sum

SHAPES = [(2, 3, 4, 5), (2, 3), (2, 1, 1, 1)]


def parts(count, shape, *, dtype=torch.float64, layout=torch.contiguous_format, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(count, generator=generator, dtype=dtype).requires_grad_()
    xs = [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(count)]
    if len(shape) == 4:
        xs = [x.contiguous(memory_format=layout) for x in xs]
    return weights, [x.requires_grad_() for x in xs]


@given(
    st.integers(1, 5),
    st.sampled_from(SHAPES),
    st.sampled_from([torch.contiguous_format, torch.channels_last]),
    st.integers(0, 2**20),
)
def test_value_and_gradients_are_those_of_torch(count, shape, layout, seed):
    weights, xs = parts(count, shape, layout=layout, seed=seed)
    target = torch.randn(shape, dtype=torch.float64)

    ours = weighted_sum(weights.unbind(), xs)
    plain = sum(w * x for w, x in zip(weights, xs))

    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(
        torch.autograd.grad((ours * target).sum(), [weights, *xs]),
        torch.autograd.grad((plain * target).sum(), [weights, *xs]),
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_differentiable_again(shape):
    weights, xs = parts(3, shape)

    def mixed(weights, *xs):
        return weighted_sum(weights.unbind(), xs)

    assert torch.autograd.gradcheck(mixed, (weights, *xs))
    assert torch.autograd.gradgradcheck(mixed, (weights, *xs))


def test_inputs_of_different_precision_are_added_in_the_higher_one():
    weights, xs = parts(2, (2, 3), dtype=torch.float32)
    mixed = weighted_sum(weights.unbind(), [xs[0], xs[1].bfloat16()])
    mixed.sum().backward()

    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, weights[0] * xs[0] + weights[1] * xs[1].bfloat16().float())
    assert weights.grad.dtype == torch.float32


def test_a_gradient_of_another_layout_is_read_right():
    weights, xs = parts(2, (2, 3, 4, 5), layout=torch.channels_last)
    grad = torch.randn(2, 3, 4, 5, dtype=torch.float64)  # contiguous, unlike the inputs
    (got,) = torch.autograd.grad(weighted_sum(weights.unbind(), xs), [weights], grad)

    torch.testing.assert_close(got, torch.stack([(grad * x).sum() for x in xs]))


def test_a_weight_that_asks_for_no_gradient_gets_none():
    weights, xs = parts(2, (2, 3))
    first, second = weights.unbind()
    mixed = weighted_sum([first, second.detach()], xs)
    (grad,) = torch.autograd.grad(mixed.sum(), [weights])

    torch.testing.assert_close(grad, torch.stack([xs[0].sum(), torch.zeros_like(first)]))


def test_nothing_is_kept_for_backward_where_no_weight_is_trained():
    weights, xs = parts(2, (2, 3))
    mixed = weighted_sum(weights.detach().unbind(), [x.detach() for x in xs])

    assert mixed.grad_fn is None


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_weight_of_one_costs_nothing_forward_and_has_the_gradients_of_a_product(layout):
    _, (x,) = parts(1, (2, 3, 4, 5), layout=layout)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    result = joint_sum([x], [1.0], [weight], [1.0])
    target = torch.randn(2, 3, 4, 5, dtype=torch.float64)

    assert result.data_ptr() == x.data_ptr()
    torch.testing.assert_close(
        torch.autograd.grad((result * target).sum(), [weight, x]),
        torch.autograd.grad((weight * x * target).sum(), [weight, x]),
    )


TERMS = st.lists(
    st.tuples(st.sampled_from([1.0, 0.2, -3.0]), st.sampled_from([None, 1.0, 0.25])),
    min_size=1,
    max_size=4,
)
"""A factor and a weight each, None where nothing is weighted."""


def plain_sum(xs, factors, weights):
    weighted = [x if w is None else w * x for w, x in zip(weights, xs)]
    return sum(f * x for f, x in zip(factors, weighted))


@given(terms=TERMS, asked=st.integers(0, 255), layout=st.sampled_from([0, 1]))
def test_a_joint_sum_and_its_gradients_are_those_of_products_and_sums(terms, asked, layout):
    factors, values = zip(*terms)
    format = [torch.contiguous_format, torch.channels_last][layout]
    _, xs = parts(len(terms), (2, 3, 2, 2), layout=format)
    weights = [None if v is None else torch.tensor(v, dtype=torch.float64) for v in values]
    tensors = [*xs, *(w for w in weights if w is not None)]
    leaves = [t.detach().requires_grad_() if asked >> k & 1 else t for k, t in enumerate(tensors)]
    xs, rest = leaves[: len(xs)], iter(leaves[len(xs) :])
    weights = [None if w is None else next(rest) for w in weights]
    hosts = [1.0 if v is None else v for v in values]
    ours, plain = joint_sum(xs, factors, weights, hosts), plain_sum(xs, factors, weights)
    target = torch.randn(plain.shape, dtype=torch.float64)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]

    torch.testing.assert_close(ours, plain)
    assert ours.requires_grad == bool(wanted)
    if wanted:
        torch.testing.assert_close(
            torch.autograd.grad((ours * target).sum(), wanted, allow_unused=True),
            torch.autograd.grad((plain * target).sum(), wanted, allow_unused=True),
        )


def test_a_joint_sum_keeps_for_backward_what_is_weighted_and_no_more():
    _, xs = parts(3, (2, 3))
    one = torch.ones((), dtype=torch.float64, requires_grad=True)
    total = joint_sum(xs, [1.0, 0.2, 1.0], [None, one, None], [1.0] * 3)

    kept = [t.data_ptr() for t in total.grad_fn.saved_tensors]
    assert kept == [one.data_ptr(), xs[1].data_ptr()]


def test_second_gradients_of_a_joint_sum_are_those_of_products_and_sums():
    _, xs = parts(3, (2, 3))
    one = torch.ones((), dtype=torch.float64, requires_grad=True)
    part = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    weights, factors = [one, None, part], [1.0, 0.5, -2.0]
    leaves = [one, part, *xs]
    found = []
    for total in (
        joint_sum(xs, factors, weights, [1.0, 1.0, 0.25]),
        plain_sum(xs, factors, weights),
    ):
        first = torch.autograd.grad(total.square().sum(), leaves, create_graph=True)
        mixed = first[0] * first[1] + sum(g.square().sum() for g in first[2:])
        found.append(torch.autograd.grad(mixed, leaves))

    torch.testing.assert_close(*found)


def test_a_joint_sum_rounds_as_the_sum_of_a_plain_network():
    xs = [torch.randn(2, 3, 8, 8) for _ in range(3)]
    weights = [torch.ones((), requires_grad=True) for _ in xs]

    ours = joint_sum(xs, [1.0, 0.2, 1.0], weights, [1.0] * 3)

    assert torch.equal(ours, merged("sum", xs, (1.0, 0.2, 1.0)))


def test_a_joint_sum_in_low_precision_is_that_of_its_widest_part():
    xs = [torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4, dtype=torch.bfloat16)]
    weights = [torch.ones((), requires_grad=True) for _ in xs]
    xs = [x.requires_grad_() for x in xs]
    total = joint_sum(xs, [1.0, 1.0], weights, [1.0, 1.0])
    total.sum().backward()

    assert total.dtype == torch.float32
    assert [x.grad.dtype for x in xs] == [torch.float32, torch.bfloat16]
    assert weights[1].grad.dtype == torch.float32


def test_numbers_taken_apart_give_one_gradient_back():
    weights = torch.rand(5, dtype=torch.float64, requires_grad=True)
    found = []
    for single in (apart(weights), weights.unbind(0)):
        (first,) = torch.autograd.grad(single[1] ** 3 + 2 * single[3], weights, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), weights)
        found += [(first.detach(), second)]

    torch.testing.assert_close(*found)
    assert found[0][0][0] == 0
    assert not apart(weights.detach())[0].requires_grad


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_concatenation_is_that_of_torch_with_gradients_in_one_piece(layout):
    xs = [
        torch.rand(2, c, 5, 4, dtype=torch.double).to(memory_format=layout).requires_grad_()
        for c in (3, 1, 2)
    ]
    y, expected = concatenated(xs), torch.cat(xs, dim=1)
    cotangent = torch.rand_like(expected)
    grads = torch.autograd.grad(y, xs, cotangent)

    assert torch.equal(y, expected)
    torch.testing.assert_close(grads, torch.autograd.grad(expected, xs, cotangent))
    assert all(g.is_contiguous(memory_format=layout) for g in grads)
    assert torch.autograd.gradcheck(lambda *xs: concatenated(xs), xs)
    assert torch.autograd.gradgradcheck(lambda *xs: concatenated(xs), xs)


def test_concatenation_gives_no_gradient_that_nobody_asked_for():
    a, b = torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3, 3, requires_grad=True)

    concatenated([a, b]).sum().backward()

    assert a.grad is None
    assert torch.equal(b.grad, torch.ones_like(b))
    assert not concatenated([a, a]).requires_grad
