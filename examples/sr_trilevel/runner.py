"""One run from its data to its results: search, derive, train, score."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import trinas as tn
from examples.sr_trilevel.checkpoint import (
    alone_in,
    check_identity,
    load_checkpoint,
    restoring,
    save_checkpoint,
    set_aside,
    stopping_between_steps,
)
from examples.sr_trilevel.command import device_named, environment
from examples.sr_trilevel.data import (
    Patches,
    Split,
    builtin_images,
    folder_images,
    halves,
    make_pairs,
    split,
)
from examples.sr_trilevel.features import load_features
from examples.sr_trilevel.imaging import bicubic, existing_folder, read_folder
from examples.sr_trilevel.losses import LossWeights, SRLoss
from examples.sr_trilevel.metrics import Protocol, Score, score
from examples.sr_trilevel.outputs import (
    FILES,
    Progress,
    Row,
    write_pictures,
    write_table,
    write_timing,
)
from examples.sr_trilevel.packed import packed_images
from examples.sr_trilevel.recipe import Recipe
from examples.sr_trilevel.space import path_of
from examples.sr_trilevel.strategies import Stage, graph_of, strategy_of
from examples.sr_trilevel.targets import VERSION, Targets, load_targets


class Run:
    """One run: its data, its stages, its folder.

    Args:
        recipe: all settings.
        out: output folder, made if needed.
        data: folder of pictures, or a file made by `pack`; the built-in photographs where None.
        sets: folders of pictures that every stage is scored on besides those held out.
        teacher: file of a teacher's weights; the HR pictures are the targets where None.
        teacher_cache: folder that keeps the teacher's targets; `targets` in `out` where None.
        features: file of the weights that a perceptual loss looks through.
        seed: of everything drawn.
        device: torch device.
        compile: through `torch.compile`, the supernet and the network; results differ by rounding.
        skip_bad: leave out pictures that cannot be used instead of refusing the folder.
        minutes: stop after so long, as when asked to; for a machine that is lent for a while.
        resume: go on from the checkpoint in `out`.

    Raises:
        ConfigError: there is a `teacher_cache` without a teacher, or no `features` for a recipe
            with a perceptual loss.
        DataError: the pictures, the device or the `teacher_cache` cannot be used.
        CheckpointError: the teacher, the features or the checkpoint to resume from cannot be used.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        out: Path,
        data: str | None = None,
        sets: Sequence[str | Path] = (),
        teacher: str | None = None,
        teacher_cache: str | None = None,
        features: str | None = None,
        seed: int = 0,
        device: str | None = None,
        compile: bool = False,
        skip_bad: bool = False,
        minutes: float = math.inf,
        resume: bool = False,
    ) -> None:
        self._end = time.monotonic() + 60 * minutes
        state = load_checkpoint(out) if resume else None
        self.recipe = recipe
        self.out = out
        self.seed = seed
        self.device = device_named(device)
        self.options = {
            "data": data,
            "sets": [str(folder) for folder in sets],
            "teacher": teacher,
            "teacher_cache": teacher_cache,
            "features": features,
            "seed": seed,
            "device": str(self.device),
            "compile": compile,
        }
        self.targets = targets = self._targets(teacher, teacher_cache)
        self.loss = self._loss(features)
        self.identity = {
            "recipe": recipe.to_json(),
            "seed": seed,
            "device": self.device.type,
            "teacher": targets and f"{targets.digest[:12]}, targets v{VERSION}",
            "features": features and _digest(Path(features).read_bytes()),
            "compile": compile,
        }
        if state is not None:  # before thousands of pictures are read
            check_identity(state["identity"], self.identity, out)
        self.sets = self._sets(sets)
        self.identity["sets"] = ", ".join(
            f"{name} [{_digest(b''.join(i.numpy().tobytes() for i in images.values()))}]"
            for name, images in self.sets.items()
        )
        self.split = self._pictures(data, skip_bad)
        self.identity["pictures"] = f"{self.split} [{_digest(self.split.listing().encode())}]"
        self._prefetched = ExitStack()
        self.strategy = strategy_of(
            recipe, self._search_batches, self.loss, seed=seed, device=self.device
        )
        self.graph, self.search = self.strategy.graph, self.strategy.stage
        if compile and self.strategy.searched is not None:
            self.strategy.searched.compile()
        self.training: tn.Training | None = None
        self.finetuning: tn.Training | None = None
        self._progress = Progress(self._psnr, recipe.radius())
        if state is not None:
            self._restore(state)
        self._resumed = state is not None

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

    def _loss(self, features: str | None) -> SRLoss:
        """What a search descends on; pretraining and training have content alone."""
        weights = self.recipe.loss
        seen = load_features(features) if features is not None else None
        return SRLoss(weights, seen).to(self.device)

    def _sets(self, folders: Sequence[str | Path]) -> dict[str, dict[str, Tensor]]:
        """Sets of pictures by the names of their folders."""
        places = {existing_folder(folder).resolve().name: folder for folder in folders}
        if len(places) < len(folders):
            raise tn.errors.DataError(
                "every set has a name of its own",
                got=", ".join(map(str, folders)),
                at="--sets",
                fix="Rename a folder.",
            )
        sets = {name: read_folder(place, keep_gray=True)[0] for name, place in places.items()}
        for images in sets.values():
            self._check_small(images)
        return sets

    def _check_small(self, images: Mapping[str, Tensor]) -> None:
        """Scores come last: whether they can be taken is asked now, of the small ones."""
        small = {n: image for n, image in images.items() if min(image.shape[-2:]) < 64}
        if small:
            self._score(None, small)

    def _pictures(self, place: str | None, skip_bad: bool) -> Split:
        recipe = self.recipe
        if place is None:
            return split(builtin_images())
        side = max(recipe.patch, recipe.train_patch) * recipe.scale
        if Path(place).expanduser().is_file():
            parts = packed_images(Path(place).expanduser(), min_size=side)
        else:
            parts = folder_images(place, min_size=side, on_bad="skip" if skip_bad else "raise")
        self._check_small(parts.held_out)
        return parts

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
        with alone_in(self.out), self._prefetched:
            if not self._resumed:
                self._begin()
            self._greet()
            self._keep(self.search)
            genotype = self.strategy.genotype()
            genotype.save(self.out / "genotype.json")
            if self.training is None:
                self.training = self._new_training(genotype)
            self._keep(self.training)
            if self.recipe.finetune:
                if self.finetuning is None:
                    self.finetuning = self._new_finetuning(self.training.model)
                self._keep(self.finetuning, "finetune")
            return self._finish(genotype, self.training.model)

    def _begin(self) -> None:
        aside = set_aside(self.out, FILES)
        if aside is not None:
            print(f"what an earlier run left is in {aside}")
        settings = {
            **self.options,
            "environment": environment(self.device),
            "recipe": json.loads(self.recipe.to_json()),
        }
        (self.out / "config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")

    def _greet(self) -> None:
        print(f"{self.recipe.name}: {self.split}")
        for name, reason in self.split.skipped[:3]:
            print(f"skipped {name}: {reason}")
        if self.recipe.network is not None:
            print(f"network: {self.recipe.network}, without a search")
        else:
            networks = tn.cardinality(self.recipe.space())
            many = f"{networks:,}" if networks < 1e6 else f"{networks:.2g}"
            print(f"space: {len(self.graph.decisions)} decisions, {many} networks")
        if self.targets is not None:
            print(f"targets: {self.targets.teacher.name}, kept in {self.targets.folder}")
        print(f"on {self.device}, into {self.out}", flush=True)

    def _new_training(self, genotype: tn.Genotype) -> tn.Training:
        """On content; from the weights of the search, or from scratch."""
        recipe = self.recipe
        batches = self._batches(self.split.train, "train", recipe.train_patch, recipe.train_batch)
        torch.manual_seed(self.seed)  # of weights from scratch
        model = self.strategy.network(genotype, inherit=recipe.inherit)
        if self.options["compile"]:
            model.compile()
        return tn.Training(model, SRLoss(LossWeights()), batches, recipe.training())

    def _new_finetuning(self, model: nn.Module) -> tn.Training:
        recipe = self.recipe
        patch, batch = recipe.train_patch, recipe.train_batch
        batches = self._batches(self.split.train, "finetune", patch, batch)
        config = recipe.finetuning()
        assert config is not None
        return tn.Training(model, self.loss, batches, config)

    def _keep(self, stage: Stage, name: str | None = None) -> None:
        """Run a stage to its end; save at its end, now and then, and when asked to stop.

        After any other failure the last good checkpoint stays: what a failed step leaves is not
        a state to go on from.
        """
        with stopping_between_steps() as stop:
            self._weigh(stage)
            over = False  # apart from what was asked: a signal while this is saved is the first
            for _ in self._progress.follow(stage, name):
                self._weigh(stage)
                over = time.monotonic() > self._end
                if stop.asked or over:
                    break
                if self._progress.time_to_save():
                    self._save()
            self._progress.close()
            self._save()
        if stop.asked or over:
            raise KeyboardInterrupt

    def _weigh(self, stage: Stage) -> None:
        """Set the terms of the loss for the next step: pretraining has content alone.

        One loss for both phases, whose terms change, as a search is given one for all its steps.
        """
        first = isinstance(stage, tn.Search) and stage.step < stage.config.pretrain_steps
        self.loss.weights = LossWeights() if first else self.recipe.loss

    def _finish(self, genotype: tn.Genotype, model: nn.Module) -> list[Row]:
        # Costs are quoted for this input in the field, whatever the patches.
        cost = tn.cost.count(graph_of(self.recipe, 256), dict(genotype))
        mixture, searched = self.strategy.mixture, self.strategy.searched
        stages: list[tuple[str, nn.Module | None, int, int | None]] = [("bicubic", None, 0, None)]
        if mixture is not None and searched is not None:
            weights = sum(p.numel() for p in searched.weight_parameters())
            stages.append(("supernet", mixture, weights, None))
        derived = self.strategy.network(genotype, inherit=True)
        if self.strategy.steps:
            stages.append(("derived", derived, cost.params, cost.macs))
        stages.append(("trained", model, cost.params, cost.macs))
        rows = []
        for name, network, params, macs in stages:
            sets = {folder: self._score(network, s) for folder, s in self.sets.items()}
            held_out = self._score(network, self.split.held_out)
            rows.append(Row.of(name, held_out, params, macs, sets))
        write_timing(self.out, self._progress.timing, str(self.device))
        write_pictures(self.out, genotype, model, self.split.held_out, self.recipe.scale)
        # The last: it tells that a run is finished.
        write_table(self.out, rows, self._facts(genotype, derived))
        print((self.out / "results.md").read_text(encoding="utf-8"))
        print(f"all in {self.out}")
        return rows

    def _score(self, network: nn.Module | None, images: Mapping[str, Tensor]) -> Score:
        """The score of a network; of bicubic enlargement where None."""
        model = bicubic(self.recipe.scale) if network is None else network
        return score(model, images, scale=self.recipe.scale, protocol=Protocol())

    def _facts(self, genotype: tn.Genotype, derived: tn.Network) -> dict[str, Any]:
        """What else a reader of the results wants to know."""
        recipe = self.recipe
        return {
            "recipe": recipe.name,
            "seed": self.seed,
            "held_out": sorted(self.split.held_out),
            "path": path_of(genotype, recipe.at_most),
            **self.strategy.facts(derived),
            "search_steps": self.strategy.steps,
            "train_steps": recipe.train.steps,
            "finetune_steps": 0 if (tuned := recipe.finetuning()) is None else tuned.steps,
            "teacher": None if self.targets is None else self.targets.teacher.name,
            "torch": torch.__version__.split("+")[0],
            "device": str(self.device),
            "curve": self._progress.curve,
        }

    def _psnr(self) -> float:
        """PSNR of whatever is being trained.

        In training on the first of the sets, if there are any; else on the middle of a held-out
        picture, which a supernet does in no time.
        """
        stage = self.finetuning or self.training
        if stage is not None and self.sets:
            return self._score(stage.model, next(iter(self.sets.values()))).psnr
        name = min(self.split.held_out)
        image = self.split.held_out[name]
        side = 32 * self.recipe.scale
        top, left = (max(0, (n - side) // 2) for n in image.shape[-2:])
        crop = {name: image[:, top : top + side, left : left + side]}
        return self._score(self.strategy.searched if stage is None else stage.model, crop).psnr

    # -- checkpoints -----------------------------------------------------------------------

    def _save(self) -> None:
        state = {
            "search": self.search.state_dict(),
            "training": None if self.training is None else self.training.state_dict(),
            "finetuning": None if self.finetuning is None else self.finetuning.state_dict(),
            "curve": self._progress.curve,
            "timing": self._progress.timing,
        }
        save_checkpoint(self.out, {"identity": self.identity, **state})

    def _restore(self, state: Mapping[str, Any]) -> None:
        check_identity(state["identity"], self.identity, self.out)
        with restoring(self.out):
            self._progress.curve[:] = state["curve"]
            self._progress.timing |= state.get("timing", {})  # earlier versions took no times
            self.search.load_state_dict(state["search"])
            if state["training"] is not None:
                self.training = self._new_training(self.strategy.genotype())
                self.training.load_state_dict(state["training"])
            if state["finetuning"] is not None and self.training is not None:
                self.finetuning = self._new_finetuning(self.training.model)
                self.finetuning.load_state_dict(state["finetuning"])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
