"""Every registered operation: what it declares is what is built, at every width."""

from __future__ import annotations

import pytest
import torch
import torchinfo
from ops.test_ops_registry import OURS
from torch import Tensor, nn
from torch.nn import functional as F

import trinas as tn
from trinas._core.errors import ShapeError, SpaceError
from trinas.ops import Cut
from trinas.space.nodes import Op
from trinas.space.operation import OperationSpec, resolve_dimension
from trinas.space.shape import Shape
from trinas.space.values import Var

IMAGE = (8, 6, 6)

# For every registered operation some settings, each with an input.
CASES = {
    "activation": [(tn.activation(f), IMAGE) for f in ("leaky_relu", "gelu", "silu", "hardswish")],
    "affine": [(tn.affine(2.0, 1.0), IMAGE), (tn.affine(0.5), IMAGE), (tn.affine(), (8,))],
    "avg_pool": [(tn.avg_pool(3), IMAGE), (tn.avg_pool(2, stride=2), (3, 7, 8))],
    "basic_block": [(tn.basic_block(8), IMAGE), (tn.basic_block(12, stride=2), IMAGE)],
    "batch_norm": [(tn.batch_norm(), IMAGE), (tn.batch_norm(affine=False, momentum=0.3), IMAGE)],
    "conv": [
        (tn.conv(3, 4), IMAGE),
        (tn.conv(1, 12, bias=False), IMAGE),
        (tn.conv(5, 4, stride=2), (3, 7, 8)),
        (tn.conv(4, 4, stride=2), (3, 7, 8)),
        (tn.conv(3, 4, dilation=2), IMAGE),
        (tn.conv(3, 12, groups=4), IMAGE),
        (tn.conv(1, tn.IN * 2), IMAGE),
    ],
    "conv_bn_relu": [
        (tn.conv_bn_relu(3, 4, stride=2), IMAGE),
        (tn.conv_bn_relu(1, 8, groups=2), IMAGE),
    ],
    "conv_relu": [(tn.conv_relu(3, 4, bias=True), IMAGE)],
    "crop": [(tn.crop(1, 2), IMAGE), (tn.crop(0, 0), IMAGE)],
    "dil_conv": [(tn.dil_conv(3, 4, stride=2), IMAGE), (tn.dil_conv(5, 8), IMAGE)],
    "dropout": [(tn.dropout(0.3), IMAGE), (tn.dropout(), (8,))],
    "dwconv": [
        (tn.dwconv(3), IMAGE),
        (tn.dwconv(5, stride=2, bias=False), (3, 7, 8)),
        (tn.dwconv(3, dilation=2), IMAGE),
    ],
    "dwsblock": [(tn.dwsblock(8), IMAGE), (tn.dwsblock(4, kernel=5, expand=2, bias=True), IMAGE)],
    "factorized_reduce": [(tn.factorized_reduce(7), IMAGE)],
    "flatten": [(tn.flatten(), IMAGE), (tn.flatten(), (8,)), (tn.flatten(), (2, 3))],
    "global_avg_pool": [(tn.global_avg_pool(), IMAGE)],
    "inverted_residual": [
        (tn.inverted_residual(8), IMAGE),
        (tn.inverted_residual(4, kernel=5, expand=2, function="silu"), IMAGE),
    ],
    "linear": [(tn.linear(4), (8,)), (tn.linear(4, bias=False), (8,))],
    "max_pool": [(tn.max_pool(3), IMAGE), (tn.max_pool(2, stride=2), (3, 7, 8))],
    "pixel_shuffle": [(tn.pixel_shuffle(2), IMAGE), (tn.pixel_shuffle(1), IMAGE)],
    "relu": [(tn.relu(), IMAGE), (tn.relu(), (8,))],
    "relu_conv_bn": [(tn.relu_conv_bn(3, 4, stride=2), IMAGE)],
    "resblock": [(tn.resblock(8), IMAGE), (tn.resblock(4, kernel=5, bias=True), IMAGE)],
    "sep_conv": [(tn.sep_conv(3, 4, stride=2), IMAGE)],
    "shortcut": [(tn.shortcut(8), IMAGE), (tn.shortcut(4), IMAGE)],
    "sigmoid": [(tn.sigmoid(), IMAGE)],
    "squeeze_excite": [(tn.squeeze_excite(8), IMAGE), (tn.squeeze_excite(8, reduction=8), IMAGE)],
    "tanh": [(tn.tanh(), IMAGE)],
    "upsample": [
        (tn.upsample(2), IMAGE),
        (tn.upsample(3, mode="bilinear"), IMAGE),
        (tn.upsample(2, mode="bicubic"), IMAGE),
    ],
    "zero": [(tn.zero(), IMAGE), (tn.zero(stride=2), (3, 7, 8)), (tn.zero(), (8,))],
}
LISTED = [
    pytest.param(node, shape, id=f"{name}{i}")
    for name, cases in CASES.items()
    for i, (node, shape) in enumerate(cases)
]
every_case = pytest.mark.parametrize(("node", "in_shape"), LISTED)


