"""Search, derive and train a super-resolution network: Trilevel NAS, backbone B.

    python examples/sr_trilevel/run.py demo --out runs/demo

Without ``--data`` it uses the photographs that scikit-image carries. The output folder gets

    config.json          all settings
    checkpoint.pt        all state: after Ctrl-C, SIGTERM or a crash the same command with
                         --resume ends with the very networks of a run without a break (on the CPU)
    genotype.json        the network that was found; arch.svg draws it
    results.json, .md    PSNR, SSIM, parameters and multiply-adds of every stage
    comparison.png       a picture that was never trained on: LR, bicubic, result, HR
    targets/             with --teacher: what it makes of the training pictures, for this run and
                         any other that is given the folder as --teacher-cache
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the repository root is two folders up
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import trinas as tn
from examples.sr_trilevel.checkpoint import (
    CHECKPOINT,
    check_identity,
    load_checkpoint,
    restoring,
    save_checkpoint,
    set_aside,
    stopping_between_steps,
    terminating_as_interrupt,
)
from examples.sr_trilevel.data import (
    Patches,
    Split,
    builtin_images,
    folder_images,
    halves,
    make_pairs,
    split,
)
from examples.sr_trilevel.imaging import bicubic
from examples.sr_trilevel.metrics import Protocol, Score, score
from examples.sr_trilevel.outputs import FILES, Progress, Row, write_pictures, write_table
from examples.sr_trilevel.recipes import RECIPES, Recipe
from examples.sr_trilevel.space import largest_macs
from examples.sr_trilevel.targets import VERSION, Targets, load_targets

FAILED = 2
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 0, or 2 after an error, or 130 when interrupted."""
    options = _parser().parse_args(arguments)
    out = Path(options.out or f"runs/{options.recipe}")
    try:
        with terminating_as_interrupt():
            Run(
                RECIPES[options.recipe](),
                out=out,
                data=options.data,
                teacher=options.teacher,
                teacher_cache=options.teacher_cache,
                seed=options.seed,
                device=options.device,
                skip_bad=options.skip_bad,
                resume=options.resume,
            ).go()
    except (tn.TrinasError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        saved = (out / CHECKPOINT).exists()
        how = "the same command with --resume goes on" if saved else "nothing was done yet"
        print(f"\ninterrupted: {how}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").split("\n\n", 2)
    recipes = [f"  {n:<8} {(make.__doc__ or n).splitlines()[0]}" for n, make in RECIPES.items()]
    parser = argparse.ArgumentParser(
        description=about[0],
        epilog="\n".join(["recipes:", *recipes, "", about[-1]]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipe", choices=list(RECIPES), help="all settings of the run; see below")
    add("--data", metavar="DIR", help="folder of pictures (DIV2K's layout is known)")
    add("--skip-bad", action="store_true", help="leave out pictures that are broken or too small")
    add("--teacher", metavar="FILE", help="weights whose output is the target (BSRN or RLFN)")
    add("--teacher-cache", metavar="DIR", help="folder of its output (default: OUT/targets)")
    add("--out", metavar="DIR", help="output folder (default: runs/RECIPE)")
    add("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    add("--seed", type=int, default=0, help="of weights, search and patches (default: 0)")
    add("--device", metavar="NAME", help="torch device (default: cuda if there is one)")
    return parser


class Run:
    """One run: its data, its stages, its folder.

    Args:
        recipe: all settings.
        out: output folder, made if needed.
        data: folder of pictures; the built-in photographs where None.
        teacher: file of a teacher's weights; the HR pictures are the targets where None.
        teacher_cache: folder that keeps the teacher's targets; `targets` in `out` where None.
        seed: of everything drawn.
        device: torch device.
        skip_bad: leave out pictures that cannot be used instead of refusing the folder.
        resume: go on from the checkpoint in `out`.

    Raises:
        ConfigError: there is a `teacher_cache` without a teacher.
        DataError: the pictures, the device or the `teacher_cache` cannot be used.
        CheckpointError: the teacher, or the checkpoint to resume from, cannot be used.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        out: Path,
        data: str | None = None,
        teacher: str | None = None,
        teacher_cache: str | None = None,
        seed: int = 0,
        device: str | None = None,
        skip_bad: bool = False,
        resume: bool = False,
    ) -> None:
        state = load_checkpoint(out) if resume else None
        self.recipe = recipe
        self.out = out
        self.seed = seed
        self.device = _device(device)
        self.options = {
            "data": data,
            "teacher": teacher,
            "teacher_cache": teacher_cache,
            "seed": seed,
            "device": str(self.device),
        }
        self.targets = targets = self._targets(teacher, teacher_cache)
        self.identity = {
            "recipe": recipe.to_json(),
            "seed": seed,
            "device": self.device.type,
            "teacher": targets and f"{targets.digest[:12]}, targets v{VERSION}",
        }
        if state is not None:  # before thousands of pictures are read
            check_identity(state["identity"], self.identity, out)
        self.split = self._pictures(data, skip_bad)
        self.identity["pictures"] = f"{self.split} [{_digest(self.split.listing().encode())}]"
        self.graph, self.net = self._supernet()
        self._prefetched = ExitStack()
        self.search = tn.Search(
            self.net, F.l1_loss, *self._search_batches(), config=self._search_config()
        )
        self.training: tn.Training | None = None
        if state is not None:
            self._restore(state)
        self._resumed = state is not None
        self._progress = Progress(self._psnr_of_crop, recipe.radius())

    # -- what goes in ----------------------------------------------------------------------

    def _targets(self, path: str | None, cache: str | None) -> Targets | None:
        """The teacher's pictures; None where the HR pictures are the targets."""
        if path is None:
            if cache is not None:
                raise tn.errors.ConfigError(
                    "--teacher-cache keeps what a teacher makes", got="no --teacher", at=cache
                )
            return None
        folder = self.out / "targets" if cache is None else Path(cache).expanduser()
        scale = self.recipe.scale
        return load_targets(path, scale=scale, device=self.device, folder=folder)

    def _pictures(self, folder: str | None, skip_bad: bool) -> Split:
        recipe = self.recipe
        if folder is None:
            return split(builtin_images())
        side = max(recipe.patch, recipe.train_patch) * recipe.scale
        parts = folder_images(folder, min_size=side, on_bad="skip" if skip_bad else "raise")
        # Scores come last: whether they can be taken is asked now. Doubtful are only small ones.
        small = {n: image for n, image in parts.held_out.items() if min(image.shape[-2:]) < 64}
        if small:
            self._score(None, small)
        return parts

    def _supernet(self) -> tuple[tn.Graph, tn.Supernet]:
        recipe = self.recipe
        torch.manual_seed(self.seed)
        graph = tn.lower(recipe.space(), (3, recipe.patch, recipe.patch))
        generator = torch.Generator().manual_seed(self.seed)
        net = tn.compile_supernet(
            graph, recipe.relaxations(), init_std=recipe.arch_std, generator=generator
        )
        return graph, net.to(self.device)

    def _search_config(self) -> tn.SearchConfig:
        config = attrs.evolve(self.recipe.search, seed=self.seed)
        if config.cost is None or self.recipe.mac_share is None:
            return config
        target = self.recipe.mac_share * largest_macs(self.graph)
        return attrs.evolve(config, cost=attrs.evolve(config.cost, target=target))

    def _search_batches(self) -> tuple[tn.Batches, tn.Batches]:
        """For the weights and for the architecture: halves that share no pixel."""
        recipe = self.recipe
        parts = halves(self.split.train, min_size=recipe.patch * recipe.scale)
        first, second = (
            self._batches(part, stream, recipe.patch, recipe.batch)
            for part, stream in zip(parts, ("weights", "architecture"))
        )
        return first, second

    def _batches(
        self, pictures: Mapping[str, Tensor], stream: str, patch: int, batch: int
    ) -> tn.Batches:
        """Batches on the device, cut (and, by a teacher, enlarged) while a step runs."""
        recipe = self.recipe
        patches = Patches(
            pairs=make_pairs(pictures, scale=recipe.scale),
            patch=patch,
            batch=batch,
            seed=self.seed,
            stream=stream,
            flips=recipe.flips,
            targets=self.targets,
        )
        return self._prefetched.enter_context(tn.prefetch(patches, device=self.device))

    # -- the stages ------------------------------------------------------------------------

    def go(self) -> list[Row]:
        """Do what is left of the run and write its results."""
        self.out.mkdir(parents=True, exist_ok=True)
        if not self._resumed:
            self._begin()
        self._greet()
        with self._prefetched:
            self._keep(self.search)
            genotype = tn.derive(self.net)
            genotype.save(self.out / "genotype.json")
            if self.training is None:
                self.training = self._new_training(genotype)
            self._keep(self.training)
        return self._finish(genotype, self.training.model)

    def _begin(self) -> None:
        aside = set_aside(self.out, FILES)
        if aside is not None:
            print(f"what an earlier run left is in {aside}")
        settings = {**self.options, "recipe": json.loads(self.recipe.to_json())}
        (self.out / "config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")

    def _greet(self) -> None:
        print(f"{self.recipe.name}: {self.split}")
        for name, reason in self.split.skipped[:3]:
            print(f"skipped {name}: {reason}")
        networks = tn.cardinality(self.recipe.space())
        many = f"{networks:,}" if networks < 1e6 else f"{networks:.2g}"
        print(f"space: {len(self.graph.decisions)} decisions, {many} networks")
        if self.targets is not None:
            print(f"targets: {self.targets.teacher.name}, kept in {self.targets.folder}")
        print(f"on {self.device}, into {self.out}", flush=True)

    def _new_training(self, genotype: tn.Genotype) -> tn.Training:
        recipe = self.recipe
        batches = self._batches(self.split.train, "train", recipe.train_patch, recipe.train_batch)
        return tn.Training(self._derived(genotype), F.l1_loss, batches, recipe.train)

    def _derived(self, genotype: tn.Genotype) -> tn.Network:
        """The network that was found, as the search leaves it."""
        return tn.build(self.graph, genotype, inherit=self.net).to(self.device)

    def _keep(self, stage: tn.Search | tn.Training) -> None:
        """Run a stage to its end; save at its end, now and then, and when asked to stop.

        After any other failure the last good checkpoint stays: what a failed step leaves is not
        a state to go on from.
        """
        with stopping_between_steps() as stop:
            for _ in self._progress.follow(stage):
                if stop.asked:
                    break
                if self._progress.time_to_save():
                    self._save()
            self._progress.close()
            self._save()
        if stop.asked:
            raise KeyboardInterrupt

    def _finish(self, genotype: tn.Genotype, model: nn.Module) -> list[Row]:
        derived = self._derived(genotype)
        # Costs are quoted for this input in the field, whatever the patches.
        cost = tn.cost.count(tn.lower(self.recipe.space(), (3, 256, 256)), dict(genotype))
        supernet_weights = sum(p.numel() for p in self.net.weight_parameters())
        stages = (
            ("bicubic", None, 0, None),
            ("supernet", self.net, supernet_weights, None),
            ("derived", derived, cost.params, cost.macs),
            ("trained", model, cost.params, cost.macs),
        )
        rows = [
            Row.of(name, self._score(network, self.split.held_out), params, macs)
            for name, network, params, macs in stages
        ]
        write_table(self.out, rows, self._facts(genotype, derived))
        write_pictures(self.out, genotype, model, self.split.held_out, rows, self.recipe.scale)
        print((self.out / "results.md").read_text(encoding="utf-8"))
        print(f"all in {self.out}")
        return rows

    def _score(self, network: nn.Module | None, images: Mapping[str, Tensor]) -> Score:
        """The score of a network; of bicubic enlargement where None."""
        model = bicubic(self.recipe.scale) if network is None else network
        return score(model, images, scale=self.recipe.scale, protocol=Protocol())

    def _facts(self, genotype: tn.Genotype, derived: tn.Network) -> dict[str, Any]:
        """What else a reader of the results wants to know."""
        lr, _ = self.search.train(0)
        self.net.eval()
        derived.eval()
        with torch.no_grad():
            difference = float((self.net(lr) - derived(lr)).abs().max())
        weights = self.net.weights()
        one_hot = {
            name: all(
                sum(w != 0 for w in weights[d.path]) == 1
                for d in self.graph.decisions.values()
                if d.kind == kind
            )
            for name, kind in (("alpha", "operation"), ("beta", "path"))
        }
        return {
            "recipe": self.recipe.name,
            "seed": self.seed,
            "held_out": sorted(self.split.held_out),
            "path": genotype["trunk"],
            "one_hot": one_hot,
            "supernet_minus_derived": difference,
            "search_steps": self.recipe.search.total_steps,
            "train_steps": self.recipe.train.steps,
            "teacher": None if self.targets is None else self.targets.teacher.name,
            "torch": torch.__version__.split("+")[0],
            "device": str(self.device),
        }

    def _psnr_of_crop(self) -> float:
        """PSNR on the middle of a held-out picture, of whatever is being trained."""
        name = min(self.split.held_out)
        image = self.split.held_out[name]
        side = 32 * self.recipe.scale
        top, left = (max(0, (n - side) // 2) for n in image.shape[-2:])
        crop = {name: image[:, top : top + side, left : left + side]}
        return self._score(self.net if self.training is None else self.training.model, crop).psnr

    # -- checkpoints -----------------------------------------------------------------------

    def _save(self) -> None:
        training = None if self.training is None else self.training.state_dict()
        state = {"search": self.search.state_dict(), "training": training}
        save_checkpoint(self.out, {"identity": self.identity, **state})

    def _restore(self, state: Mapping[str, Any]) -> None:
        check_identity(state["identity"], self.identity, self.out)
        with restoring(self.out):
            self.search.load_state_dict(state["search"])
            if state["training"] is not None:
                self.training = self._new_training(tn.derive(self.net))
                self.training.load_state_dict(state["training"])


def _device(name: str | None) -> torch.device:
    """The device of this name, if it can be used.

    Raises:
        DataError: it cannot.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise tn.errors.DataError(
            "a device is one that torch can use here",
            got=name,
            at=str(error).splitlines()[0],
            fix="Leave --device out for the best there is.",
        ) from None
    return device


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
