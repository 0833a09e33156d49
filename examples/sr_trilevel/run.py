"""Search, derive and train a super-resolution network: Trilevel NAS.

    python examples/sr_trilevel/run.py demo --out runs/demo

Without ``--data`` it uses the photographs that scikit-image carries. The output folder gets

    config.json          all settings
    checkpoint.pt        all state: after Ctrl-C, SIGTERM or a crash the same command with
                         --resume ends with the very networks of a run without a break (on the CPU)
    genotype.json        the network that was found; arch.svg draws it
    results.json, .md    PSNR, SSIM, parameters and multiply-adds of every stage
    timing.json          steps and seconds of every phase
    comparison.png       a picture that was never trained on: LR, bicubic, result, HR
    targets/             with --teacher: what it makes of the training pictures, for this run and
                         any other that is given the folder as --teacher-cache
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the repository root is two folders up
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.sr_trilevel.checkpoint import CHECKPOINT
from examples.sr_trilevel.command import ending, minutes
from examples.sr_trilevel.recipes import RECIPES, VARIANTS, find_recipe
from examples.sr_trilevel.runner import Run


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 0, or 2 after an error, or 130 when interrupted."""
    options = _parser().parse_args(arguments)
    out = Path(options.out or f"runs/{options.recipe.replace('/', '-')}")

    def interrupted() -> str:
        saved = (out / CHECKPOINT).exists()
        how = "the same command with --resume goes on" if saved else "nothing was done yet"
        return f"interrupted: {how}"

    return ending(lambda: _run(options, out).go(), interrupted)


def _run(options: argparse.Namespace, out: Path) -> Run:
    return Run(
        find_recipe(options.recipe),
        out=out,
        data=options.data,
        sets=options.sets,
        teacher=options.teacher,
        teacher_cache=options.teacher_cache,
        features=options.features,
        seed=options.seed,
        device=options.device,
        compile=options.compile,
        skip_bad=options.skip_bad,
        minutes=options.minutes,
        resume=options.resume,
    )


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").split("\n\n", 2)
    recipes = [f"  {n:<12} {(make.__doc__ or n).splitlines()[0]}" for n, make in RECIPES.items()]
    variants = [f"  {name:<12} {what}" for name, (what, _) in VARIANTS.items()]
    named = ["recipes:", *recipes, "", "each also as RECIPE/VARIANT:", *variants]
    parser = argparse.ArgumentParser(
        description=about[0],
        epilog="\n".join([*named, "", about[-1]]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="all settings of the run; see below")
    add("--data", metavar="DIR", help="folder of pictures (DIV2K's layout is known), or a pack")
    add("--skip-bad", action="store_true", help="leave out pictures that are broken or too small")
    add("--sets", metavar="DIR", nargs="+", default=(), help="folders of pictures to score on")
    add("--teacher", metavar="FILE", help="weights whose output is the target; see the docs")
    add("--teacher-cache", metavar="DIR", help="folder of its output (default: OUT/targets)")
    add("--features", metavar="FILE", help="weights that the perceptual loss looks through")
    add("--out", metavar="DIR", help="output folder (default: runs/RECIPE)")
    add("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    add("--minutes", type=minutes, default=math.inf, help="stop after so long; --resume goes on")
    add("--seed", type=int, default=0, help="of weights, search and patches (default: 0)")
    add("--device", metavar="NAME", help="torch device (default: cuda if there is one)")
    add("--compile", action="store_true", help="by torch.compile: for long runs on a GPU")
    return parser


if __name__ == "__main__":
    sys.exit(main())
