"""What there is to be solved: a space, data, and the recipe that trains one network alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import attrs
import torch
from torch import nn

from trinas.graph import Genotype, Graph
from trinas.search import Batches, Loss
from trinas.supernet import Supernet, build, compile_supernet
from trinas.supernet.architecture import RelaxSpec


class Task(NamedTuple):
    """What a search takes, in the order in which it takes them: ``tn.Search(*task, config)``.

    Attributes:
        net: a fresh supernet.
        loss: of prediction and target.
        train: batches for the weights.
        valid: batches for the architecture, of other data.
    """

    net: Supernet
    loss: Loss
    train: Batches
    valid: Batches


@attrs.frozen(kw_only=True)
class Recipe:
    """How every network of a table is trained alone: Adam, a cosine down to zero.

    Attributes:
        steps: how many.
        batch: inputs a step.
        lr: learning rate at the start.
    """

    steps: int
    batch: int
    lr: float


class Measured(NamedTuple):
    """A trained network on data it was not trained on; higher is better.

    Attributes:
        valid: on the data of the architecture; what a method may look at.
        test: on data that no method sees; what it is scored by.
    """

    valid: float
    test: float


class Trained(NamedTuple):
    """One training of one network alone.

    Attributes:
        measured: what it is worth.
        loss: mean loss of the last tenth of the training.
        seconds: of processor time, training and measuring.
    """

    measured: Measured
    loss: float
    seconds: float


@attrs.frozen(kw_only=True, eq=False)
class Problem:
    """A space and its data.

    Attributes:
        graph: the space.
        loss: of prediction and target.
        train: of a seed and a number of inputs: the batches for the weights.
        valid: the same of other data, for the architecture.
        measure: a trained network, in evaluation mode, to its worth.
        recipe: how a network is trained alone.
    """

    graph: Graph
    loss: Loss
    train: Callable[[int, int], Batches]
    valid: Callable[[int, int], Batches]
    measure: Callable[[nn.Module], Measured]
    recipe: Recipe

    def task(self, seed: int, relax: RelaxSpec | None = None) -> Task:
        """A fresh supernet and its data; everything that is drawn follows from the seed.

        Args:
            seed: of weights, initial logits and batches.
            relax: as in `trinas.compile_supernet`.
        """
        batch = self.recipe.batch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            logits = torch.Generator().manual_seed(seed)
            net = compile_supernet(self.graph, relax, generator=logits)
        return Task(net, self.loss, self.train(seed, batch), self.valid(seed, batch))

    def train_alone(self, genotype: Genotype, seed: int) -> Trained:
        """Train one network from scratch and measure it.

        Args:
            genotype: of this space.
            seed: of weights and batches.
        """
        recipe = self.recipe
        start = time.process_time()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build(self.graph, genotype)
        # Not trinas.Training: the truth stands still when what is scored by it changes.
        optimiser = torch.optim.Adam(model.parameters(), recipe.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
        batch = self.train(seed, recipe.batch)
        losses = []
        for step in range(recipe.steps):
            x, y = batch(step)
            optimiser.zero_grad()
            loss = self.loss(model(x), y)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        last = losses[-max(1, recipe.steps // 10) :]
        model.eval()
        with torch.no_grad():
            measured = self.measure(model)
        return Trained(measured, sum(last) / len(last), time.process_time() - start)
