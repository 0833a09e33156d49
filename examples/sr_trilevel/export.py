"""Export a finished network to ONNX, for any height and width, and check the file.

    python -m examples.sr_trilevel.export runs/demo --out demo.onnx

NETWORK is the folder of a run or a file of published weights. The file takes `lr`,
`[batch, 3, h, w]` in 0 to 1, and gives `sr`, `[batch, 3, h * scale, w * scale]`, not clamped.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from examples.sr_trilevel.command import ending, parser_of
from examples.sr_trilevel.networks import Bicubic, SRNetwork, load_network
from examples.sr_trilevel.writing import writing
from trinas import errors

TOLERANCE = 1e-4
"""Largest difference that is let pass, white being 1: a fortieth of an 8-bit level. Sums in
another order make 6e-7 in a plain network, and 3e-5 in BSRN, whose contrast adds over pictures."""

SIZES = ((2, 48, 40), (1, 37, 90))
"""Batch, height and width of the inputs that the file is checked with; traced is another."""

_TRACED = (2, 32, 36)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 0, or 2 after an error, or 130 when interrupted."""
    options = _parser().parse_args(arguments)
    return ending(lambda: _go(options))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("export", __doc__)
    add = parser.add_argument
    add("network", metavar="NETWORK", help="see below")
    add("--out", metavar="FILE", required=True, help="the file to write (net.onnx)")
    return parser


def _go(options: argparse.Namespace) -> None:
    network = load_network(options.network)
    path = Path(options.out).expanduser()
    differences = export(network, path)
    print(network)
    for (batch, height, width), difference in zip(SIZES, differences):
        print(f"{batch} x 3 x {height} x {width}: differs from torch by at most {difference:.1e}")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, within {TOLERANCE:.0e} of torch")


def export(
    network: SRNetwork, path: str | Path, *, tolerance: float = TOLERANCE
) -> tuple[float, ...]:
    """Write a network as ONNX, once the file has been found to compute the same.

    Batch, height and width are free; heights and widths below 16 may not be.

    Args:
        network: on the CPU.
        path: of the file; what lies there stays unless the new one is good.
        tolerance: largest absolute difference of outputs from torch's.

    Returns:
        The largest absolute difference for each of `SIZES`.

    Raises:
        ConfigError: a package that this takes is missing, or the network is bicubic.
        CheckpointError: the file's output differs by more than `tolerance`.
    """
    if isinstance(network.network, Bicubic):
        raise errors.ConfigError(
            "what is exported has weights", got="bicubic", fix="Every runtime has its own bicubic."
        )
    _require_packages()
    path = Path(path)
    with writing(path) as aside:
        _write(network, aside)
        differences = tuple(differences_of(network, aside, SIZES))
        if not max(differences) <= tolerance:  # neither is NaN let pass
            raise errors.CheckpointError(
                f"an exported network is within {tolerance:g} of the original",
                got=f"a difference of {max(differences):.1e}",
                at=path,
            )
    return differences


def differences_of(
    network: SRNetwork, path: Path, sizes: Sequence[tuple[int, int, int]]
) -> Iterator[float]:
    """How much the output of an ONNX file differs at most from a network's, for noise.

    Args:
        network: on the CPU.
        path: of the file.
        sizes: batch, height and width of each input.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in sizes:
        lr = torch.rand(batch, 3, height, width, generator=generator)
        with torch.no_grad():
            expected = network(lr)
        (output,) = session.run(["sr"], {"lr": lr.numpy()})
        yield float((torch.from_numpy(output) - expected).abs().max())


def _require_packages() -> None:
    try:
        import onnxruntime  # noqa: F401  # asked for before minutes of tracing, not after
        import onnxscript  # noqa: F401  # likewise
    except ModuleNotFoundError as error:
        raise errors.ConfigError(
            "export takes onnx, onnxscript and onnxruntime",
            got=f"no module named {error.name}",
            fix="pip install 'trinas[onnx]'.",
        ) from None


def _write(network: SRNetwork, path: Path) -> None:
    batch, height, width = _TRACED
    free = {
        0: torch.export.Dim("batch"),
        2: torch.export.Dim("height", min=16),
        3: torch.export.Dim("width", min=16),
    }
    with _quiet():
        torch.onnx.export(
            network,
            (torch.zeros(batch, 3, height, width),),
            path,
            dynamo=True,
            input_names=["lr"],
            output_names=["sr"],
            dynamic_shapes=(free,),
            external_data=False,
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about itself: packages it could use, its own deprecations."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
