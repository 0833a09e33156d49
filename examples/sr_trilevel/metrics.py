"""How a super-resolution network is scored: PSNR and SSIM under a protocol that is printed.

The same weights score up to 1.3 dB apart under protocols in common use, and worse under wrong
ones, so a score here is never a bare number: it carries the protocol that made it.

Shapes: `C H W` for one picture, `N C H W` for what a network takes and gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.sr_trilevel.imaging import (
    crop_to_multiple,
    imresize,
    shrink,
    to_luma,
    to_uint8,
    to_unit,
)
from trinas import errors

Upscaler = Callable[[Tensor], Tensor]

_PEAK = 255.0
_SOURCES = {"rgb": "uint8 RGB", "luma": "uint8 Y alone and kept float"}
_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5


@attrs.frozen(kw_only=True)
class Protocol:
    """Everything that decides a score besides the network and the pictures.

    The default is the protocol of EDSR, IMDN, AGD and TrilevelNAS. `str(protocol)` says all of it
    in one line, to stand beside every score.

    Args:
        channels: `"Y"` scores PSNR on BT.601 luma, `"RGB"` on the three channels together. SSIM is
            on luma in both.
        shave: pixels left out at each side; None for as many as the scale.
        source: what is shrunk. `"rgb"`: the colour picture, gray replicated. `"luma"`: Y alone,
            rounded to 8 bits, as older tables did (a picture of one channel is its own Y, in full
            range); the LR picture is not rounded then, and the network is shown it as gray.
        round_output: round the network's output to 8 bits before scoring, as a saved file would be.
        round_luma: round Y to 8 bits as well.
        self_ensemble: average the outputs for the eight flips and turns of the input.

    Raises:
        DataError: an option outside these.

    >>> print(Protocol())
    PSNR on Y (BT.601 studio range, float), shave = scale, LR by MATLAB bicubic of uint8 RGB, ...
    >>> print(Protocol(shave=8, round_output=False).line(4))
    x4, PSNR on Y (...), shave 8, LR by MATLAB bicubic of uint8 RGB, float output
    """

    channels: str = "Y"
    shave: int | None = None
    source: str = "rgb"
    round_output: bool = True
    round_luma: bool = False
    self_ensemble: bool = False

    def __attrs_post_init__(self) -> None:
        """Refuse what no score can be made with."""
        for field, value, known in (
            ("channels", self.channels, ("Y", "RGB")),
            ("source", self.source, tuple(_SOURCES)),
        ):
            if value not in known:
                raise errors.DataError(
                    f"a protocol's {field} is one of {', '.join(known)}", got=value, at="Protocol"
                )
        if self.shave is not None and self.shave < 0:
            raise errors.DataError("shave counts pixels, from 0", got=self.shave, at="Protocol")
        if self.source == "luma" and self.channels == "RGB":
            raise errors.DataError(
                "a picture made from luma alone has no RGB to score",
                got=self.channels,
                at="Protocol",
                fix='Choose channels="Y", or source="rgb".',
            )

    def border(self, scale: int) -> int:
        """Pixels left out at each side of a picture enlarged by `scale`."""
        return scale if self.shave is None else self.shave

    def line(self, scale: int) -> str:
        """The protocol in one line, with the scale and the border it was used with."""
        return f"x{scale}, {self._text(f'shave {self.border(scale)}')}"

    def __str__(self) -> str:
        """The protocol in one line."""
        return self._text("shave = scale" if self.shave is None else f"shave {self.shave}")

    def _text(self, shave: str) -> str:
        bits = "uint8" if self.round_luma or self.source == "luma" else "float"
        luma = f"Y (BT.601 studio range, {bits})"
        parts = [
            f"PSNR on {luma if self.channels == 'Y' else 'RGB'}",
            shave,
            f"LR by MATLAB bicubic of {_SOURCES[self.source]}",
            "uint8 output" if self.round_output else "float output",
        ]
        return ", ".join(parts + ["self-ensemble x8"] * self.self_ensemble)


@attrs.frozen(kw_only=True)
class ImageScore:
    """The score of one picture: its name, PSNR in dB and SSIM."""

    name: str
    psnr: float
    ssim: float


@attrs.frozen(kw_only=True)
class Score:
    """Means over pictures, the pictures' own scores, and the protocol they were made under.

    >>> one = ImageScore(name="baby", psnr=31.779, ssim=0.857)
    >>> print(Score(psnr=31.779, ssim=0.857, per_image=(one,), protocol=Protocol(), scale=4))
    31.779 dB, SSIM 0.8570 over 1 image (x4, PSNR on Y ..., uint8 output)
    """

    psnr: float
    ssim: float
    per_image: tuple[ImageScore, ...]
    protocol: Protocol
    scale: int

    def __str__(self) -> str:
        """The means and the protocol in one line."""
        count = len(self.per_image)
        pictures = f"{count} image{'s' * (count != 1)}"
        line = self.protocol.line(self.scale)
        return f"{self.psnr:.3f} dB, SSIM {self.ssim:.4f} over {pictures} ({line})"


def psnr(first: Tensor, second: Tensor, *, shave: int = 0, channels: str = "Y") -> float:
    """Peak signal-to-noise ratio, `10 log10(255^2 / mean squared difference)`, in dB.

    The peak is 255 for luma too, although studio range ends at 235: so does all of the field.

    Args:
        first: `[3, H, W]`, `uint8` or in [0, 1]; not rounded here.
        second: a picture of the same shape.
        shave: pixels left out at each side.
        channels: `"Y"` for luma, `"RGB"` for the three channels together.

    Returns:
        dB; infinity for equal pictures, NaN if a pixel is NaN.

    Raises:
        ShapeError: the shapes differ, or nothing is left inside the border.
        DataError: `channels` is neither of the two.

    >>> black = torch.zeros(3, 8, 8)
    >>> round(psnr(black, black + 0.1, channels="RGB"), 4)
    20.0
    """
    if channels not in ("Y", "RGB"):
        raise errors.DataError("PSNR is on Y or RGB", got=channels, at="psnr")
    planes = [to_luma(p) if channels == "Y" else _scaled(p) for p in (first, second)]
    return _psnr(*_inside(planes[0], planes[1], shave, least=1))


def ssim(first: Tensor, second: Tensor, *, shave: int = 0) -> float:
    """Structural similarity on luma (Wang et al. 2004, equation 13).

    Gaussian window of 11 x 11 with sigma 1.5, only where it fits wholly inside; constants
    `(0.01 * 255)^2` and `(0.03 * 255)^2`; variances with weights that sum to one (no correction
    for the sample size).

    Args:
        first: `[3, H, W]`, `uint8` or in [0, 1]; not rounded here.
        second: a picture of the same shape.
        shave: pixels left out at each side.

    Returns:
        The mean over positions, in [-1, 1]; 1 for equal pictures.

    Raises:
        ShapeError: the shapes differ, or less than 11 x 11 is left inside the border.

    >>> picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> ssim(picture, picture)
    1.0
    """
    return _ssim(*_inside(to_luma(first), to_luma(second), shave, least=_SSIM_WINDOW))


def score(
    model: Upscaler,
    images: Mapping[str, Tensor],
    *,
    scale: int = 4,
    protocol: Protocol | None = None,
) -> Score:
    """Enlarge the shrunk pictures and compare with the originals.

    Args:
        model: takes LR `[1, 3, h, w]`, float32 in [0, 1], and gives `[1, 3, h * scale, w * scale]`;
            any callable. A module is run in eval mode, on its own device, without gradients, and
            left in the mode it was in.
        images: name to HR picture `[3, H, W]`, or `[1, H, W]` for one stored as gray; `uint8`, or
            in [0, 1] and then rounded to 8 bits.
        scale: an integer, at least 1.
        protocol: the default `Protocol()` when None.

    Returns:
        The means over the pictures, each picture counted once whatever its size.

    Raises:
        DataError: there are no pictures, or the output cannot be scored (it holds NaN).
        ShapeError: the network's output has the wrong shape, or a picture is too small.

    >>> flat = {"gray": torch.full((3, 32, 32), 128, dtype=torch.uint8)}
    >>> score(lambda lr: imresize(lr, 4), flat).psnr
    inf
    """
    if not images:
        raise errors.DataError("a score needs at least one picture", got=0, at="score")
    protocol = Protocol() if protocol is None else protocol
    rows = []
    with evaluating(model):
        for name, image in images.items():
            rows.append(_score_one(model, name, image, scale, protocol))
    return Score(
        psnr=sum(row.psnr for row in rows) / len(rows),
        ssim=sum(row.ssim for row in rows) / len(rows),
        per_image=tuple(rows),
        protocol=protocol,
        scale=scale,
    )


def _score_one(
    model: Upscaler, name: str, image: Tensor, scale: int, protocol: Protocol
) -> ImageScore:
    try:
        lr, hr = _pair(image, scale, protocol)
    except errors.ShapeError as error:
        raise errors.ShapeError(error.rule, got=error.got, at=name, fix=error.fix) from None
    output = _run(model, lr, protocol)
    if output.shape != (1, *hr.shape):
        raise errors.ShapeError(
            f"a network for x{scale} must enlarge both sides {scale} times",
            got=f"{tuple(lr.shape)} -> {tuple(output.shape)}",
            at=name,
        )
    output = output[0].cpu()
    if output.isnan().any():
        raise errors.DataError(
            "a network's output cannot be scored: it holds NaN", got=name, at="score"
        )
    output = to_uint8(output) if protocol.round_output else output.clamp(0, 1)
    planes = [_plane(picture, protocol) for picture in (hr, output)]
    lumas = planes if protocol.channels == "Y" else [to_luma(p) for p in (hr, output)]
    border = protocol.border(scale)
    try:
        return ImageScore(
            name=name,
            psnr=_psnr(*_inside(planes[0], planes[1], border, least=1)),
            ssim=_ssim(*_inside(lumas[0], lumas[1], border, least=_SSIM_WINDOW)),
        )
    except errors.ShapeError as error:
        raise errors.ShapeError(error.rule, got=error.got, at=name, fix=error.fix) from None


def _plane(picture: Tensor, protocol: Protocol) -> Tensor:
    """What PSNR compares, on the scale of 0 to 255."""
    if protocol.channels == "RGB":
        return _scaled(picture)
    if protocol.source == "luma":
        # The picture is Y already, shown three times; a network may tint it, hence the mean.
        plane = _scaled(picture).mean(0, keepdim=True)
    else:
        plane = to_luma(picture)
    return plane.round() if protocol.round_luma else plane


def _pair(image: Tensor, scale: int, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """What the network is shown, `[1, 3, h, w]` in [0, 1], and what it is held against, `uint8`."""
    if protocol.source == "rgb":
        lr, hr = shrink(image, scale)
        return to_unit(lr.expand(3, -1, -1))[None], hr.expand(3, -1, -1)
    hr = crop_to_multiple(to_uint8(image), scale)
    if len(hr) == 3:
        hr = to_luma(hr).add(0.5).floor().to(torch.uint8)
    # The tables made this way kept the LR picture in floating point.
    lr = imresize(hr.double() / _PEAK, 1 / scale).float()
    return lr.expand(3, -1, -1)[None], hr.expand(3, -1, -1)


def _run(model: Upscaler, lr: Tensor, protocol: Protocol) -> Tensor:
    tensors = model.parameters() if isinstance(model, nn.Module) else iter(())
    lr = lr.to(next((tensor.device for tensor in tensors), lr.device))
    with torch.no_grad():
        if not protocol.self_ensemble:
            return model(lr)
        outputs = []
        for turn in range(4):
            for flip in ((), (-1,)):
                turned = torch.rot90(lr, turn, (-2, -1)).flip(flip)
                outputs.append(torch.rot90(model(turned).flip(flip), -turn, (-2, -1)))
        return torch.stack(outputs).mean(0)


@contextmanager
def evaluating(model: Upscaler) -> Iterator[None]:
    """Eval mode for the time of a block; what is not a module passes through."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    # Each module's own flag is kept: a frozen part may be in eval mode inside a training whole.
    flags = [module.training for module in modules]
    try:
        if isinstance(model, nn.Module):
            model.eval()
        yield
    finally:
        for module, flag in zip(modules, flags):
            module.training = flag


