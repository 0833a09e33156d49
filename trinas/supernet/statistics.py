"""The statistics of normalisation: re-estimated from a few batches, or left out of a pass.

The running statistics of a supernet are those of no single network: every pass moves them
towards those of what it runs. So a subnet is evaluated after `recalibrate`, or inside
`batch_statistics`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from trinas._core.errors import ConfigError, DataError
from trinas.graph import Genotype
from trinas.supernet.architecture import Architecture
from trinas.supernet.mixture import Mixture
from trinas.supernet.supernet import Supernet

Inputs: TypeAlias = Iterable[Any] | Callable[[int], Any]

_RUNNING = ("running_mean", "running_var", "num_batches_tracked")
# No variance is negative: what still has this one was in no batch.
_UNTOUCHED = -1.0


def recalibrate(
    model: nn.Module,
    batches: Inputs,
    *,
    at: Genotype | Mixture | None = None,
    count: int | None = None,
    forward: Callable[[Any], object] | None = None,
) -> tuple[str, ...]:
    """Re-estimate the running statistics of all batch norms from a few batches.

    Each running mean and variance becomes the plain average of those of the batches (the
    unbiased variance, all batches alike whatever their size), as `torch.optim.swa_utils.update_bn`
    has it. Only forward passes are run, without gradients. While they run, these norms
    normalise by the batch at hand and everything else works as in evaluation, dropout switched
    off, as where the statistics are used. Modes are as before afterwards; and if a
    pass fails, statistics are, too.

    In a supernet only what the passes run is written: at a genotype the channels of
    its widths in the layers that it uses; the rest keeps what it has.

    *Frozen* norms are left alone, normalising by what they have: those in evaluation mode
    within a model in training mode, and those whose own parameters take no gradient while
    other weights of the model do. Norms without running statistics, and instance norms, have
    nothing to re-estimate.

    Args:
        model: any module: a built network, a supernet, a module that contains some.
        batches: inputs, or pairs whose first part is the input; or, as the data of a search,
            a function of the number of the batch from 0, with `count` of them.
        at: what a supernet runs; its mixture of evaluation mode where None.
        count: take no more batches than this.
        forward: runs the model on the input of a batch, where ``model(x)`` does not.

    Returns:
        Names of the norms that were written, in the order of ``model.named_modules()``.

    Raises:
        ConfigError: `at` for what is no supernet or together with `forward`, a function of the
            number without `count`, a `count` below 1, or a norm that has no size yet.
        DataError: there is no batch.

    Source: the recalibration that weight-sharing search evaluates subnets by (Yu & Huang,
    arXiv 1903.05134, post-statistics of batch normalisation; Guo et al., arXiv 1904.00420).

    >>> import torch, trinas as tn
    >>> net = tn.build(tn.lower(tn.conv_bn_relu(1, 4), (3, 8, 8)))
    >>> recalibrate(net, [torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)])
    ('layers.batch_norm',)
    >>> int(net.layers["batch_norm"].num_batches_tracked)
    2
    """
    run = _runner(model, at, forward)
    inputs = _inputs(batches, count)
    names = {layer: name for name, layer in model.named_modules()}
    layers = [m for m in _live_norms(model) if isinstance(m, _BatchNorm)]
    if not layers:
        return ()
    modes = [(m, m.training) for m in model.modules()]
    momenta = [layer.momentum for layer in layers]
    try:
        with _own_buffers(layers, _fresh):
            for module, _ in modes:
                module.training = False
            for layer in layers:
                layer.training, layer.momentum = True, None  # the average of all so far
            _run_all(run, inputs)
            found = [{name: layer._buffers[name] for name in _RUNNING} for layer in layers]
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum
        for module, training in modes:
            module.training = training
    return tuple(names[layer] for layer, new in zip(layers, found) if _written(layer, new))


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, normalisation is by the batch at hand and leaves no trace.

    For forward passes that must not move running statistics, in training mode (scores of
    sampled networks, differences of losses) or in evaluation mode (a subnet of a supernet,
    whose running statistics are those of no network). Batch norms, instance norms that track
    statistics, and subclasses of either work in training mode on statistics of their
    own that nobody reads; gradients flow as in training. Everything else keeps its mode. Frozen
    norms (see `recalibrate`) go on by their own statistics. It may be entered again inside.

    Args:
        model: any module.

    Raises:
        ConfigError: a norm that has no size yet.

    >>> import torch, trinas as tn
    >>> net = tn.build(tn.lower(tn.conv_bn_relu(1, 4), (3, 8, 8)))
    >>> with batch_statistics(net):
    ...     _ = net(torch.rand(2, 3, 8, 8))
    >>> int(net.layers["batch_norm"].num_batches_tracked)
    0
    """
    layers = _live_norms(model)
    modes = [layer.training for layer in layers]
    try:
        with _own_buffers(layers, _copied):
            for layer in layers:
                layer.training = True
            yield
    finally:
        for layer, training in zip(layers, modes):
            layer.training = training


