"""Operations of users: ten lines, and everything else follows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import trinas as tn
from trinas._core.errors import SpaceError


@tn.operation("user_scale_shift")
class ScaleShift(tn.Operation):
    """One factor and one shift for every channel."""

    start: float = 1.0

    def weights(self, x, y):
        return {"factor": ("out",), "shift": ("out",)}

    def forward(self, x, factor, shift):
        return x * (self.start * factor)[:, None, None] + shift[:, None, None]


@tn.operation("user_mixing")
class Mixing(tn.Operation):
    """A 1x1 convolution written as a matrix, with a module of torch."""

    channels: tn.Value

    def out_shape(self, x):
        return x.with_channels(self.channels)

    def weights(self, x, y):
        return {"weight": ("out", "in", 1, 1), "bias": ("out",)}

    def macs(self, x, y):
        return self.params(x, y) * y.positions

    def build(self, x, y):
        return nn.Conv2d(x.numbers()[0], y.numbers()[0], 1)

    def run(self, module, x, at):
        weight, bias = (
            at.weight(getattr(module, n), d) for n, d in self.weights(None, None).items()
        )
        return nn.functional.conv2d(x, weight, bias)


@tn.operation("user_block")
def user_block(channels):
    """A block of operations, of ours and of theirs."""
    return tn.residual(
        tn.seq(Mixing(channels), ScaleShift(), tn.relu()), skip=tn.shortcut(channels)
    )


SHAPE = (3, 6, 6)


def space() -> tn.Node:
    width = tn.width(values=(2, 5))
    return tn.seq(
        tn.choice(a=Mixing(width), b=tn.op("user_block", width), name="slot"),
        ScaleShift(start=2.0),
        tn.op("user_mixing", 3, name="back"),
    )


def test_the_class_itself_can_stand_in_a_space():
    graph = tn.lower(space(), SHAPE)
    tn.lint(graph)

    assert str(graph.operation("user_scale_shift")) == "user_scale_shift(start=2.0)"
    assert {p: d.kind for p, d in graph.decisions.items()} == {
        "slot/width": "width",
        "slot": "operation",
    }
    assert graph.vertex("user_scale_shift")["declared"].startswith("test_user_operation.py:")


def test_settings_make_it_equal():
    assert ScaleShift() == ScaleShift(1.0)
    assert ScaleShift() != ScaleShift(2.0)
    assert {ScaleShift(): 1}[ScaleShift(1.0)] == 1


@pytest.mark.parametrize("seed", range(4))
def test_slicing_building_and_counting_follow(seed):
    """The supernet cut to a genotype gives what the plain network gives, and costs are exact."""
    graph = tn.lower(space(), SHAPE)
    net = tn.compile_supernet(graph).eval()
    for weight in net.parameters():
        nn.init.uniform_(weight)
    genotype = tn.sample(graph, seed)
    plain = tn.build(graph, genotype, inherit=net).eval()
    x = torch.rand(2, *SHAPE)

    torch.testing.assert_close(net(x, at=genotype), plain(x))
    assert tn.cost.params(graph, genotype) == sum(p.numel() for p in plain.parameters())


def test_weights_start_as_their_names_say():
    """Shifts and biases at zero, factors at one, the rest as in torch."""
    network = tn.build(tn.lower(ScaleShift(), SHAPE))
    weights = dict(network.named_parameters())
    (factor,) = (w for n, w in weights.items() if n.endswith("factor"))
    (shift,) = (w for n, w in weights.items() if n.endswith("shift"))

    assert torch.equal(torch.ones(3), factor)
    assert torch.equal(torch.zeros(3), shift)


def test_a_start_can_be_given():
    @tn.operation("user_half")
    class Half(ScaleShift):
        def init(self, name, weight):
            nn.init.constant_(weight, 0.5)

    network = tn.build(tn.lower(Half(), SHAPE))

    assert all(bool((weight == 0.5).all()) for weight in network.parameters())


def test_matrices_start_as_convolutions_do_in_torch():
    @tn.operation("user_matrix")
    class Matrix(tn.Operation):
        def weights(self, x, y):
            return {"matrix": (64, "in")}

        def forward(self, x, matrix):
            return x

    (matrix,) = tn.build(tn.lower(Matrix(), (16,))).parameters()
    bound = 1 / 16**0.5

    assert bound * 0.9 < float(matrix.detach().abs().max()) <= bound


def test_what_computes_nothing_says_so():
    @tn.operation("user_empty")
    class Empty(tn.Operation):
        pass

    network = tn.build(tn.lower(Empty(), SHAPE))
    with pytest.raises(SpaceError, match="an operation gives forward or build; got Empty"):
        network(torch.rand(1, *SHAPE))


def test_a_dimension_that_is_none_is_refused():
    @tn.operation("user_odd")
    class Odd(tn.Operation):
        def weights(self, x, y):
            return {"weight": ("outs",)}

    with pytest.raises(SpaceError, match=r'is an int, "in" or "out"; got \'outs\''):
        tn.cost.params(tn.lower(Odd(), SHAPE))


def test_settings_may_be_private():
    """attrs calls the argument of `_channels` ``channels``."""

    @tn.operation("user_private")
    class Private(tn.Operation):
        _channels: tn.Value = 3

        def out_shape(self, x):
            return x.with_channels(self._channels)

    graph = tn.lower(Private(tn.width(values=(2, 4))), SHAPE)

    assert tn.specialise(graph, {"user_private/width": 4}).out_shape.channels == 4


def test_an_operation_has_a_name_of_its_own():
    """Without one, different operations would look alike in texts, digests and checkpoints."""

    class Nameless(tn.Operation):
        def forward(self, x):
            return x

    class Heir(ScaleShift):
        pass

    for thing in (Nameless(), Heir()):
        with pytest.raises(tn.TrinasError, match=r"name of its own; got (Nameless|Heir); at test_"):
            tn.seq(thing)
    with pytest.raises(tn.TrinasError, match="operation names are unique"):
        tn.operation("conv")(Nameless)
    assert "registered" not in vars(Nameless)
    with pytest.raises(tn.TrinasError, match="a function that returns nodes; got 5"):
        tn.operation("user_number")(5)
