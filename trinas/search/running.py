"""`run`: any method, on any model."""

from __future__ import annotations

import torch
from torch import nn

from trinas._core.errors import ConfigError
from trinas.search.architecture import Architecture
from trinas.search.batches import Data
from trinas.search.checks import require_whole
from trinas.search.engine import Run
from trinas.search.part import Chain, Part, chain
from trinas.search.phase import Phase
from trinas.search.report import StepReport, step_report
from trinas.search.task import Loss, Task
from trinas.supernet.seeding import require_seed


def phases_of(steps: int, pretrain: int) -> tuple[Phase, ...]:
    """Pretraining, where nothing of the architecture moves, then the search."""
    return (
        Phase("pretrain", pretrain, lambda share: 0.0),
        Phase("search", steps, lambda share: share, learns=True),
    )


def run(
    method: Chain | Part,
    model: nn.Module,
    loss: Loss,
    train: Data,
    valid: Data | None = None,
    *,
    steps: int,
    pretrain: int = 0,
    seed: int = 0,
    autocast: torch.dtype | None = None,
) -> Run[StepReport]:
    """A method at work on a model: iterate over it, one report a step.

    Args:
        method: a `chain` of parts.
        model: trained, and its supernets settled, in place. A supernet, a plain network, or any
            module with supernets in it.
        loss: of prediction (whatever the model returns) and target.
        train: data of the weights: a function of the step, a ``DataLoader``, or another iterable
            that can be gone through again and again.
        valid: data of the architecture, the other half.
        steps: of the search.
        pretrain: steps before it, of the weights alone.
        seed: of everything that is drawn in the run. (Initial weights have that of
            `compile_supernet`.)
        autocast: ``torch.bfloat16`` or ``torch.float16`` for automatic mixed precision.

    Raises:
        ConfigError: a setting is out of its range, there is nothing to train, or an architecture
            is to be learned without `valid`.
        DataError: data that are neither a function nor iterable.

    >>> import torch, trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 2), b=tn.conv(1, 2), name="slot"), (1, 8, 8))
    >>> net = tn.compile_supernet(graph, seed=0)
    >>> data = [(torch.rand(2, 1, 8, 8), torch.rand(2, 2, 8, 8)) for _ in range(4)]
    >>> method = tn.chain(tn.weights(tn.sgd(0.1)), tn.architecture(tn.adam(0.01)))
    >>> reports = list(tn.run(method, net, torch.nn.functional.l1_loss, data, data, steps=6))
    >>> reports[-1].step, sorted(net.weights()["slot"])
    (6, [0.0, 1.0])
    """
    require_whole(steps, "steps", least=1, at="run")
    require_whole(pretrain, "pretrain", least=0, at="run")
    require_seed(seed, at="run")
    parts = chain(method)
    if autocast not in (None, torch.bfloat16, torch.float16):
        raise ConfigError(
            "autocast is torch.bfloat16, torch.float16 or None", got=autocast, at="run"
        )
    task = Task(model, loss, autocast=autocast)
    if task.arch and any(isinstance(p, Architecture) for p in parts):
        require_valid(valid, at="run")
    return Run(
        parts,
        task,
        phases_of(steps, pretrain),
        train=train,
        valid=valid,
        seed=seed,
        report=step_report,
    )


def require_valid(valid: object, *, at: str) -> None:
    """Check that there are data for the architecture.

    Raises:
        ConfigError: there are none.
    """
    if valid is None:
        raise ConfigError(
            "an architecture is learned on data of its own",
            got="valid=None",
            at=at,
            fix="Give the other half of the training data.",
        )
