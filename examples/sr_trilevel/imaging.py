"""Pictures as tensors: reading files, cropping, luma, and MATLAB's bicubic resizing.

Shapes: `... C H W`, any number of leading dimensions. A picture is either `uint8` (0 to 255) or
floating point (0 to 1); the dtype says which.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from trinas import errors

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

T = TypeVar("T")

# Modes that hold more than 8 bits a channel: Pillow's conversion to RGB clips them to 255
# instead of scaling, which turns most of the picture white without a word.
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})

# BT.601 in studio range: black is 16 and white 235 on the scale of 0 to 255.
_LUMA_WEIGHTS = (65.481, 128.553, 24.966)
_LUMA_OFFSET = 16.0


def imresize(image: Tensor, scale: float) -> Tensor:
    """Resize as MATLAB's `imresize(image, scale)` does with its defaults.

    Bicubic kernel with a = -0.5; when shrinking, the kernel is stretched by `1 / scale` so that it
    also removes what the smaller grid cannot hold (antialiasing); borders are mirrored, edge pixel
    included. Published super-resolution scores rest on this routine: an LR image made by another
    one shifts PSNR by anything up to several dB.

    The arithmetic is float64 and sums taps in a fixed order, so results do not depend on the
    machine, the batch or the number of threads. For `uint8` every pass (rows, then columns) is
    rounded half up and saturated, as MATLAB does; floating-point input is neither rounded nor
    clamped, so values may leave [0, 1] by about 0.1 at sharp edges.

    Args:
        image: `[..., H, W]`, `uint8` or floating point.
        scale: output size over input size, for both sides; above 0.

    Returns:
        `[..., ceil(H * scale), ceil(W * scale)]`, in the dtype and on the device of `image`.
        Differentiable for floating-point input.

    Raises:
        ShapeError: `image` has fewer than two dimensions or an empty side.
        DataError: `scale` is not a positive number, or the dtype is neither `uint8` nor floating.

    >>> ramp = torch.arange(16, dtype=torch.uint8).mul(16).expand(3, 8, 16)
    >>> imresize(ramp, 1 / 4)[0, 0]
    tensor([ 22,  88, 152, 218], dtype=torch.uint8)
    """
    if not (math.isfinite(scale) and scale > 0):
        raise errors.DataError("a scale must be a positive number", got=scale, at="imresize")
    if image.dim() < 2 or 0 in image.shape[-2:]:
        raise errors.ShapeError("a picture needs the shape [..., H, W]", got=tuple(image.shape))
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise errors.DataError(
            "a picture is uint8 or floating point", got=image.dtype, at="imresize"
        )
    work = image if image.dtype == torch.uint8 else image.double()
    rows = _resize_rows(work, scale)
    # The second pass works along rows too, of the picture turned on its side: whole rows are read
    # many times faster than single pixels.
    return _resize_rows(rows.mT.contiguous(), scale).mT.contiguous().to(image.dtype)


def _resize_rows(image: Tensor, scale: float) -> Tensor:
    n_in = image.shape[-2]
    # The tolerance keeps a product such as 0.07 * 100 from being a hair above a whole number.
    n_out = max(1, math.ceil(n_in * scale - 1e-9))
    index, weight = (part.to(image.device) for part in _taps(n_in, n_out, float(scale)))
    result = image.index_select(-2, index[0]).double() * weight[0, :, None]
    for tap in range(1, len(index)):
        result.addcmul_(image.index_select(-2, index[tap]).double(), weight[tap, :, None])
    if image.dtype == torch.uint8:
        return result.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
    return result


@lru_cache(maxsize=256)
def _taps(n_in: int, n_out: int, scale: float) -> tuple[Tensor, Tensor]:
    """The resizing matrix `[n_out, n_in]` by its band: source index and weight, `[taps, n_out]`.

    Each row has at most `4 / min(scale, 1)` entries that are not zero, so the band is hundreds of
    times smaller than the matrix for a photograph.
    """
    shrink = min(scale, 1.0)
    width = 4.0 / shrink
    taps = math.ceil(width) + 2
    centre = (torch.arange(n_out, dtype=torch.float64) + 0.5) / scale - 0.5
    first = (centre - width / 2).floor().long() + 1
    index = first + torch.arange(-1, taps - 1)[:, None]
    weight = _cubic((centre - index) * shrink)
    weight = weight / weight.sum(0)
    used = weight.ne(0).any(1)
    # Mirroring with the edge pixel repeated has period 2 n: 0 .. n-1, n-1 .. 0.
    index = index.remainder(2 * n_in)
    index = torch.minimum(index, 2 * n_in - 1 - index)
    return index[used], weight[used]


def _cubic(x: Tensor) -> Tensor:
    """The cubic convolution kernel with a = -0.5 (Keys 1981, equation 15)."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))


