"""Soft widths: every channel by the odds that it is there, where channels meet."""

import copy

import pytest
import torch
from example_spaces import concatenated, trilevel
from torch.nn import functional as F

import trinas as tn

SHAPE = (3, 6, 6)
SOFT = {"width": tn.relax.Softmax()}


def soft(*items, shape=SHAPE, logits=None):
    """A supernet in training mode, in double precision, with soft widths of odds that differ."""
    torch.manual_seed(0)
    net = tn.compile_supernet(tn.lower(tn.seq(*items), shape), SOFT).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter))
        if logits is not None:
            for parameter in net.arch_parameters().values():
                parameter.copy_(parameter.new_tensor([logits]))
    return net


def images(shape=SHAPE, batch=4):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1)).double()


def mean_of_networks(net, x):
    """The output at each setting of all widths, by its own odds, each run at its widths."""
    odds, total = net.weights(), 0
    for genotype in tn.enumerate_genotypes(net.graph):
        weight = 1.0
        for path, option in genotype.items():
            weight *= odds[path][net.graph.decisions[path].index(option)]
        total = total + weight * net(x, at=genotype)
    return total


# -- the meaning -----------------------------------------------------------------------------


W = tn.width(values=(4, 8, 12), name="w")
MIDDLES = {
    "nothing": (),
    "norm, relu": (tn.batch_norm(), tn.relu()),
    "depthwise": (tn.dwconv(3), tn.batch_norm(), tn.sigmoid()),
    "pooling": (tn.avg_pool(3), tn.max_pool(2, stride=2), tn.batch_norm()),
    "a gate of fixed channels": (
        tn.parallel(tn.seq(), tn.seq(tn.global_avg_pool(), tn.sigmoid()), merge="product"),
    ),
    "an identity skip": (tn.residual(tn.seq(tn.dwconv(3), tn.batch_norm()), skip=tn.shortcut(W)),),
    "shuffled": (tn.batch_norm(), tn.pixel_shuffle(2)),
}
CHAINS = {
    **{name: (tn.conv(3, W), *middle) for name, middle in MIDDLES.items()},
    "pieces": (tn.concat(tn.conv(1, W), tn.conv(3, 2)), tn.batch_norm(), tn.relu()),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_a_network_behind_one_width_is_the_mean_over_its_values(chain):
    """Of what the next layer adds up; with batch norm in training as in evaluation."""
    net = soft(*CHAINS[chain], tn.conv(3, 2))
    x = images()

    torch.testing.assert_close(net(x), mean_of_networks(net, x))
    net.eval()
    torch.testing.assert_close(net(x), mean_of_networks(net, x))


def test_the_mean_behind_a_flatten():
    net = soft(tn.conv(3, W), tn.batch_norm(), tn.relu(), tn.flatten(), tn.linear(5))
    x = images()

    torch.testing.assert_close(net(x), mean_of_networks(net, x))


def test_an_output_counts_by_its_odds():
    net = soft(tn.conv(3, W), tn.batch_norm())
    x, (four, eight, twelve) = images(), net.weights()["conv/w"]
    mask = x.new_tensor([1.0] * 4 + [eight + twelve] * 4 + [twelve] * 4)
    wide = F.batch_norm(net.network.layers["conv"](x), None, None, training=True)
    norm = net.network.layers["batch_norm"]
    wide = wide * norm.weight[:, None, None] + norm.bias[:, None, None]

    torch.testing.assert_close(net(x), wide * mask[:, None, None])
    assert four + eight + twelve == pytest.approx(1)


def test_batch_norm_does_not_jump():
    """At odds of 0.99 and 0.01 the result is a hundredth of the way to the wide network."""
    width = tn.width(values=(1, 8), name="w")
    items = tn.conv(3, width), tn.batch_norm(), tn.relu(), tn.conv(3, 3)
    net = soft(*items, logits=[0.0, -4.59511985])  # log(0.01 / 0.99)
    x = images()
    narrow, wide = (net(x, widths=w) for w in ("narrowest", "widest"))

    way = ((net(x) - narrow) * (wide - narrow)).sum() / (wide - narrow).square().sum()
    assert way.item() == pytest.approx(0.01, rel=1e-6)


# -- gradients -------------------------------------------------------------------------------


def chain():
    w, v = (tn.width(values=(2, 4), name=name) for name in "wv")
    body = tn.residual(tn.seq(tn.conv(3, v), tn.batch_norm()), skip=tn.shortcut(v))
    return tn.lower(tn.seq(tn.conv(3, w), tn.batch_norm(), tn.relu(), body, tn.conv(1, 2)), SHAPE)


@pytest.mark.parametrize("graph", [chain, concatenated, trilevel])
def test_gradients_of_logits_are_finite_differences(graph):
    torch.manual_seed(0)
    graph = graph()
    net = tn.compile_supernet(graph, {**SOFT, "operation": tn.relax.Softmax()}, init_std=0.5)
    net = net.double()
    x = images(graph.in_shape.numbers(), 2)

    def loss():
        return net(x).square().mean()

    loss().backward()
    for name, parameter in net.arch_parameters().items():
        if not name.startswith("gamma"):
            continue
        direction, step = torch.randn_like(parameter), 1e-5
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * step)
                values.append(float(loss()))
                parameter.sub_(direction, alpha=sign * step)
        slope = (values[0] - values[1]) / (2 * step)
        got = float((parameter.grad * direction).sum())
        assert got == pytest.approx(slope, rel=1e-4, abs=1e-8), name
        assert abs(got) > 1e-8


