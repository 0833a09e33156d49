"""One run from its data to its results: search, derive, train, score."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import trinas as tn
from examples.sr_trilevel.checkpoint import (
    check_identity,
    load_checkpoint,
    restoring,
    save_checkpoint,
    set_aside,
    stopping_between_steps,
)
from examples.sr_trilevel.command import device_named
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
from examples.sr_trilevel.outputs import FILES, Progress, Row, write_pictures, write_table
from examples.sr_trilevel.packed import packed_images
from examples.sr_trilevel.recipes import Recipe
from examples.sr_trilevel.space import path_of
from examples.sr_trilevel.targets import VERSION, Targets, load_targets

Searching: TypeAlias = tn.Search | tn.RandomSearch
Stage: TypeAlias = Searching | tn.Training


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
        skip_bad: leave out pictures that cannot be used instead of refusing the folder.
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
        skip_bad: bool = False,
        resume: bool = False,
    ) -> None:
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
        }
        self.targets = targets = self._targets(teacher, teacher_cache)
        self.loss = self._loss(features)
        self.identity = {
            "recipe": recipe.to_json(),
            "seed": seed,
            "device": self.device.type,
            "teacher": targets and f"{targets.digest[:12]}, targets v{VERSION}",
            "features": features and _digest(Path(features).read_bytes()),
        }
        if state is not None:  # before thousands of pictures are read
            check_identity(state["identity"], self.identity, out)
        self.sets = {
            existing_folder(folder).resolve().name: read_folder(folder, keep_gray=True)[0]
            for folder in sets
        }
        self.split = self._pictures(data, skip_bad)
        self.identity["pictures"] = f"{self.split} [{_digest(self.split.listing().encode())}]"
        self.graph, self.net = self._supernet()
        self._prefetched = ExitStack()
        self.search = self._new_search()
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

    def _pictures(self, place: str | None, skip_bad: bool) -> Split:
        recipe = self.recipe
        if place is None:
            return split(builtin_images())
        side = max(recipe.patch, recipe.train_patch) * recipe.scale
        if Path(place).expanduser().is_file():
            parts = packed_images(Path(place).expanduser(), min_size=side)
        else:
            parts = folder_images(place, min_size=side, on_bad="skip" if skip_bad else "raise")
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

    def _new_search(self) -> Searching:
        recipe = self.recipe
        first, second = self._search_batches()
        if recipe.strategy == "random":
            return tn.RandomSearch(
                self.net, self.loss, first, second, recipe.random_config(self.seed)
            )
        return tn.Search(self.net, self.loss, first, second, config=recipe.search_config(self.seed))

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
            genotype = self._genotype()
            genotype.save(self.out / "genotype.json")
            if self.training is None:
                self.training = self._new_training(genotype)
            self._keep(self.training)
            if self.recipe.finetune:
                if self.finetuning is None:
                    self.finetuning = self._new_finetuning(self.training.model)
                self._keep(self.finetuning)
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

    def _genotype(self) -> tn.Genotype:
        """The network that was found."""
        if isinstance(self.search, tn.RandomSearch):
            return self.search.best
        return tn.derive(self.net)

    def _new_training(self, genotype: tn.Genotype) -> tn.Training:
        """On content; from the weights of the search, or from scratch."""
        recipe = self.recipe
        batches = self._batches(self.split.train, "train", recipe.train_patch, recipe.train_batch)
        torch.manual_seed(self.seed)  # of weights from scratch
        model = self._derived(genotype, inherit=recipe.inherit)
        return tn.Training(model, SRLoss(LossWeights()), batches, recipe.train)

    def _new_finetuning(self, model: nn.Module) -> tn.Training:
        recipe = self.recipe
        patch, batch = recipe.train_patch, recipe.train_batch
        batches = self._batches(self.split.train, "finetune", patch, batch)
        config = recipe.finetuning()
        assert config is not None
        return tn.Training(model, self.loss, batches, config)

    def _derived(self, genotype: tn.Genotype, *, inherit: bool = True) -> tn.Network:
        """The network that was found, as the search leaves it or with fresh weights."""
        weights = self.net if inherit else None
        return tn.build(self.graph, genotype, inherit=weights).to(self.device)

    def _keep(self, stage: Stage) -> None:
        """Run a stage to its end; save at its end, now and then, and when asked to stop.

        After any other failure the last good checkpoint stays: what a failed step leaves is not
        a state to go on from.
        """
        with stopping_between_steps() as stop:
            self._weigh(stage)
            for _ in self._progress.follow(stage):
                self._weigh(stage)
                if stop.asked:
                    break
                if self._progress.time_to_save():
                    self._save()
            self._progress.close()
            self._save()
        if stop.asked:
            raise KeyboardInterrupt

    def _weigh(self, stage: Stage) -> None:
        """Set the terms of the loss for the next step: pretraining has content alone."""
        first = isinstance(stage, tn.Search) and stage.step < stage.config.pretrain_steps
        self.loss.weights = LossWeights() if first else self.recipe.loss

    def _finish(self, genotype: tn.Genotype, model: nn.Module) -> list[Row]:
        derived = self._derived(genotype)
        # Costs are quoted for this input in the field, whatever the patches.
        cost = tn.cost.count(tn.lower(self.recipe.space(), (3, 256, 256)), dict(genotype))
        supernet_weights = sum(p.numel() for p in self.net.weight_parameters())
        stages: list[tuple[str, nn.Module | None, int, int | None]] = [
            ("bicubic", None, 0, None),
            ("supernet", self.net, supernet_weights, None),
            ("derived", derived, cost.params, cost.macs),
            ("trained", model, cost.params, cost.macs),
        ]
        if isinstance(self.search, tn.RandomSearch):  # whose supernet is no mixture
            stages.pop(1)
        rows = []
        for name, network, params, macs in stages:
            sets = {folder: self._score(network, s) for folder, s in self.sets.items()}
            held_out = self._score(network, self.split.held_out)
            rows.append(Row.of(name, held_out, params, macs, sets))
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
        recipe, search = self.recipe, self.search
        random = isinstance(search, tn.RandomSearch)
        return {
            "recipe": recipe.name,
            "seed": self.seed,
            "held_out": sorted(self.split.held_out),
            "path": genotype["trunk"] if recipe.backbone == "efficient" else self._path(genotype),
            "one_hot": None if random else self._one_hot(),
            "entropy": None if random else self._entropy(),
            "supernet_minus_derived": None if random else self._difference(derived),
            "search_steps": search.total if random else recipe.search.total_steps,
            "train_steps": recipe.train.steps,
            "teacher": None if self.targets is None else self.targets.teacher.name,
            "torch": torch.__version__.split("+")[0],
            "device": str(self.device),
        }

    def _path(self, genotype: tn.Genotype) -> str:
        return path_of(genotype, self.recipe.at_most)

    def _difference(self, derived: tn.Network) -> float:
        """How far the supernet and the network that was found are apart on a batch."""
        lr, _ = self.search.train(0)
        self.net.eval()
        derived.eval()
        with torch.no_grad():
            return float((self.net(lr) - derived(lr)).abs().max())

    def _one_hot(self) -> dict[str, bool]:
        weights = self.net.weights()
        return {
            name: all(sum(w != 0 for w in weights[path]) == 1 for path in self._of_kind(kind))
            for name, kind in (("alpha", "operation"), ("beta", "path"))
        }

    def _entropy(self) -> dict[str, float]:
        """Mean entropy of the decisions of a kind, as a share of the largest there can be."""
        odds = self.net.odds()
        return {
            name: _mean([_spread(odds[path]) for path in self._of_kind(kind)])
            for name, kind in (("alpha", "operation"), ("beta", "path"))
        }

    def _of_kind(self, kind: str) -> list[str]:
        return [path for path, d in self.graph.decisions.items() if d.kind == kind]

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
        return self._score(self.net if stage is None else stage.model, crop).psnr

    # -- checkpoints -----------------------------------------------------------------------

    def _save(self) -> None:
        state = {
            "search": self.search.state_dict(),
            "training": None if self.training is None else self.training.state_dict(),
            "finetuning": None if self.finetuning is None else self.finetuning.state_dict(),
            "curve": self._progress.curve,
        }
        save_checkpoint(self.out, {"identity": self.identity, **state})

    def _restore(self, state: Mapping[str, Any]) -> None:
        check_identity(state["identity"], self.identity, self.out)
        with restoring(self.out):
            self._progress.curve[:] = state["curve"]
            self.search.load_state_dict(state["search"])
            if state["training"] is not None:
                self.training = self._new_training(self._genotype())
                self.training.load_state_dict(state["training"])
            if state["finetuning"] is not None and self.training is not None:
                self.finetuning = self._new_finetuning(self.training.model)
                self.finetuning.load_state_dict(state["finetuning"])


def _spread(odds: Sequence[float]) -> float:
    """Entropy as a share of the largest there can be, in [0, 1].

    >>> [round(_spread(odds), 3) for odds in ([1.0, 0.0], [0.5, 0.5], [0.25, 0.75])]
    [0.0, 1.0, 0.811]
    """
    if len(odds) < 2:
        return 0.0
    return -sum(p * math.log(p) for p in odds if p > 0) / math.log(len(odds))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
