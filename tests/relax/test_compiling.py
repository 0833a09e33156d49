"""Relaxations inside a compiled function: one graph, the same numbers, whatever the progress."""

import functools

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import trinas as tn

CHAIN = ((0, 1, 2, 3, 4),)
TREE = (-1, 0, 1, 0, 3)
RELAXATIONS = {
    "softmax": (tn.relax.Softmax(), None),
    "sparsemax": (tn.relax.Sparsemax(), None),
    "sparsestmax": (tn.relax.Sparsestmax(), None),
    "softmax, 2 of 5": (functools.partial(tn.relax.Softmax(), k=2), None),
    "sparsemax, 2 of 5": (functools.partial(tn.relax.Sparsemax(), k=2), None),
    "sparsestmax, 2 of 5": (functools.partial(tn.relax.Sparsestmax(), k=2), None),
    **{
        f"sorted, {form}": (tn.relax.SortedSparsestmax(0.1, form), order)
        for form, order in (("linear", CHAIN), ("hinge", TREE), ("strict", CHAIN))
    },
}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def both(relax, logits, cotangent, **settings):
    weights = relax(logits, **settings)
    return weights, *torch.autograd.grad(weights, logits, cotangent)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("name", RELAXATIONS)
def test_one_graph_gives_the_same_weights_and_gradients(name):
    relax, order = RELAXATIONS[name]
    settings = {} if order is None else {"order": order}
    counter = CompileCounterWithBackend("aot_eager")

    @torch.compile(backend=counter, fullgraph=True, dynamic=True)
    def compiled(logits, progress):
        return relax(logits, progress=progress, **settings)

    counts = []
    for progress in (0.0, 0.3, 0.7, 0.9, 1.0):
        logits, cotangent = torch.randn(7, 5, requires_grad=True), torch.randn(7, 5)
        torch.testing.assert_close(
            both(lambda z, p=progress: compiled(z, p), logits, cotangent),
            both(relax, logits, cotangent, progress=progress, **settings),
        )
        counts.append(counter.frame_count)

    # A radius of 0, where sparsestmax is sparsemax, has a graph of its own.
    assert counts[1:] == [counts[1]] * 4
    assert counts[1] <= 2


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_gumbel_noise_is_drawn_within_the_graph():
    relax = tn.relax.GumbelSoftmax()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(relax, backend=counter, fullgraph=True, dynamic=True)
    logits = torch.zeros(200, 4, requires_grad=True)

    draws = [compiled(logits, progress=progress) for progress in (0.0, 0.5, 1.0)]

    assert counter.frame_count == 1
    for weights in draws:
        torch.testing.assert_close(weights.sum(-1), torch.ones(200))
    assert not torch.equal(draws[0], draws[1])
    (gradient,) = torch.autograd.grad(draws[1][:, 0].sum(), logits)
    assert gradient.abs().sum() > 0