@pytest.mark.parametrize("normal", [False, True])
def test_the_signal_of_two_widths_at_even_odds_is_the_difference_of_their_losses(normal):
    """Of a squared error, whose slope halfway is that from end to end; with batch norm, too."""
    width = tn.width(values=(1, 8), name="w")
    norm = (tn.batch_norm(),) if normal else ()
    net = soft(tn.conv(3, width), *norm, tn.relu(), tn.conv(3, 3), logits=[0.0, 0.0])
    x, y = images(), images((3, 6, 6)).flip(0)
    F.mse_loss(net(x), y).backward()
    narrow, wide = (F.mse_loss(net(x, widths=w), y).item() for w in ("narrowest", "widest"))

    grad = net.arch_parameters()["gamma_2"].grad
    assert grad[0].tolist() == pytest.approx([(narrow - wide) / 4, (wide - narrow) / 4])


# -- skips -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [2, 4])
@pytest.mark.parametrize("second", [2, 4, 8])
def test_a_skip_between_two_widths_at_one_hot_odds(first, second):
    a, b = tn.width(values=(2, 4), name="a"), tn.width(values=(2, 4, 8), name="b")
    net = soft(
        tn.conv(3, a), tn.batch_norm(), tn.shortcut(b), tn.batch_norm(), tn.sigmoid(), tn.conv(1, 2)
    )
    (of_a,) = (path for path in net.graph.decisions if path.endswith("a"))
    (of_b,) = (path for path in net.graph.decisions if path.endswith("b"))
    genotype = tn.Genotype.of(net.graph, {of_a: first, of_b: second})
    x = images()

    torch.testing.assert_close(net(x, at=genotype, widths="soft"), net(x, at=genotype))


def test_a_skip_is_an_identity_in_the_channels_that_are_there_then():
    """With odds (1/2, 1/2) of 2 and 4 against 2 and 8, only channels 0 and 1 are ever kept."""
    a, b = tn.width(values=(2, 4), name="a"), tn.width(values=(2, 8), name="b")
    net = soft(tn.conv(1, a), tn.shortcut(b), tn.conv(1, 2, bias=False))
    with torch.no_grad():
        for parameter in net.arch_parameters().values():
            parameter.zero_()
        net.network.layers["shortcut"].weight.zero_()
    x = images()
    wide = net.network.layers["conv[0]"](x)
    kept = wide * x.new_tensor([0.25, 0.25, 0, 0])[:, None, None]

    torch.testing.assert_close(net(x), F.conv2d(kept, net.network.layers["conv[1]"].weight[:, :4]))


