"""The space of `examples.sr_trilevel.space.backbone_b` in plain torch.

Widths are searched as AGD does it: a superkernel holds the widest convolution, a narrower
one uses a slice of its weight, and the result is multiplied by the weight of the width that
was drawn, which is one, for its gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.plain.mixed import MixedOp


@attrs.frozen(eq=False)
class Width:
    """How many channels, and what their weight is; nothing where no width was drawn."""

    channels: int
    score: Tensor | None = None

    def scored(self, y: Tensor) -> Tensor:
        return y if self.score is None else y * self.score


class SuperConv(nn.Conv2d):
    """A convolution without bias that runs at any width up to its own."""

    def __init__(self, c_in: int, c: int, kernel: int) -> None:
        super().__init__(c_in, c, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor, to: Width) -> Tensor:  # type: ignore[override]  # a width, too
        weight = self.weight[: to.channels, : x.shape[1]]
        return to.scored(F.conv2d(x, weight, padding=self.padding))


class SuperDepthwise(nn.Conv2d):
    """The same, every channel by itself."""

    def __init__(self, c: int, kernel: int) -> None:
        super().__init__(c, c, kernel, padding=kernel // 2, groups=c, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # another name
        channels = x.shape[1]
        return F.conv2d(x, self.weight[:channels], padding=self.padding, groups=channels)


class Skip(SuperConv):
    """The input where that is as wide as the result, else a 1x1 convolution of it."""

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__(c_in, c, 1)

    def forward(self, x: Tensor, to: Width) -> Tensor:
        return to.scored(x) if x.shape[1] == to.channels else super().forward(x, to)


class ConvRelu(nn.Module):
    def __init__(self, c_in: int, c: int, kernel: int) -> None:
        super().__init__()
        self.conv = SuperConv(c_in, c, kernel)

    def forward(self, x: Tensor, by: Width, to: Width) -> Tensor:
        return F.relu(self.conv(x, to))


class ResBlock(nn.Module):
    def __init__(self, c_in: int, c: int) -> None:
        super().__init__()
        self.first = SuperConv(c_in, c, 3)
        self.second = SuperConv(c, c, 3)
        self.skip = Skip(c_in, c)

    def forward(self, x: Tensor, by: Width, to: Width) -> Tensor:
        y = self.second(F.relu(self.first(x, to)), to)
        return F.relu(y + self.skip(x, to))


class DwsBlock(nn.Module):
    def __init__(self, c_in: int, c: int, expand: int = 4) -> None:
        super().__init__()
        self.expand = SuperConv(c_in, expand * c_in, 1)
        self.depth = SuperDepthwise(expand * c_in, 3)
        self.project = SuperConv(expand * c_in, c, 1)
        self.skip = Skip(c_in, c)

    def forward(self, x: Tensor, by: Width, to: Width) -> Tensor:
        y = F.relu(self.expand(x, Width(4 * x.shape[1], by.score)))
        y = self.project(F.relu(self.depth(y)), to)
        return F.relu(y + self.skip(x, to))


class Slot(MixedOp):
    """One searched operation of a cell."""

    def __init__(self, c: int) -> None:
        super().__init__([ConvRelu(c, c, 1), ResBlock(c, c), ConvRelu(c, c, 3), DwsBlock(c, c)])

    def forward(self, x: Tensor, weights: Tensor, by: Width, to: Width) -> Tensor:  # type: ignore[override]  # widths, too
        return sum(w * op(x, by, to) for w, op in zip(weights, self.ops))  # type: ignore[return-value]  # K > 0


class Cell(nn.Module):
    """``x + 0.2 f(x)``."""

    def __init__(self, c: int, slots: int) -> None:
        super().__init__()
        self.full = Width(c)
        self.slots = nn.ModuleList(Slot(c) for _ in range(slots))

    def forward(self, x: Tensor, alpha: Sequence[Tensor], widths: Sequence[Width]) -> Tensor:
        y, by = x, self.full
        for slot, weights, to in zip(self.slots, alpha, [*widths, self.full]):
            y, by = slot(y, weights, by, to), to
        return x + 0.2 * y


class Node(nn.Module):
    """A node of the tree, with all that grows from it."""

    def __init__(self, kind: str, c: int, slots: int, cells: int, convs: int) -> None:
        super().__init__()
        self.kind = kind
        self.block = Cell(c, slots) if kind == "a" else nn.Conv2d(c, c, 3, padding=1)
        cells, convs = cells - (kind == "a"), convs - (kind == "b")
        kinds = "a" * (cells > 0) + "b" * (convs > 0)
        self.nodes = nn.ModuleList(Node(k, c, slots, cells, convs) for k in kinds)

    def forward(
        self, x: Tensor, alphas: Iterator[Sequence[Tensor]], widths: Iterator[Sequence[Width]]
    ) -> list[Tensor]:
        """The feature maps of this node and of all below it, parents first."""
        y = self.block(x, next(alphas), next(widths)) if self.kind == "a" else self.block(x)
        found = [y]
        for node in self.nodes:
            found += node(y, alphas, widths)
        return found


class Tree(nn.Module):
    """The supernet of TrilevelNAS-B.

    Args:
        features: channels of the trunk.
        scale: of the resolution.
        slots: operations of a cell.
        cells: at most so many on a path.
        convs: at most so many on a path.
        candidates: widths to choose from.
    """

    def __init__(
        self,
        features: int = 64,
        scale: int = 4,
        *,
        slots: int = 5,
        cells: int = 5,
        convs: int = 2,
        candidates: Sequence[int] = (24, 32, 40, 56, 64),
    ) -> None:
        super().__init__()
        self.features, self.scale, self.slots = features, scale, slots
        self.candidates = tuple(candidates)
        self.stem = nn.Conv2d(3, features, 3, padding=1)
        self.root = Node("a", features, slots, cells, convs)
        self.tail = nn.Conv2d(features, 3 * scale**2, 3, padding=1)
        nodes = [node.kind for node in self.modules() if isinstance(node, Node)]
        places = nodes.count("a")
        self.alpha = nn.Parameter(1e-3 * torch.randn(places * slots, 4))
        self.beta = nn.Parameter(1e-3 * torch.randn(len(nodes)))
        self.gamma = nn.Parameter(1e-3 * torch.randn(places * (slots - 1), len(self.candidates)))

    def forward(self, x: Tensor, drawn: Sequence[int] | None = None) -> Tensor:
        """(N, 3, H, W) in, (N, 3, scale H, scale W) out.

        Args:
            x: the images.
            drawn: a number of channels for each row of `gamma`; the widest where None.
        """
        alpha, beta = self.alpha.softmax(dim=-1), self.beta.softmax(dim=-1)
        if drawn is None:
            return self.mixed(x, alpha, beta, [Width(self.features)] * len(self.gamma))
        soft = self.gamma.softmax(dim=-1)
        picked = torch.tensor([[self.candidates.index(d)] for d in drawn], device=x.device)
        hard = torch.zeros_like(soft).scatter_(-1, picked, 1.0)
        scores = (hard - soft.detach() + soft).gather(-1, picked).squeeze(-1)
        return self.mixed(x, alpha, beta, [Width(d, s) for d, s in zip(drawn, scores)])

    def mixed(self, x: Tensor, alpha: Tensor, beta: Tensor, widths: Sequence[Width]) -> Tensor:
        """Run at these weights, (slots of all cells, 4) and (nodes,), and at these widths."""
        places = len(alpha) // self.slots
        searched = self.slots - 1
        maps = self.root(
            self.stem(x),
            iter(alpha.unflatten(0, (places, self.slots))),
            (widths[i * searched : (i + 1) * searched] for i in range(places)),
        )
        trunk = sum(weight * y for weight, y in zip(beta, maps))
        return 0.5 * torch.tanh(F.pixel_shuffle(self.tail(trunk), self.scale)) + 0.5  # type: ignore[arg-type]  # not 0
