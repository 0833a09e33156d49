"""The expected loss over the exits of a tree, against enumeration."""

import pytest
import torch
import torch.nn.functional as F

import trinas as tn

# -- the expected loss over the options of one decision -----------------------------------


def losses_at_exits(net, mixture, path, loss, batch):
    """The loss at each living option of a decision, the others as they are mixed."""
    x, y = batch
    outputs = net.network.outputs_at_exits(x, mixture, path)
    return {option: loss(y_hat, y) for option, y_hat in outputs.items()}


def shares(mixture, path):
    """The probability of each option, differentiable: the weights, or the odds behind a draw."""
    start, decision = mixture.graph.offsets[path], mixture.graph.decisions[path]
    slots = range(start, start + len(decision.options))
    drawn = any(mixture.host[k] != mixture.host_odds[k] for k in slots)
    flat = mixture.odds if drawn else mixture.weights
    return dict(zip(decision.options, (flat[k] for k in slots)))


def expected(losses, q):
    """``sum_k q_k L_k``; backward gives the exact gradients of logits and layers."""
    return torch.stack([q[option] * loss for option, loss in losses.items()]).sum()


# -- tests -------------------------------------------------------------------------------

RELAXATIONS = {
    "softmax": tn.relax.Softmax(),
    "sparsestmax": tn.relax.Sparsestmax(0.3),
    "sorted": tn.relax.SortedSparsestmax(0.01, "linear", radius=0.3),
    "gumbel": tn.relax.GumbelSoftmax(),
}


def graph(*, shared):
    """A tree between stem and head, with batch norm, and operations that are mixed, too."""
    op = tn.choice(small=tn.conv(1, 3), large=tn.conv(3, 3))
    block = tn.seq(op, tn.batch_norm(), tn.tanh())
    if shared:
        block = tn.share("cell", block, weights=True)
    trunk = tn.tree(a=block, b=tn.conv(1, 3), at_most={"a": 2, "b": 1}, name="trunk")
    return tn.lower(tn.seq(tn.conv(3, 3), trunk, tn.batch_norm(), tn.conv(1, 2)), (2, 5, 5))


def enumerated(net, mixture, batch):
    """The loss of every exit from a pass of its own, in which the other weights are mixed."""
    start, decision = net.graph.offsets["trunk"], net.graph.decisions["trunk"]
    hot = torch.zeros(net.graph.slots, dtype=torch.bool)
    hot[start : start + len(decision.options)] = True
    losses = {}
    for k, option in enumerate(decision.options):
        one = torch.zeros(net.graph.slots, dtype=mixture.weights.dtype)
        one[start + k] = 1.0
        weights = torch.where(hot, one, mixture.weights)
        alone = tn.Mixture.from_weights(net.graph, weights, weights)
        losses[option] = F.mse_loss(net(batch[0], at=alone), batch[1])
    return losses


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", RELAXATIONS)
def test_the_gradients_are_those_of_enumeration(name, training, shared):
    torch.manual_seed(0)
    net = tn.compile_supernet(
        graph(shared=shared),
        {"path": RELAXATIONS[name], "operation": tn.relax.Softmax()},
        init_std=0.3,
    )
    net.double().train(training)
    batch = torch.rand(4, 2, 5, 5).double(), torch.rand(4, 2, 5, 5).double()
    tensors = {n: p for n, p in net.named_parameters() if p.requires_grad}
    found = []
    for way in (losses_at_exits, None):
        mixture = net.mixture(generator=torch.Generator().manual_seed(4))
        q = shares(mixture, "trunk")
        if way is None:
            losses = enumerated(net, mixture, batch)
        else:
            losses = way(net, mixture, "trunk", F.mse_loss, batch)
        total = sum(q[option] * loss for option, loss in losses.items())
        torch.testing.assert_close(expected(losses, q), total)
        grads = torch.autograd.grad(expected(losses, q), list(tensors.values()), allow_unused=True)
        found.append(
            {
                n: torch.zeros_like(p) if g is None else g
                for (n, p), g in zip(tensors.items(), grads)
            }
        )

    assert sum(q.values()).item() == pytest.approx(1)
    assert found[0]["architecture.beta_8"].abs().sum() > 0
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], atol=1e-10, rtol=1e-7, msg=key)


def test_under_softmax_the_gradient_is_that_of_the_score():
    """``dE / d gamma_k = p_k (L_k - E[L])``."""
    net = tn.compile_supernet(graph(shared=False), tn.relax.Softmax(), init_std=0.5).double()
    batch = torch.rand(4, 2, 5, 5).double(), torch.rand(4, 2, 5, 5).double()
    mixture = net.mixture()
    losses = losses_at_exits(net, mixture, "trunk", F.mse_loss, batch)
    p = torch.stack(list(shares(mixture, "trunk").values()))
    each = torch.stack(list(losses.values())).detach()
    expected(losses, shares(mixture, "trunk")).backward()

    torch.testing.assert_close(
        net.arch_parameters()["beta_8"].grad[0], p * (each - (p * each).sum())
    )


def test_ends_that_are_out_have_no_say():
    net = tn.compile_supernet(graph(shared=False))
    net.progress = 1.0
    mixture = net.mixture()
    batch = torch.rand(4, 2, 5, 5), torch.rand(4, 2, 5, 5)
    losses = losses_at_exits(net, mixture, "trunk", F.mse_loss, batch)

    assert list(losses) == [tn.derive(net)["trunk"]]
