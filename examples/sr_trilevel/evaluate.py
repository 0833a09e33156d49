"""Score a finished network on sets of pictures, with the protocol beside every score.

    python -m examples.sr_trilevel.evaluate runs/demo --sets Set5 Set14 --json scores.json

NETWORK is the folder of a run, a file of published weights, or the word bicubic (bicubic-x2, ...).
Protocols: default (Y of 8-bit RGB pictures), luma (Y alone is shrunk, as in older tables), rgb.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from examples.sr_trilevel.command import device_named, ending, parser_of
from examples.sr_trilevel.imaging import existing_folder, read_folder
from examples.sr_trilevel.metrics import Protocol, Score, score
from examples.sr_trilevel.networks import SIDE, SRNetwork, load_network
from trinas import errors

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "default": Protocol(),
        "luma": Protocol(source="luma"),
        "rgb": Protocol(channels="RGB"),
    }
)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 0, or 2 after an error, or 130 when interrupted."""
    options = _parser().parse_args(arguments)
    return ending(lambda: _go(options))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("evaluate", __doc__)
    add = parser.add_argument
    add("network", metavar="NETWORK", help="see below")
    add("--sets", metavar="DIR", nargs="+", required=True, help="folders of HR pictures")
    add("--protocol", choices=list(PROTOCOLS), default="default", help="see below")
    add("--json", metavar="FILE", help="write all scores, of every picture, to a file")
    add("--skip-bad", action="store_true", help="leave out pictures that cannot be read")
    add("--device", metavar="NAME", help="torch device (default: cuda if there is one)")
    return parser


def _go(options: argparse.Namespace) -> None:
    network = load_network(options.network)
    print(network, flush=True)
    network.to(device_named(options.device))
    folders = [existing_folder(path) for path in options.sets]  # before any is scored
    if options.json is not None:
        existing_folder(Path(options.json).expanduser().parent)
    results = {}
    for folder in folders:
        result = score_folder(
            network, folder, PROTOCOLS[options.protocol], skip_bad=options.skip_bad
        )
        print(listing(folder.resolve().name, result), flush=True)
        results[folder] = result
    if options.json is not None:
        text = json.dumps(report(network, results), indent=2, allow_nan=False)
        Path(options.json).expanduser().write_text(text + "\n", "utf-8")


def score_folder(
    network: SRNetwork, folder: str | Path, protocol: Protocol, *, skip_bad: bool = False
) -> Score:
    """The score of a network on all pictures of a folder.

    Args:
        network: on the device to compute on.
        folder: of HR pictures.
        protocol: how to score.
        skip_bad: leave out pictures that cannot be read, with a line on stderr for each.

    Raises:
        DataError: the folder holds no pictures, or one that cannot be read.
        ShapeError: a picture is too small for the network or for SSIM.
    """
    images, skipped = read_folder(folder, on_bad="skip" if skip_bad else "raise", keep_gray=True)
    for name, reason in skipped:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    try:
        return score(network, images, scale=network.scale, protocol=protocol)
    except errors.ShapeError as error:
        at = folder if error.at is None else Path(folder) / error.at
        raise errors.ShapeError(error.rule, got=error.got, at=at, fix=error.fix) from None


def listing(name: str, result: Score) -> str:
    """A set's score, and below it every picture's.

    >>> from examples.sr_trilevel.metrics import ImageScore
    >>> one = ImageScore(name="baby.png", psnr=31.779, ssim=0.857)
    >>> flat = Score(psnr=31.779, ssim=0.857, per_image=(one,), protocol=Protocol(), scale=4)
    >>> print(listing("Set1", flat))
    Set1: 31.779 dB, SSIM 0.8570 over 1 image (x4, PSNR on Y ..., uint8 output)
      baby.png  31.779 dB  0.8570
    """
    widest = max(len(one.name) for one in result.per_image)
    lines = [
        f"  {one.name:<{widest}}  {one.psnr:.3f} dB  {one.ssim:.4f}" for one in result.per_image
    ]
    return "\n".join([f"{name}: {result}", *lines])


def report(network: SRNetwork, results: Mapping[Path, Score]) -> dict[str, Any]:
    """All scores as plain values; an infinite PSNR, of equal pictures, is None."""
    sets = [
        {
            "name": folder.resolve().name,
            **_figures(result.psnr, result.ssim),
            "protocol": result.protocol.line(result.scale),
            "images": [
                {"name": one.name, **_figures(one.psnr, one.ssim)} for one in result.per_image
            ],
        }
        for folder, result in results.items()
    ]
    return {
        "network": network.name,
        "scale": network.scale,
        "params": network.params,
        f"macs_{SIDE}x{SIDE}": network.macs,
        "sets": sets,
    }


def _figures(psnr: float, ssim: float) -> dict[str, float | None]:
    return {"psnr": psnr if math.isfinite(psnr) else None, "ssim": ssim}


if __name__ == "__main__":
    sys.exit(main())
