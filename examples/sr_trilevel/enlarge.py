"""Enlarge pictures with a finished network.

    python -m examples.sr_trilevel.enlarge runs/demo photo.jpg --out enlarged

NETWORK is the folder of a run, a file of published weights, or the word bicubic (bicubic-x2, ...).
Every picture becomes a PNG of the same stem below the output folder, 8 bits, RGB.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import torch
from PIL import Image
from torch import Tensor

from examples.sr_trilevel.command import device_named, ending, parser_of
from examples.sr_trilevel.folders import pictures_below, sizes_of
from examples.sr_trilevel.imaging import load_image
from examples.sr_trilevel.networks import SRNetwork, load_network
from examples.sr_trilevel.tiles import enlarged, reach
from examples.sr_trilevel.writing import writing
from trinas import errors

TILE = 512
OVERLAP = 32


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 0, or 2 after an error, or 130 when interrupted."""
    options = _parser().parse_args(arguments)
    return ending(lambda: _go(options))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("enlarge", __doc__)
    add = parser.add_argument
    add("network", metavar="NETWORK", help="see below")
    add("input", metavar="INPUT", help="a picture, or a folder of pictures with all below it")
    add("--out", metavar="DIR", required=True, help="output folder, made if needed")
    add(
        "--tile",
        type=int,
        default=TILE,
        metavar="N",
        help=f"longest side enlarged at once, in pixels (default: {TILE}; 0: whole pictures)",
    )
    add(
        "--overlap",
        type=int,
        metavar="N",
        help="of neighbouring tiles, in pixels (default: as much as the network needs)",
    )
    add(
        "--tile-anyway",
        action="store_true",
        help="use tiles although they change the result",
    )
    add("--skip-bad", action="store_true", help="leave out pictures that cannot be used")
    add("--device", metavar="NAME", help="torch device (default: cuda if there is one)")
    return parser


def _go(options: argparse.Namespace) -> None:
    device = device_named(options.device)
    network = load_network(options.network).to(device)
    on_bad = "skip" if options.skip_bad else "raise"
    files = pictures_below(options.input)
    targets = targets_of(files, Path(options.out).expanduser())
    sizes, skipped = sizes_of(files, on_bad=on_bad)
    tiling = Tiling.of(
        network, sizes, tile=options.tile, overlap=options.overlap, anyway=options.tile_anyway
    )
    print(f"{network}; on {device}", flush=True)
    for name in sizes:
        try:
            result = enlarge(network, files[name], tiling)
        except errors.TrinasError as error:
            if on_bad == "raise":
                raise
            skipped[name] = str(error)
            continue
        _save(result, targets[name])
        width, height = sizes[name]
        print(f"{name}: {width} x {height}, {tiling.told(width, height)} -> {targets[name]}")
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    if len(skipped) == len(files):
        raise errors.DataError("there is no usable picture", got=len(skipped), at=options.input)


def targets_of(files: Mapping[str, Path], out: Path) -> dict[str, Path]:
    """Where each result goes: below `out`, under the picture's name but as PNG.

    Raises:
        DataError: two pictures would become one file, or a picture would be overwritten.

    >>> targets_of({"city/1.jpg": Path("in/city/1.jpg")}, Path("out"))["city/1.jpg"].as_posix()
    'out/city/1.png'
    """
    targets: dict[str, Path] = {}
    taken: dict[Path, str] = {}
    sources = {file.resolve() for file in files.values()}
    for name in files:
        target = (out / name).with_suffix(".png")
        if target in taken:
            raise errors.DataError(
                "every picture becomes a file of its own",
                got=f"{taken[target]} and {name}, both to be {target.name}",
                fix="Rename one of them.",
            )
        if target.resolve() in sources:
            raise errors.DataError(
                "no picture is overwritten", got=name, at=target, fix="Give another --out."
            )
        targets[name], taken[target] = target, name
    return targets