def test_every_registered_operation_is_tested_here():
    assert sorted(CASES) == OURS


def operations_of(node: tn.Node, in_shape) -> list[tuple[OperationSpec, Shape, Shape]]:
    """The operations of a node as it is lowered, each with its two shapes."""
    graph = tn.lower(node, in_shape)
    tn.lint(graph)
    return [
        (
            graph.operation(n),
            graph.vertex(graph.sources(n)[0].node)["shape"],
            graph.vertex(n)["shape"],
        )
        for n in graph
        if graph.vertex(n)["kind"] == "op"
    ]


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in module.named_parameters()}


@every_case
def test_declared_weights_are_the_parameters_that_are_built(node, in_shape):
    for operation, x, y in operations_of(node, in_shape):
        declared = {
            name: tuple(resolve_dimension(d, x, y) for d in dimensions)
            for name, dimensions in operation.weights(x, y).items()
        }

        assert declared == shapes_of(operation.build(x, y))


@every_case
def test_the_shape_is_what_comes_out(node, in_shape):
    for operation, x, y in operations_of(node, in_shape):
        out = operation.build(x, y).eval()(torch.rand(2, *x.numbers()))

        assert (2, *y.numbers()) == out.shape


@every_case
def test_counts_are_those_of_torchinfo(node, in_shape):
    for operation, x, y in operations_of(node, in_shape):
        info = torchinfo.summary(operation.build(x, y), (1, *x.numbers()), verbose=0)

        assert info.total_params == operation.params(x, y)
        assert info.total_mult_adds == operation.macs(x, y)


@every_case
def test_a_built_network_has_the_shape_and_the_counts_of_its_graph(node, in_shape):
    graph = tn.lower(node, in_shape)
    network = tn.build(graph).eval()
    info = torchinfo.summary(network, (1, *in_shape), verbose=0)

    assert (2, *graph.out_shape.numbers()) == network(torch.rand(2, *in_shape)).shape
    assert info.total_params == tn.cost.params(graph)
    assert info.total_mult_adds == tn.cost.macs(graph)


# ------------------------------------------------------------ at every width

V, W = Var("v", (4, 8)), Var("w", (3, 8))
SAME = Var("same", (4, 8))
SEARCHED = {
    "conv": (tn.conv(3, W), V),
    "conv without bias": (tn.conv(1, W, bias=False), V),
    "conv with stride and dilation": (tn.conv(3, W, stride=2, dilation=2), V),
    "conv to a fixed width": (tn.conv(3, 5), V),
    "conv from a fixed width": (tn.conv(3, W), 6),
    "conv to a multiple": (tn.conv(1, W * 2 + 1), V),
    "dwconv": (tn.dwconv(3), V),
    "dwconv without bias": (tn.dwconv(3, stride=2, bias=False), V),
    "shortcut that maps": (tn.shortcut(W), V),
    "shortcut that does not": (tn.shortcut(V), V),
    "batch_norm": (tn.batch_norm(), V),
    "batch_norm without weights": (tn.batch_norm(affine=False), V),
    "relu": (tn.relu(), V),
    "sigmoid": (tn.sigmoid(), V),
    "avg_pool": (tn.avg_pool(3), V),
    "max_pool": (tn.max_pool(2, stride=2), V),
    "global_avg_pool": (tn.global_avg_pool(), V),
    "pixel_shuffle": (tn.pixel_shuffle(2), V),
    "upsample": (tn.upsample(2), V),
    "crop": (tn.crop(1, 1), V),
    "flatten": (tn.flatten(), V),
    "affine": (tn.affine(2.0, 1.0), V),
    "zero": (tn.zero(stride=2), V),
    "dropout": (tn.dropout(), V),
}