# -- which norms ---------------------------------------------------------------------------


def _live_norms(model: nn.Module) -> list[_NormBase]:
    """The norms with running statistics that are not frozen.

    Raises:
        ConfigError: one that has no size yet.
    """
    norms = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm | _InstanceNorm) and layer.running_mean is not None
    ]
    for name, layer in norms:
        if is_lazy(layer._buffers["running_mean"]):  # type: ignore[arg-type]  # there are some
            raise ConfigError(
                "a norm has a size before its statistics are touched",
                got=type(layer).__name__,
                at=name,
                fix="Run the model once before.",
            )
    learns = norms and any(p.requires_grad for p in _weights(model))
    return [layer for _, layer in norms if not _frozen(layer, model, bool(learns))]


def _weights(model: nn.Module) -> list[nn.Parameter]:
    """All parameters but logits: weights stand still while these are searched."""
    logits = {id(p) for m in model.modules() if isinstance(m, Architecture) for p in m.parameters()}
    return [p for p in model.parameters() if id(p) not in logits]


def _frozen(layer: _NormBase, model: nn.Module, learns: bool) -> bool:
    if model.training and not layer.training:
        return True
    own = list(layer.parameters())
    return learns and bool(own) and not any(p.requires_grad for p in own)


# -- buffers for the time being --------------------------------------------------------------


@contextmanager
def _own_buffers(layers: list[Any], spare: Callable[[Tensor, str], Tensor]) -> Iterator[None]:
    """Inside, the layers work on other running statistics; the same ones are back afterwards."""
    kept = [{name: layer._buffers.get(name) for name in _RUNNING} for layer in layers]
    try:
        for layer, own in zip(layers, kept):
            layer._buffers.update(
                {name: None if b is None else spare(b, name) for name, b in own.items()}
            )
        yield
    finally:
        for layer, own in zip(layers, kept):
            layer._buffers.update(own)


def _copied(buffer: Tensor, name: str) -> Tensor:
    del name
    return buffer.detach().clone()


def _fresh(buffer: Tensor, name: str) -> Tensor:
    return torch.full_like(buffer, _UNTOUCHED if name == "running_var" else 0)


@torch.no_grad()
def _written(layer: _BatchNorm, new: Mapping[str, Tensor | None]) -> bool:
    """Write what was found of the channels that ran; whether there were any."""
    mean, variance, number = (new[name] for name in _RUNNING)
    assert mean is not None
    assert variance is not None
    ran = variance != _UNTOUCHED
    if not bool(ran.any()):
        return False
    for own, found in ((layer.running_mean, mean), (layer.running_var, variance)):
        assert own is not None
        own.copy_(torch.where(ran, found, own))
    if layer.num_batches_tracked is not None and number is not None:
        layer.num_batches_tracked.copy_(number)
    return True


# -- passes ------------------------------------------------------------------------------------


def _runner(
    model: nn.Module, at: Genotype | Mixture | None, forward: Callable[[Any], object] | None
) -> Callable[[Any], object]:
    if at is None:
        return model if forward is None else forward
    if forward is not None or not isinstance(model, Supernet):
        raise ConfigError(
            "a genotype or mixture is what a supernet runs by itself",
            got=f"at for a {type(model).__name__}" + (" and forward" if forward else ""),
            fix="Give forward=lambda x: ... that runs the model at the genotype.",
        )
    return lambda x: model(x, at=at)


def _inputs(batches: Inputs, count: int | None) -> Iterator[Any]:
    by_number = not isinstance(batches, Iterable)
    if (count is None and by_number) or (count is not None and count < 1):
        raise ConfigError(
            "statistics are averaged over a number of batches, 1 or more",
            got=f"count={count}",
            at="recalibrate",
            fix="Give count=, how many to take; an iterable can do without.",
        )
    if isinstance(batches, Iterable):
        return iter(itertools.islice(batches, count))
    return (batches(number) for number in range(count or 0))


@torch.no_grad()
def _run_all(run: Callable[[Any], object], inputs: Iterator[Any]) -> None:
    # Compilers cannot look into a number of batches, and would compile for these passes alone.
    ran = False
    with torch.compiler.set_stance("force_eager"):
        for batch in inputs:
            run(batch[0] if isinstance(batch, tuple | list) else batch)
            ran = True
    if not ran:
        raise DataError(
            "statistics are re-estimated from one batch at least",
            got="none",
            at="recalibrate",
            fix="Is the iterator spent?",
        )
