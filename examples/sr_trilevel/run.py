"""Search, derive and train a super-resolution network: Trilevel NAS, backbone B.

    python examples/sr_trilevel/run.py demo --out runs/demo

Without ``--data`` it uses the photographs that scikit-image carries. The output folder
gets the configuration, the genotype (JSON and a drawing), a checkpoint, a table of results
(JSON and Markdown) and a picture that compares them.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the repository root is two folders up
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

import trinas as tn
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
from examples.sr_trilevel.outputs import Progress, Row, write_pictures, write_table
from examples.sr_trilevel.recipes import RECIPES, Recipe
from examples.sr_trilevel.teacher import load_teacher, teacher_targets

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        Run(
            RECIPES[options.recipe](),
            out=Path(options.out or f"runs/{options.recipe}"),
            data=options.data,
            teacher=options.teacher,
            seed=options.seed,
            device=options.device,
        ).go(resume=options.resume)
    except tn.TrinasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command with --resume goes on", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Search, derive and train a super-resolution network (Trilevel NAS)."
    )
    parser.add_argument("recipe", choices=sorted(RECIPES), help="size of the run")
    parser.add_argument("--data", metavar="DIR", help="folder of pictures (DIV2K's layout works)")
    parser.add_argument("--teacher", metavar="FILE", help="weights of a teacher network")
    parser.add_argument("--out", metavar="DIR", help="output folder (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint there")
    parser.add_argument("--seed", type=int, default=0, help="of weights, search and patches")
    parser.add_argument("--device", default=None, help="torch device (default: cuda if present)")
    return parser


class Run:
    """One run: its data, its stages, its folder.

    Args:
        recipe: all settings.
        out: output folder, made if needed.
        data: folder of pictures; the built-in photographs where None.
        teacher: file of a teacher's weights; the HR pictures are the targets where None.
        seed: of everything drawn.
        device: torch device.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        out: Path,
        data: str | None = None,
        teacher: str | None = None,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.recipe = recipe
        self.out = out
        self.seed = seed
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.split = self._pictures(data)
        self.teacher = load_teacher(teacher).to(self.device) if teacher else None
        torch.manual_seed(seed)
        space = recipe.space()
        self.graph = tn.lower(space, (3, recipe.patch, recipe.patch))
        # Counts are quoted for this input in the field, whatever the patches.
        self.graph_256 = tn.lower(space, (3, 256, 256))
        generator = torch.Generator().manual_seed(seed)
        self.net = tn.compile_supernet(
            self.graph, recipe.relaxations(), init_std=recipe.arch_std, generator=generator
        ).to(self.device)
        self.search = tn.Search(
            self.net,
            F.l1_loss,
            self._batches("weights"),
            self._batches("architecture"),
            self._search_config(),
        )
        self.training: tn.Training | None = None
        self.rows: list[Row] = []
        self._progress = Progress(self._psnr_of_crop)

    # -- what goes in ----------------------------------------------------------------------

    def _pictures(self, folder: str | None) -> Split:
        side = max(self.recipe.patch, self.recipe.train_patch) * self.recipe.scale
        # Small sets are cut in two, so a picture has to hold a patch in each half.
        if folder is None:
            return split(builtin_images())
        return folder_images(folder, min_size=2 * side)

    def _search_config(self) -> tn.SearchConfig:
        recipe = self.recipe
        config = attrs.evolve(recipe.search, seed=self.seed)
        if config.cost is None or recipe.mac_share is None:
            return config
        largest = max(
            tn.cost.macs(self.graph, self._widest_at(exit_))
            for exit_ in self.graph.decisions["trunk"].options
        )
        cost = attrs.evolve(config.cost, target=recipe.mac_share * largest)
        return attrs.evolve(config, cost=cost)

    def _widest_at(self, exit_: str | int) -> tn.Genotype:
        picked: dict[str, Any] = {
            path: "resblock" if d.kind == "operation" else d.options[-1]
            for path, d in self.graph.decisions.items()
        }
        return tn.Genotype.of(self.graph, {**picked, "trunk": exit_})

    def _batches(self, stream: str) -> Any:
        """Batches of one stream, as a function of the step."""
        recipe = self.recipe
        train = stream == "train"
        pictures = self.split.train
        if not train:
            pictures = halves(pictures)[0 if stream == "weights" else 1]
        patches = Patches(
            pairs=make_pairs(pictures, scale=recipe.scale),
            patch=recipe.train_patch if train else recipe.patch,
            batch=recipe.train_batch if train else recipe.batch,
            seed=self.seed,
            stream=stream,
            flips=recipe.flips,  # type: ignore[arg-type]  # checked by Patches
        )

        def batch(step: int) -> tuple[Tensor, Tensor]:
            lr, hr = patches(step)
            lr = lr.to(self.device)
            target = (
                hr.to(self.device) if self.teacher is None else teacher_targets(self.teacher, lr)
            )
            return lr, target

        return batch

    # -- the stages ------------------------------------------------------------------------

    def go(self, *, resume: bool = False) -> list[Row]:
        """Do what is left of the run and write its results."""
        self.out.mkdir(parents=True, exist_ok=True)
        if resume:
            self._load()
        else:
            (self.out / "config.json").write_text(self.recipe.to_json())
        print(f"{self.recipe.name}: {self.split}")
        print(
            f"space: {len(self.graph.decisions)} decisions, "
            f"{tn.cardinality(self.recipe.space()):.3g} networks"
        )
        self._keep(self.search)
        genotype, model = self._derived()
        if self.training is None:
            self.training = self._train(model)
        self._keep(self.training)
        return self._finish(genotype, self.training.model)

    def _derived(self) -> tuple[tn.Genotype, tn.Network]:
        genotype = tn.derive(self.net)
        genotype.save(self.out / "genotype.json")
        return genotype, tn.build(self.graph, genotype, inherit=self.net).to(self.device)

    def _train(self, model: tn.Network) -> tn.Training:
        return tn.Training(model, F.l1_loss, self._batches("train"), self.recipe.train)

    def _keep(self, stage: tn.Search | tn.Training) -> None:
        """Run a stage to its end; save now and then, and when interrupted."""
        try:
            with _terminate_as_interrupt():
                for _ in self._progress.follow(stage):
                    if self._progress.time_to_save():
                        self._save()
        finally:
            self._save()

    def _finish(self, genotype: tn.Genotype, model: torch.nn.Module) -> list[Row]:
        derived = tn.build(self.graph, genotype, inherit=self.net).to(self.device)
        cost = tn.cost.count(self.graph_256, genotype)
        supernet_weights = sum(p.numel() for p in self.net.weight_parameters())
        self.net.eval()
        stages = (
            ("bicubic", None, 0, 0),
            ("supernet", self.net, supernet_weights, None),
            ("derived", derived, cost.params, cost.macs),
            ("trained", model, cost.params, cost.macs),
        )
        self.rows = [
            Row.of(name, self._score(network), params, macs)
            for name, network, params, macs in stages
        ]
        write_table(self.out, self.rows, self._facts(genotype, derived))
        write_pictures(self.out, genotype, model, self.split.held_out, self.rows, self.recipe.scale)
        print((self.out / "results.md").read_text())
        print(f"all in {self.out}")
        return self.rows

    def _score(self, network: torch.nn.Module | None) -> Score:
        model = bicubic(self.recipe.scale) if network is None else network
        return score(model, self.split.held_out, scale=self.recipe.scale, protocol=Protocol())

    def _facts(self, genotype: tn.Genotype, derived: tn.Network) -> dict[str, Any]:
        """What else a reader of the results wants to know."""
        lr, _ = self._batches("train")(0)
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
            "teacher": None if self.teacher is None else self.teacher.name,
            "torch": torch.__version__.split("+")[0],
            "device": self.device,
        }

    def _psnr_of_crop(self) -> float:
        """PSNR on the middle of a held-out picture, of whatever is being trained."""
        network: torch.nn.Module = self.net if self.training is None else self.training.model
        name = sorted(self.split.held_out)[0]
        image = self.split.held_out[name]
        side = 32 * self.recipe.scale
        top, left = (max(0, (n - side) // 2) for n in image.shape[-2:])
        crop = {name: image[:, top : top + side, left : left + side]}
        was_training = network.training
        network.eval()
        value = score(network, crop, scale=self.recipe.scale, protocol=Protocol()).psnr
        network.train(was_training)
        return value

    # -- checkpoints -----------------------------------------------------------------------

    def _save(self) -> None:
        state = {
            "recipe": self.recipe.to_json(),
            "seed": self.seed,
            "search": self.search.state_dict(),
            "training": None if self.training is None else self.training.state_dict(),
        }
        # Written aside first: an interruption here must not cost the last good one.
        aside = self.out / "checkpoint.tmp"
        torch.save(state, aside)
        aside.replace(self.out / "checkpoint.pt")

    def _load(self) -> None:
        path = self.out / "checkpoint.pt"
        if not path.exists():
            raise tn.errors.CheckpointError(
                "--resume needs a checkpoint",
                got="none",
                at=path,
                fix="Start without --resume, or give the --out of the run to go on with.",
            )
        state = torch.load(path, map_location=self.device, weights_only=True)
        for what, mine in (("recipe", self.recipe.to_json()), ("seed", self.seed)):
            if state[what] != mine:
                raise tn.errors.CheckpointError(
                    f"a run resumes with its own {what}",
                    got=_difference(state[what], mine),
                    at=path,
                    fix="Use the command line the run was started with.",
                )
        self.search.load_state_dict(state["search"])
        if state["training"] is not None:
            _, model = self._derived()
            self.training = self._train(model)
            self.training.load_state_dict(state["training"])


def _difference(saved: object, mine: object) -> str:
    """The first line in which two texts differ."""
    for old, new in zip(str(saved).splitlines(), str(mine).splitlines()):
        if old != new:
            return f"{old.strip()} in the checkpoint, {new.strip()} now"
    return f"{saved} in the checkpoint, {mine} now"


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Within it, SIGTERM (a job scheduler's goodbye) saves a checkpoint as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    sys.exit(main())