@attrs.frozen
class Tiling:
    """How pictures are cut up.

    Attributes:
        tile: longest side enlarged at once; None for whole pictures.
        overlap: of neighbouring tiles.
    """

    tile: int | None
    overlap: int = 0

    @classmethod
    def of(
        cls,
        network: SRNetwork,
        sizes: Mapping[str, tuple[int, int]],
        *,
        tile: int = TILE,
        overlap: int | None = None,
        anyway: bool = False,
    ) -> Tiling:
        """The way to cut that does not change the result.

        How far the network looks is only measured where a picture is longer than a tile.

        Args:
            network: to enlarge with.
            sizes: width and height of every picture.
            tile: longest side enlarged at once, in pixels of LR; 0 for whole pictures.
            overlap: of neighbouring tiles; twice the network's reach where None.
            anyway: cut even where that changes the result.

        Raises:
            ConfigError: tiles would change the result and `anyway` is false; or tiles are not
                longer than they overlap.
        """
        if tile < 0 or (overlap is not None and overlap < 0):
            raise errors.ConfigError(
                "tiles count pixels, from 0", got=f"tile {tile}, overlap {overlap}"
            )
        longest = max((max(size) for size in sizes.values()), default=0)
        if tile == 0 or longest <= tile:
            return cls(None)
        if not (anyway and overlap is not None):
            overlap = _safe_overlap(network, overlap, anyway=anyway)
        if overlap >= tile:
            raise errors.ConfigError(
                "tiles are longer than they overlap",
                got=f"tile {tile}, overlap {overlap}",
                fix="Use longer tiles, or whole pictures (--tile 0).",
            )
        return cls(tile, overlap)

    def told(self, width: int, height: int) -> str:
        """How a picture of this size is cut, in words.

        >>> Tiling(512, 32).told(600, 300), Tiling(512, 32).told(300, 300)
        ('in tiles', 'whole')
        """
        return "whole" if self.tile is None or max(width, height) <= self.tile else "in tiles"


def _safe_overlap(network: SRNetwork, wanted: int | None, *, anyway: bool) -> int:
    """The overlap that is wanted, or else needed.

    Raises:
        ConfigError: none, or not the one wanted, leaves the result as it is.
    """
    far = reach(network, network.scale)
    if far is None:
        if anyway:
            return OVERLAP if wanted is None else wanted
        raise errors.ConfigError(
            "tiles give the result of the whole picture",
            got=f"{network.name}, whose output depends on the whole picture or on where it begins",
            fix="Enlarge whole pictures (--tile 0, more memory), longer tiles (--tile), "
            "or let the result differ (--tile-anyway).",
        )
    needed = 2 * far
    if wanted is not None and wanted < needed:
        raise errors.ConfigError(
            f"tiles of {network.name} overlap by {needed} pixels or more",
            got=wanted,
            fix="Leave --overlap out, or let the result differ (--tile-anyway).",
        )
    return needed if wanted is None else wanted


def enlarge(network: SRNetwork, file: Path, tiling: Tiling) -> Tensor:
    """A picture file, enlarged: `uint8 [3, h * scale, w * scale]`.

    Raises:
        DataError: the file cannot be read, the picture is too small for the network, or it does
            not fit in memory; the message names the file.
    """
    lr = load_image(file)
    try:
        return enlarged(network, lr, scale=network.scale, tile=tiling.tile, overlap=tiling.overlap)
    except errors.TrinasError as error:
        raise errors.DataError(error.rule, got=error.got, at=file, fix=error.fix) from None
    except torch.OutOfMemoryError:
        raise errors.DataError(
            "a picture is enlarged in the memory there is",
            got=f"{lr.shape[-1]} x {lr.shape[-2]} pixels",
            at=file,
            fix="Use smaller tiles (--tile).",
        ) from None


def _save(picture: Tensor, path: Path) -> None:
    """Write a PNG; what lies there stays until the new one is whole."""
    with writing(path) as aside:
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(aside, format="PNG")


if __name__ == "__main__":
    sys.exit(main())
