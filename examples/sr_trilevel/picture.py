"""One picture that shows what a network does: LR, bicubic, result and HR beside each other.

Shapes: pictures `[3, H, W]`, `uint8` or in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from examples.sr_trilevel.imaging import to_luma, to_uint8
from trinas import errors

LABELS = ("LR", "bicubic", "result", "HR")

_PAPER = (255, 255, 255)
_INK = (28, 30, 34)
_FADED = (112, 116, 124)
_MARK = (255, 196, 0)
MARGIN = 16
GAP = 10
_CAPTION = 34
_FONT_SIZE = 17
# A detail is shown this many times enlarged, about.
_ZOOM = 4
_DETAIL_ASPECT = 3 / 4
# Height of the upper row over the width of a column, at most.
_TALLEST = 3 / 2


@attrs.frozen
class Box:
    """A rectangle in an HR picture, in pixels: `top`, `left`, `height`, `width`."""

    top: int
    left: int
    height: int
    width: int


def side_by_side(
    lr: Tensor,
    bicubic: Tensor,
    result: Tensor,
    hr: Tensor,
    *,
    labels: Sequence[str] = LABELS,
    psnrs: Sequence[float | None] = (None, None, None, None),
    crop: Box | None = None,
    width: int = 384,
) -> Image.Image:
    """Four versions of a picture in a row, and the same detail of each, enlarged, below.

    The upper row shows whole pictures, shrunk where they are wider than `width` or taller than 1.5
    times that. The lower row shows pixels as they are: those of LR come out as squares. The frame
    in the upper row is the detail.

    Args:
        lr: `[3, h, w]`, with `h` and `w` an integer number of times smaller than HR.
        bicubic: `[3, H, W]`.
        result: `[3, H, W]`.
        hr: `[3, H, W]`.
        labels: four captions.
        psnrs: dB to write beside each caption; None for nothing.
        crop: the detail, in HR pixels; by default the place with most detail (`busiest`).
        width: of one column in the result, at least 64.

    Returns:
        An RGB picture; save it as PNG.

    Raises:
        ShapeError: the sizes do not belong together.
        DataError: not four labels and PSNRs, a column too narrow, or a crop outside the picture.
    """
    scale = _check(lr, (bicubic, result, hr), labels, psnrs, width)
    box = _automatic(hr, width, scale) if crop is None else _inside(crop, hr)
    nearest = to_uint8(lr).repeat_interleave(scale, -2).repeat_interleave(scale, -1)
    pictures = [_pil(picture) for picture in (nearest, bicubic, result, hr)]
    wholes = [_framed(picture, box, width) for picture in pictures]
    details = [_detail(picture, box, width) for picture in pictures]

    top = MARGIN + _CAPTION
    below = top + wholes[0].height + GAP
    canvas = Image.new(
        "RGB",
        (2 * MARGIN + 4 * width + 3 * GAP, below + details[0].height + MARGIN),
        _PAPER,
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT_SIZE)
    for i, (whole, detail) in enumerate(zip(wholes, details)):
        x = MARGIN + i * (width + GAP)
        _caption(draw, font, (x, MARGIN), labels[i], psnrs[i])
        canvas.paste(whole, (x, top))
        canvas.paste(detail, (x, below))
    return canvas


def busiest(picture: Tensor, height: int, width: int) -> Box:
    """The rectangle with the most gradient energy: where resolution is easiest to see.

    Energy is the sum over the rectangle of squared differences of luma between neighbours. The
    search moves in steps of an eighth of the rectangle.

    Raises:
        DataError: the rectangle is larger than the picture.

    >>> import torch
    >>> picture = torch.zeros(3, 64, 64)
    >>> picture[:, 40:48:2, 8:16] = 1.0
    >>> box = busiest(picture, 16, 16)
    >>> box.top <= 40 < box.top + 16, box.left <= 8 < box.left + 16
    (True, True)
    """
    _inside(Box(0, 0, height, width), picture)
    luma = to_luma(picture)[None]
    down = luma.diff(dim=-2).square()[..., :-1]
    across = luma.diff(dim=-1).square()[..., :-1, :]
    step = max(1, min(height, width) // 8)
    # Differences end one pixel before the picture does.
    window = (max(1, height - 1), max(1, width - 1))
    energy = F.avg_pool2d(down + across, window, stride=step)[0, 0]
    row, column = divmod(int(energy.argmax()), energy.shape[1])
    return Box(row * step, column * step, height, width)


def _check(
    lr: Tensor,
    others: Sequence[Tensor],
    labels: Sequence[str],
    psnrs: Sequence[float | None],
    width: int,
) -> int:
    """The scale between LR and HR, once everything fits."""
    if len(labels) != 4 or len(psnrs) != 4:
        raise errors.DataError(
            "four pictures need four labels and four PSNRs",
            got=f"{len(labels)} and {len(psnrs)}",
            at="side_by_side",
        )
    if width < 64:
        raise errors.DataError("a column needs at least 64 pixels", got=width, at="side_by_side")
    scale = others[-1].shape[-1] // max(1, lr.shape[-1])
    height, width = (side * scale for side in lr.shape[-2:])
    if lr.shape[:-2] != (3,) or scale < 1 or any(o.shape != (3, height, width) for o in others):
        raise errors.ShapeError(
            "the pictures must be LR [3, h, w] and three of [3, h * scale, w * scale]",
            got=", ".join(str(tuple(picture.shape)) for picture in (lr, *others)),
        )
    return scale


def _inside(box: Box, picture: Tensor) -> Box:
    height, width = picture.shape[-2:]
    if (
        min(box.height, box.width) < 2
        or min(box.top, box.left) < 0
        or box.top + box.height > height
        or box.left + box.width > width
    ):
        raise errors.DataError(
            "a crop must lie inside the picture", got=box, at=f"{width} x {height}"
        )
    return box


def _automatic(hr: Tensor, width: int, scale: int) -> Box:
    """The busiest detail that fills a column, on LR's grid so that its pixels show whole."""
    columns = min(width // _ZOOM, hr.shape[-1])
    rows = min(round(columns * _DETAIL_ASPECT), hr.shape[-2])
    rows, columns = (max(scale, 2, n - n % scale) for n in (rows, columns))
    box = busiest(hr, rows, columns)
    return attrs.evolve(box, top=box.top - box.top % scale, left=box.left - box.left % scale)


def _pil(picture: Tensor) -> Image.Image:
    return Image.fromarray(to_uint8(picture).permute(1, 2, 0).cpu().numpy())


def _framed(picture: Image.Image, box: Box, width: int) -> Image.Image:
    """The whole picture, no wider than a column and not much taller, with the detail marked."""
    ratio = min(1.0, width / picture.width, _TALLEST * width / picture.height)
    size = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
    shown = picture.resize(size, Image.Resampling.LANCZOS) if ratio < 1 else picture.copy()
    corners = [
        ratio * value
        for value in (box.left, box.top, box.left + box.width - 1, box.top + box.height - 1)
    ]
    draw = ImageDraw.Draw(shown)
    # A dark line around the bright one, so that the frame shows on any ground.
    outer = [corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1]
    draw.rectangle(outer, outline=_INK)
    draw.rectangle(corners, outline=_MARK, width=2)
    return shown


def _detail(picture: Image.Image, box: Box, width: int) -> Image.Image:
    area = (box.left, box.top, box.left + box.width, box.top + box.height)
    size = (width, max(1, round(width * box.height / box.width)))
    return picture.resize(size, Image.Resampling.NEAREST, box=area)


def _caption(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    corner: tuple[int, int],
    label: str,
    psnr: float | None,
) -> None:
    """The label and, fainter, the score."""
    draw.text(corner, label, fill=_INK, font=font)
    if psnr is not None:
        x = corner[0] + draw.textlength(f"{label}  ", font=font)
        draw.text((x, corner[1]), f"{psnr:.2f} dB", fill=_FADED, font=font)