def to_unit(image: Tensor) -> Tensor:
    """`uint8` pictures as float32 in [0, 1]; floating-point ones as they are.

    >>> to_unit(torch.tensor([[0, 255]], dtype=torch.uint8))
    tensor([[0., 1.]])
    """
    return image.to(torch.float32).div_(255) if image.dtype == torch.uint8 else image


def to_uint8(image: Tensor) -> Tensor:
    """Pictures in [0, 1] as `uint8`, clamped and rounded half up; `uint8` ones as they are.

    Not-a-number has no place in 8 bits and would come out as any value, so it is refused.

    Raises:
        DataError: a pixel is NaN.

    >>> to_uint8(torch.tensor([[-0.2, 0.5, 1.3]]))
    tensor([[  0, 128, 255]], dtype=torch.uint8)
    """
    if image.dtype == torch.uint8:
        return image
    if image.isnan().any():
        raise errors.DataError("a picture cannot hold NaN", got=tuple(image.shape), at="to_uint8")
    return image.double().mul(255).add(0.5).floor().clamp(0, 255).to(torch.uint8)


def to_luma(image: Tensor) -> Tensor:
    """Luma of ITU-R BT.601 in studio range, not rounded: what the field scores PSNR on.

    `Y = 16 + 65.481 R + 128.553 G + 24.966 B` for R, G and B in [0, 1].

    Args:
        image: `[..., 3, H, W]`, `uint8` or in [0, 1].

    Returns:
        float64 `[..., 1, H, W]`, 16 for black and 235 for white.

    Raises:
        ShapeError: there are not three channels.

    >>> to_luma(torch.ones(3, 1, 1)).item()
    235.0
    """
    if image.dim() < 3 or image.shape[-3] != 3:
        raise errors.ShapeError("luma needs the shape [..., 3, H, W]", got=tuple(image.shape))
    rgb = image.double() / 255 if image.dtype == torch.uint8 else image.double()
    red, green, blue = (rgb[..., i : i + 1, :, :] * w for i, w in enumerate(_LUMA_WEIGHTS))
    return red + green + blue + _LUMA_OFFSET


def crop_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Cut rows at the bottom and columns at the right until both sides divide by `multiple`.

    Raises:
        DataError: a side is shorter than `multiple`, so that nothing would be left.

    >>> crop_to_multiple(torch.zeros(3, 10, 13), 4).shape
    torch.Size([3, 8, 12])
    """
    height, width = image.shape[-2:]
    if min(height, width) < multiple:
        raise errors.DataError(
            f"a picture needs at least {multiple} x {multiple} pixels",
            got=f"{width} x {height}",
            at="crop_to_multiple",
        )
    return image[..., : height - height % multiple, : width - width % multiple]


def shrink(image: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """An HR picture cut to a multiple of `scale`, and its LR partner: `(lr, hr)`, both `uint8`.

    Raises:
        DataError: the picture is smaller than `scale` on a side.

    >>> lr, hr = shrink(torch.zeros(3, 30, 41, dtype=torch.uint8), 4)
    >>> tuple(lr.shape), tuple(hr.shape)
    ((3, 7, 10), (3, 28, 40))
    """
    hr = crop_to_multiple(to_uint8(image), scale)
    return imresize(hr, 1 / scale), hr


def bicubic(scale: int) -> Callable[[Tensor], Tensor]:
    """The baseline every table starts with: enlarging the LR picture by MATLAB's bicubic.

    The function it gives takes and returns `[..., h, w]` in [0, 1], as a network does. An LR
    picture whose values all lie on the 8-bit grid is resized as the 8-bit picture it is, so that
    the result is that of `imresize` on the file, rounding included; any other stays in floating
    point.

    >>> bicubic(4)(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 3, 32, 32])
    """

    def enlarge(lr: Tensor) -> Tensor:
        stored = to_uint8(lr)
        if torch.equal(to_unit(stored), lr):
            return to_unit(imresize(stored, scale))
        return imresize(lr, scale)

    return enlarge


def load_image(path: str | Path, *, keep_gray: bool = False) -> Tensor:
    """Read a picture of any format Pillow knows as `uint8` RGB `[3, H, W]`.

    Gray is replicated to three channels, a palette is looked up, an alpha channel is dropped, and
    a photograph is turned as its EXIF tag says.

    Args:
        path: the file.
        keep_gray: give a picture stored as gray as `[1, H, W]`.

    Raises:
        DataError: the file is missing, truncated or not a picture, or holds more than 8 bits a
            channel; the message names the file and the reason.
    """
    with opened(path) as file:
        # Pillow opens 16-bit RGB as RGB, and tells by the name of the decoder alone.
        deep = any(";16" in str(settings) for *_, settings in getattr(file, "tile", ()))
        if file.mode in _DEEP_MODES or deep:
            raise errors.DataError(
                "a picture must have 8 bits a channel",
                got=f"Pillow mode {file.mode}",
                at=path,
                fix="Convert it to 8 bits first: how to map the range is your choice.",
            )
        gray = keep_gray and file.mode in ("1", "L", "LA")
        upright = ImageOps.exif_transpose(file)
        tensor = torch.from_numpy(np.array(upright.convert("L" if gray else "RGB")))
    return tensor[None] if tensor.dim() == 2 else tensor.permute(2, 0, 1).contiguous()


def upright_size(file: Image.Image) -> tuple[int, int]:
    """Width and height of an open picture as `load_image` turns it, from its header."""
    width, height = file.size
    turned = file.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def read_folder(
    path: str | Path,
    *,
    min_size: int = 1,
    on_bad: Literal["raise", "skip"] = "raise",
    keep_gray: bool = False,
) -> tuple[dict[str, Tensor], tuple[tuple[str, str], ...]]:
    """Every picture in a folder and the folders below it, hidden ones excepted.

    Args:
        path: the folder.
        min_size: shortest side allowed, in pixels. Checked on all files' headers before any is
            decoded, so that one small picture among thousands is found at once.
        on_bad: `"raise"` refuses the folder at its first bad file; `"skip"` leaves bad files out
            and lists them. Bad is what cannot be read or is too small.
        keep_gray: as in `load_image`.

    Returns:
        The pictures by their path below the folder, in sorted order; `(file, reason)` for each
        file skipped.

    Raises:
        DataError: the folder is missing or without (usable) pictures, or a file is bad and
            `on_bad` is `"raise"`.
    """
    if on_bad not in ("raise", "skip"):
        raise errors.DataError('on_bad is "raise" or "skip"', got=on_bad, at="read_folder")
    root = existing_folder(path)
    files = picture_files(root)
    if not files:
        raise errors.DataError(
            "a folder holds no pictures", got=f"none of {', '.join(EXTENSIONS)}", at=root
        )
    bad: dict[str, str] | None = {} if on_bad == "skip" else None
    sound = _sieve(files, lambda file: _sound(file, min_size), bad)
    images = _sieve(sound, lambda file: load_image(file, keep_gray=keep_gray), bad)
    skipped = tuple((bad or {}).items())
    if not images:
        raise errors.DataError(
            "a folder holds no usable picture",
            got=f"{len(skipped)} bad files; the first: {skipped[0][1]}",
            at=root,
        )
    return images, skipped


def existing_folder(path: str | Path) -> Path:
    """`path` as a `Path`, `~` expanded.

    Raises:
        DataError: it is not a folder.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        kind = "a file" if root.exists() else "no such folder"
        raise errors.DataError("pictures are read from a folder", got=kind, at=root)
    return root