# -- operations of users -----------------------------------------------------------------------


@tn.operation("soft_layer_norm")
class LayerNorm(tn.Operation):
    """Normalises over the channels that are there: a rule of its own it does not give."""

    def weights(self, x, y):
        return {"gain": ("out",)}

    def forward(self, x, gain):
        return F.layer_norm(x.movedim(1, -1), (x.shape[1],)).movedim(-1, 1) * gain[:, None, None]


@tn.operation("soft_mean")
class Mean(tn.Operation):
    """The mean of the channels."""

    def out_shape(self, x):
        return x.with_channels(1)

    def forward(self, x):
        return x.mean(1, keepdim=True)


@tn.operation("soft_total")
class Total(tn.Operation):
    """The sum of the channels, and it says so."""

    adds_channels = True

    def out_shape(self, x):
        return x.with_channels(1)

    def forward(self, x):
        return x.sum(1, keepdim=True)


@tn.operation("soft_wrong")
class Wrong(Mean):
    """A mean that calls itself channelwise."""

    channelwise = True


@pytest.mark.parametrize("operation", [LayerNorm, Mean, Total])
def test_an_operation_of_a_users_own_is_the_mean_over_widths(operation):
    """Apart at each width where nothing is known of it, so that it is right, whatever it does."""
    net = soft(tn.conv(3, W), operation(), tn.conv(1, 2))
    x = images()

    torch.testing.assert_close(net(x), mean_of_networks(net, x))


def test_pieces_are_told_apart():
    a, b = tn.width(values=(2, 3), name="a"), tn.width(values=(1, 4), name="b")
    net = soft(tn.concat(tn.conv(1, a), tn.conv(1, b)), LayerNorm(), tn.conv(1, 2))
    x = images()
    for genotype in tn.enumerate_genotypes(net.graph):
        torch.testing.assert_close(net(x, at=genotype, widths="soft"), net(x, at=genotype))

    net(x).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in net.arch_parameters().values())


def test_only_widths_that_count_are_run():
    ran = []

    @tn.operation("soft_counting")
    class Counting(tn.Operation):
        def forward(self, x):
            ran.append(x.shape[1])
            return x

    net = soft(tn.conv(3, W), Counting(), tn.conv(1, 2))
    genotype = tn.Genotype.of(net.graph, {next(iter(net.graph.decisions)): 8})
    net(images(), at=genotype, widths="soft")
    assert ran == [8]
    with torch.no_grad():
        net(images())
    assert ran == [8, 4, 8, 12]


def test_what_says_nothing_is_refused_at_too_many_widths():
    several = [tn.width(values=(1, 2, 3, 4), name=f"w{i}") for i in range(5)]
    graph = tn.lower(
        tn.seq(tn.concat(*(tn.conv(1, w) for w in several)), LayerNorm(), tn.conv(1, 1)), SHAPE
    )
    net = tn.compile_supernet(graph)

    with pytest.raises(
        tn.errors.SpaceError, match=r"at most 256; got 1024 .* around soft_layer_norm"
    ):
        net(images().float(), widths="soft")
    assert net(images().float(), widths="widest").shape == (4, 1, 6, 6)


def test_a_channelwise_operation_without_the_channels_is_refused():
    net = soft(tn.conv(3, W), Wrong(), tn.conv(1, 2))

    with pytest.raises(tn.errors.SpaceError, match=r"channelwise .* got soft_wrong.* at soft_wr"):
        net(images())


# -- passes ------------------------------------------------------------------------------------


def test_checkpointing_changes_nothing():
    net = soft(tn.conv(3, W), LayerNorm(), tn.batch_norm(), tn.conv(1, tn.width(values=(1, 2))))
    twin = copy.deepcopy(net)
    twin.network.checkpoint = True
    for one in (net, twin):
        one(images()).square().sum().backward()

    for a, b in zip(twin.parameters(), net.parameters()):
        torch.testing.assert_close(a.grad, b.grad)
