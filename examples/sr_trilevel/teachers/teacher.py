"""A published network as a function of pictures in [0, 1]."""

from __future__ import annotations

from torch import Tensor, nn

from trinas import errors


class Teacher(nn.Module):
    """A published network with its input range taken care of, frozen and in eval mode.

    `forward` takes LR `[N, 3, h, w]` in [0, 1] and gives `[N, 3, h * scale, w * scale]`, about in
    [0, 1] and not clamped. Both sides must be at least `least_side` pixels.

    Args:
        name: the network's name, for tables.
        network: what the weights belong to.
        scale: how many times it enlarges.
        input_range: the value of white that `network` was trained with.
        least_side: of a picture. An attention branch that halves the picture without padding and
            then pools 7 x 7 needs 15.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        *,
        scale: int,
        input_range: float,
        least_side: int = 15,
    ) -> None:
        """Wrap `network` and freeze it."""
        super().__init__()
        self.name = name
        self.scale = scale
        self.input_range = input_range
        self.least_side = least_side
        self.network = network
        self.requires_grad_(False).eval()

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge `lr`.

        Raises:
            ShapeError: `lr` is not `[N, 3, h, w]` with both sides at least `least_side`.
        """
        if lr.dim() != 4 or lr.shape[1] != 3 or min(lr.shape[-2:]) < self.least_side:
            raise errors.ShapeError(
                f"{self.name} takes [N, 3, h, w] with both sides at least {self.least_side}",
                got=tuple(lr.shape),
            )
        return self.network(lr * self.input_range) / self.input_range