def too_small(name: str | Path, width: int, height: int, least: int) -> errors.DataError:
    """The error for a picture of which no patch can be cut."""
    return errors.DataError(
        "a picture is smaller than a patch",
        got=f"{width} x {height} pixels",
        at=name,
        fix=f"At least {least} x {least} are required: remove it, skip it, or use smaller patches.",
    )


def picture_files(root: Path) -> dict[str, Path]:
    """The pictures in a folder and below it, by their path below it, sorted; not decoded.

    A picture is told by its extension, of `EXTENSIONS`. Hidden files and folders
    (`._0001.png`) are no pictures.

    Raises:
        DataError: a name is no text, and could be written into no result.
    """
    files = {}
    for file in root.rglob("*"):
        below = file.relative_to(root)
        hidden = any(part.startswith(".") for part in below.parts)
        if file.suffix.lower() in EXTENSIONS and not hidden and file.is_file():
            name = below.as_posix()
            if not name.isprintable():
                raise errors.DataError(
                    "a picture has a name that can be written down",
                    got=ascii(name),
                    at=ascii(str(root)),
                    fix="Rename the file.",
                )
            files[name] = file
    return dict(sorted(files.items()))


def _sieve(
    files: Mapping[str, Path], read: Callable[[Path], T], bad: dict[str, str] | None
) -> dict[str, T]:
    """What `read` makes of each file; failures raise, or are noted in `bad` when that is given."""
    results = {}
    for name, file in files.items():
        try:
            results[name] = read(file)
        except errors.DataError as error:
            if bad is None:
                raise
            bad[name] = str(error)
    return results


def _sound(file: Path, least: int) -> Path:
    with opened(file) as picture:
        width, height = picture.size
    if min(width, height) < least:
        raise too_small(file, width, height, least)
    return file


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """An open picture file, of which only the header is read until the block asks for more.

    Raises:
        DataError: opening it or working with it in the block fails; the message names the file.
    """
    try:
        with Image.open(path) as file:
            yield file
    except errors.DataError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise errors.DataError(
            "a picture cannot be read",
            got=f"{type(error).__name__}: {error}",
            at=path,
            fix="Replace or remove the file.",
        ) from error
    except Image.DecompressionBombError as error:
        raise errors.DataError(
            "a picture is too large to be read", got=str(error), at=path
        ) from error