def _scaled(picture: Tensor) -> Tensor:
    """float64 on the scale of 0 to 255."""
    return picture.double() * (1 if picture.dtype == torch.uint8 else _PEAK)


def _inside(first: Tensor, second: Tensor, shave: int, *, least: int) -> tuple[Tensor, Tensor]:
    if first.shape != second.shape:
        raise errors.ShapeError(
            "two pictures can only be compared at the same size",
            got=f"{tuple(first.shape)} and {tuple(second.shape)}",
        )
    height, width = first.shape[-2:]
    if min(height, width) - 2 * shave < least:
        raise errors.ShapeError(
            f"a score needs at least {least} x {least} pixels inside a border of {shave}",
            got=f"{width} x {height}",
            fix="Leave it out, or score with a smaller border.",
        )
    rows, columns = slice(shave, height - shave), slice(shave, width - shave)
    return first[..., rows, columns], second[..., rows, columns]


def _psnr(first: Tensor, second: Tensor) -> float:
    error = (first - second).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(_PEAK**2 / error)


def _ssim(first: Tensor, second: Tensor) -> float:
    offset = torch.arange(_SSIM_WINDOW, dtype=torch.float64) - _SSIM_WINDOW // 2
    window = torch.exp(-offset.square() / (2 * _SSIM_SIGMA**2))
    window = (window / window.sum()).to(first.device)

    def blur(plane: Tensor) -> Tensor:
        plane = plane.reshape(1, 1, *plane.shape[-2:])
        plane = F.conv2d(plane, window.view(1, 1, 1, -1))
        return F.conv2d(plane, window.view(1, 1, -1, 1))

    mean_1, mean_2 = blur(first), blur(second)
    var_1 = blur(first * first) - mean_1 * mean_1
    var_2 = blur(second * second) - mean_2 * mean_2
    covariance = blur(first * second) - mean_1 * mean_2
    c1, c2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
    likeness = (2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)
    return (
        (likeness / ((mean_1 * mean_1 + mean_2 * mean_2 + c1) * (var_1 + var_2 + c2))).mean().item()
    )