def randomise(module: nn.Module) -> nn.Module:
    """Weights and statistics that are all different; evaluation mode."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return module.eval()


def indices(used: int, full: int, scattered: bool) -> Tensor:
    """Which `used` of `full` channels are in force."""
    return torch.arange(full)[-used:] if scattered else torch.arange(used)


class Case:
    """One operation at full width, and the plain one at a narrower width."""

    def __init__(self, name: str, *, scattered: bool) -> None:
        node, channels = SEARCHED[name]
        assert isinstance(node, Op)
        at = {V: 4, W: 3}
        self.operation = node.operation
        self.x = Shape.of(channels, 6, 6)
        self.y = self.operation.out_shape(self.x)
        self.narrow_x, self.narrow_y = self.x.at(at), self.y.at(at)
        self.full = randomise(self.operation.build(self.x, self.y))
        self.ins = indices(self.narrow_x.numbers()[0], self.x.numbers()[0], scattered)
        self.outs = indices(self.narrow_y.numbers()[0], self.y.numbers()[0], scattered)
        plain = self.operation.bind(at)
        self.plain = plain.build(self.narrow_x, self.narrow_y).eval()
        self._copy_weights(self.operation.weights(self.x, self.y))
        self.input = torch.rand(2, *self.narrow_x.numbers())

    def _copy_weights(self, declared) -> None:
        full = dict(self.full.named_parameters()) | dict(self.full.named_buffers())
        for name, narrow in (*self.plain.named_parameters(), *self.plain.named_buffers()):
            part = full[name].detach()
            dimensions = declared.get(name, ("out",) if part.dim() else ())
            for axis, dimension in enumerate(dimensions):
                chosen = {"in": self.ins, "out": self.outs}.get(str(dimension))
                part = part if chosen is None else part.index_select(axis, chosen)
            narrow.detach().copy_(part)

    def cut(self, *, scattered: bool) -> Cut:
        declared = self.operation.weights(self.x, self.y)
        same = len(self.ins) == len(self.outs)
        if scattered:
            return Cut(self.ins, self.outs, same, declared)
        ins = None if not self.x.symbols else len(self.ins)
        outs = None if not self.y.symbols else len(self.outs)
        return Cut(ins, outs, same, declared)


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("name", SEARCHED)
def test_a_cut_is_a_plain_module_with_the_slices(name, scattered):
    case = Case(name, scattered=scattered)
    result = case.operation.run(case.full, case.input, case.cut(scattered=scattered))

    assert (2, *case.narrow_y.numbers()) == result.shape
    torch.testing.assert_close(case.plain(case.input), result)


@pytest.mark.parametrize("name", SEARCHED)
def test_masked_is_sliced(name):
    """At full width, whatever stands beyond the cut, the same comes out."""
    case = Case(name, scattered=False)
    kept_in, kept_out = len(case.ins), len(case.outs)
    wide = torch.rand(2, *case.x.numbers()) + 7
    wide[:, :kept_in] = case.input
    same: bool | Tensor = torch.tensor(float(kept_in == kept_out))
    mask = (torch.arange(wide.shape[1]) < kept_in).float()
    cut = Cut(
        None,
        None,
        same,
        case.operation.weights(case.x, case.y),
        mask if case.operation.adds_channels else None,
    )
    result = case.operation.run(case.full, wide, cut)

    assert case.operation.adds_channels != case.operation.channelwise
    torch.testing.assert_close(case.plain(case.input), result[:, :kept_out])


def test_a_mask_on_the_weight_is_one_on_the_input():
    cut = Cut(mask=torch.rand(3))
    x, weight = torch.rand(2, 3, 5, 5), torch.rand(4, 3, 3, 3)

    torch.testing.assert_close(
        F.conv2d(x, cut.weight(weight, ("out", "in"))), F.conv2d(cut.masked(x), weight)
    )
    assert Cut().masked(x) is x


@pytest.mark.parametrize("odds", [0.0, 0.25, 1.0])
def test_a_shortcut_mixes_by_the_odds_that_widths_are_equal(odds):
    operation = tn.shortcut(W).operation
    x = Shape.of(V, 4, 4)
    module = randomise(operation.build(x, operation.out_shape(x)))
    tensor = torch.rand(2, 8, 4, 4)
    mixed = operation.run(module, tensor, Cut(same=torch.tensor(odds)))

    torch.testing.assert_close(odds * tensor + (1 - odds) * module(tensor), mixed)


def test_a_shortcut_passes_on_where_the_cut_widths_agree():
    operation = tn.shortcut(W).operation
    x = Shape.of(V, 4, 4)
    module = operation.build(x, operation.out_shape(x))
    tensor = torch.rand(2, 3, 4, 4)

    assert operation.run(module, tensor, Cut(3, 3, True)) is tensor


def test_a_superkernel_is_built_where_the_widest_widths_agree():
    """Equal at their widest, two widths may still differ when searched."""
    operation = tn.shortcut(W).operation
    x = Shape.of(V, 4, 4)
    y = operation.out_shape(x)

    assert x.numbers() == y.numbers()
    assert isinstance(operation.build(x, y), nn.Conv2d)
    assert operation.weights(x, y) == {"weight": ("out", "in", 1, 1)}
    assert isinstance(operation.build(x, x), nn.Identity)


@pytest.mark.parametrize("scattered", [False, True])
def test_training_moves_only_the_statistics_in_use(scattered):
    case = Case("batch_norm", scattered=scattered)
    before = case.full.running_mean.clone()
    case.full.train()
    case.plain.train()
    result = case.operation.run(case.full, case.input, case.cut(scattered=scattered))
    unused = [i for i in range(8) if i not in case.outs.tolist()]

    torch.testing.assert_close(case.plain(case.input), result)
    torch.testing.assert_close(case.plain.running_mean, case.full.running_mean[case.outs])
    torch.testing.assert_close(case.plain.running_var, case.full.running_var[case.outs])
    assert torch.equal(before[unused], case.full.running_mean[unused])
    assert case.plain.num_batches_tracked == case.full.num_batches_tracked


@pytest.mark.parametrize("name", ["conv", "dwconv", "batch_norm"])
def test_gradients_reach_the_weights_in_use_only(name):
    case = Case(name, scattered=False)
    case.operation.run(case.full, case.input, case.cut(scattered=False)).sum().backward()
    gradient = case.full.weight.grad

    assert gradient[: len(case.outs)].any()
    assert not gradient[len(case.outs) :].any()


def test_cut_weights_are_views():
    weight = torch.rand(8, 6, 3, 3)
    part = Cut(2, 3).weight(weight, ("out", "in", 3, 3))

    assert part.shape == (3, 2, 3, 3)
    assert weight.data_ptr() == part.data_ptr()
    assert weight is Cut().weight(weight, ("out", "in", 3, 3))


# ------------------------------------------------------------ settings and inputs that do not fit


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda: tn.conv(0, 8), "kernel of conv is a whole number of at least 1; got 0"),
        (lambda: tn.conv(3.0, 8), "kernel of conv is a whole number of at least 1; got 3.0"),
        (lambda: tn.conv(3, 8, stride=0), "stride of conv is a whole number of at least 1; got 0"),
        (lambda: tn.conv(3, 8, dilation=-1), "dilation of conv is a whole number of at least 1"),
        (lambda: tn.conv(3, 8, groups=True), "groups of conv is a whole number of at least 1"),
        (lambda: tn.conv(3, 0), "a channel count is at least 1; got 0"),
        (lambda: tn.conv(3, 8.0), "a channel count is an int, a width, or an expression"),
        (lambda: tn.dwconv(0), "kernel of dwconv is a whole number of at least 1; got 0"),
        (lambda: tn.linear(0), "a channel count is at least 1; got 0"),
        (lambda: tn.shortcut("8"), "a channel count is an int, a width, or an expression"),
        (lambda: tn.squeeze_excite(3), "a channel count is at least 1; got 0"),
        (lambda: tn.max_pool(0), "kernel of max_pool is a whole number of at least 1; got 0"),
        (lambda: tn.avg_pool(2, stride=0), "stride of avg_pool is a whole number of at least 1"),
        (lambda: tn.pixel_shuffle(0), "factor of pixel_shuffle is a whole number of at least 1"),
        (lambda: tn.upsample(0.5), "factor of upsample is a whole number of at least 1; got 0.5"),
        (lambda: tn.upsample(2, mode="cubic"), "unknown mode of upsample; got 'cubic'"),
        (lambda: tn.crop(-1, 0), "top of crop is a whole number of at least 0; got -1"),
        (lambda: tn.zero(stride=0), "stride of zero is a whole number of at least 1; got 0"),
        (lambda: tn.dropout(1.0), "the rate of dropout is a number from 0, and below 1; got 1.0"),
        (lambda: tn.dropout("x"), "the rate of dropout is a number from 0, and below 1; got x"),
        (lambda: tn.activation("rleu"), "unknown activation; got 'rleu'"),
    ],
)
def test_settings_that_cannot_be(write, text):
    with pytest.raises(SpaceError) as caught:
        write()

    assert str(caught.value).startswith(text)
    assert f"at test_operations.py:{write.__code__.co_firstlineno}" in str(caught.value)
    assert caught.value.fix


def test_an_unknown_activation_offers_a_near_one_and_all():
    with pytest.raises(SpaceError, match=r"Did you mean 'relu'\? Known: relu, leaky_relu, gelu, "):
        tn.activation("rleu")


@pytest.mark.parametrize(
    ("node", "shape", "text"),
    [
        (tn.conv(3, 8), (8,), r"a conv takes a feature map \(C, H, W\); got 8; at conv \(conv"),
        (tn.dwconv(3), (8,), "a dwconv takes a feature map"),
        (tn.batch_norm(), (8,), "batch_norm takes a feature map"),
        (tn.max_pool(2), (8,), "max_pool takes a feature map"),
        (tn.global_avg_pool(), (8,), "global_avg_pool takes a feature map"),
        (tn.upsample(2), (8,), "upsample takes a feature map"),
        (tn.crop(1, 1), (8,), "crop takes a feature map"),
        (tn.shortcut(8), (8,), "a shortcut takes a feature map"),
        (tn.pixel_shuffle(2), (8,), "pixel_shuffle takes a feature map"),
        (tn.linear(8), IMAGE, "a linear layer takes a vector; got 8x6x6"),
        (tn.conv(7, 8, dilation=3), (8, 1, 1), None),
        (tn.conv(2, 8), (8, 1, 1), "a conv leaves at least one position; got 8x1x1"),
        (tn.max_pool(2), (8, 1, 1), "max_pool leaves at least one position; got 8x1x1"),
        (tn.crop(6, 0), IMAGE, "a crop leaves at least one position; got 8x6x6"),
        (
            tn.pixel_shuffle(3),
            IMAGE,
            r"pixel_shuffle takes a multiple of factor\^2 channels; got 8",
        ),
        (tn.conv(3, 9, groups=2), IMAGE, "groups divide the channels on both sides; got groups=2"),
        (tn.conv(3, 6, groups=3), IMAGE, "groups divide the channels on both sides; got groups=3"),
        (
            tn.seq(tn.conv(3, tn.width(values=(4, 8))), tn.conv(3, 8, groups=2)),
            IMAGE,
            "a grouped convolution needs a fixed number of channels",
        ),
        (
            tn.conv(3, tn.width(values=(4, 8)), groups=2),
            IMAGE,
            "a grouped convolution has a fixed number of channels; got conv/width",
        ),
        (
            tn.seq(tn.conv(3, tn.width(values=(4, 6))), tn.pixel_shuffle(2)),
            IMAGE,
            r"pixel_shuffle takes a multiple of factor\^2 channels; got conv/width channels",
        ),
        (tn.conv(1, tn.IN // 16), IMAGE, "a channel count is at least 1; got 0; at conv"),
        (tn.factorized_reduce(8), (8, 7, 7), "what is concatenated has one height and width"),
    ],
)
def test_inputs_that_do_not_fit(node, shape, text):
    if text is None:
        tn.lower(node, shape)
        return
    with pytest.raises((ShapeError, SpaceError), match=text) as caught:
        tn.lower(node, shape)

    assert "declared at test_operations.py:" in str(caught.value)
    assert caught.value.fix


def test_pixels_are_shuffled_over_a_concatenation_of_fixed_parts():
    """Only all channels together have to divide: 2 + 2 into 1."""
    halves = tn.concat(tn.conv(1, 2), tn.conv(1, 2))

    assert tn.lower(tn.seq(halves, tn.pixel_shuffle(2)), IMAGE).out_shape.numbers() == (1, 12, 12)


# ------------------------------------------------------------ what they compute


def run(node: tn.Node, x: Tensor) -> Tensor:
    return tn.build(tn.lower(node, tuple(x.shape[1:]))).eval()(x)


X = torch.arange(32.0).reshape(1, 2, 4, 4)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (tn.affine(2.0, 1.0), 2 * X + 1),
        (tn.affine(0.5), X / 2),
        (tn.zero(), 0 * X),
        (tn.zero(stride=3), torch.zeros(1, 2, 2, 2)),
        (tn.crop(1, 2), X[:, :, 1:, 2:]),
        (tn.flatten(), X.reshape(1, 32)),
        (tn.global_avg_pool(), X.mean(dim=(2, 3), keepdim=True)),
        (tn.max_pool(2, stride=2), X[:, :, 1::2, 1::2]),
        (tn.upsample(2), X.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)),
        (tn.dropout(0.9), X),
        (tn.relu(), X),
        (tn.sigmoid(), torch.sigmoid(X)),
        (tn.tanh(), torch.tanh(X)),
        (tn.activation("leaky_relu"), X),
        (tn.affine(-1.0), -X),
    ],
)
def test_results_by_hand(node, expected):
    torch.testing.assert_close(expected, run(node, X))


def test_padding_is_left_out_of_averages():
    torch.testing.assert_close(torch.ones(1, 1, 4, 4), run(tn.avg_pool(3), torch.ones(1, 1, 4, 4)))


def test_leaky_relu_has_the_slope_it_says():
    torch.testing.assert_close(
        torch.tensor([[-0.2]]), run(tn.activation("leaky_relu"), -torch.ones(1, 1))
    )


def test_batch_norm_has_the_momentum_it_says():
    network = tn.build(tn.lower(tn.batch_norm(momentum=0.3), (2, 4, 4))).train()
    network(X)
    (norm,) = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]

    torch.testing.assert_close(0.3 * X.mean(dim=(0, 2, 3)), norm.running_mean)


def test_dropout_drops_at_its_rate_in_training():
    network = tn.build(tn.lower(tn.dropout(0.25), (10_000,))).train()
    dropped = (network(torch.ones(1, 10_000)) == 0).float().mean()

    assert pytest.approx(float(dropped), abs=0.02) == 0.25


def test_no_gradient_flows_through_zero():
    x = torch.ones(1, 2, 4, 4)

    assert not run(tn.zero(), x.requires_grad_()).requires_grad
