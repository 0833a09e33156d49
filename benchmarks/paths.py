"""Where searches over depth end whose answer is known: planted trees and repeats of 1 to 4 blocks.

A teacher of d residual convolutions makes the targets; each adds a rotated copy one pixel away, so
that fewer than d blocks do not see what they need, and more gain nothing but what is left of
training. One block costs `BLOCK` in units of the target's variance: more than the next one gains
behind d, less than each up to d gains.

    python -m benchmarks paths --out benchmarks/results

Rates, steps and relaxation are those of the other planted tasks: weights 1e-2, architecture 2e-2,
80 + 260 steps, sorted sparsestmax. What differs is said by `Setting`.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trinas as tn
from benchmarks.exits import Option, expected, losses_at_exits, shares
from benchmarks.measure import Options, Row

CHANNELS, SIZE, BATCH, DEEPEST = 6, 8, 8, 4
GAIN = 1.5
BLOCK = 0.02
CLIP = 5.0
PATH = "trunk"


@attrs.frozen(kw_only=True)
class Setting:
    """One way to search.

    Attributes:
        pretrain: what the weights descend on before the search: the loss of the ``mixture``, or
            that of all exits, ``even``.
        weights: the same in the search; ``expected`` weighs the exits by their shares.
        signal: what the logits descend on: the loss of the ``mixture``, or the ``expected`` loss.
        wait: share of the search in which the logits stand still.
        warmup: share of the search in which the radius stays 0.
        cost: of a block.
        relax: ``sorted`` sparsestmax, or ``softmax``.
        pretrain_steps: of the weights alone.
        search_steps: of both.
    """

    pretrain: str = "mixture"
    weights: str = "mixture"
    signal: str = "mixture"
    wait: float = 0.0
    warmup: float = 0.0
    cost: float = BLOCK
    relax: str = "sorted"
    pretrain_steps: int = 80
    search_steps: int = 260


TODAY = Setting()
EXPECTED = Setting(pretrain="even", weights="expected", signal="expected")
WAITING = attrs.evolve(EXPECTED, wait=0.3, warmup=0.5)
SETTINGS: Mapping[str, Setting] = {
    "mixture": TODAY,
    "expected loss": EXPECTED,
    "expected loss, logits wait": WAITING,
    "expected loss, logits wait, no cost": attrs.evolve(WAITING, cost=0.0),
}
# A repeat is a tree of one block under other names: its rows stand for what is recommended only.
RUNS: Mapping[str, Mapping[str, int]] = {
    "mixture": {"tree": 5},
    "expected loss": {"tree": 5},
    "expected loss, logits wait": {"tree": 10, "repeat": 5},
    "expected loss, logits wait, no cost": {"tree": 5},
}
"""How many seeds, by setting and kind of space."""


def measure(options: Options) -> list[Row]:
    """One row for each setting, kind of space and planted depth: where each seed ends."""
    rows = []
    settings = {"expected loss": EXPECTED} if options.quick else SETTINGS
    depths = (1, 2) if options.quick else range(1, DEEPEST + 1)
    for name, setting in settings.items():
        if options.quick:
            setting = attrs.evolve(setting, pretrain_steps=2, search_steps=3)
        for kind, seeds in ({"tree": 1, "repeat": 1} if options.quick else RUNS[name]).items():
            for depth in depths:
                found = [Planted(kind, depth, seed).search(setting) for seed in range(seeds)]
                rows.append(_row(name, setting, kind, depth, found))
    return rows


def _row(name: str, setting: Setting, kind: str, depth: int, found: list[int]) -> Row:
    return {
        "setting": name,
        "space": kind,
        "planted": depth,
        "cost": setting.cost,
        "found": " ".join(map(str, found)),
        "right": sum(end == depth for end in found),
        "shorter": sum(end < depth for end in found),
        "seeds": len(found),
    }


def space(kind: str) -> tn.Graph:
    """A tree (or a repeat) of 1 to 4 blocks between two pointwise convolutions."""
    block = tn.residual(tn.conv(3, CHANNELS))
    trunk = (
        tn.tree(a=block, at_most={"a": DEEPEST}, name=PATH)
        if kind == "tree"
        else tn.repeat(block, tuple(range(1, DEEPEST + 1)), name=PATH)
    )
    return tn.lower(tn.seq(tn.conv(1, CHANNELS), trunk, tn.conv(1, 4)), (4, SIZE, SIZE))


@torch.no_grad()
def plant(teacher: nn.Module, generator: torch.Generator) -> None:
    """Give a network of `space` the weights of a teacher."""
    away = int(torch.randint(8, (), generator=generator))
    row, column = divmod(away + (away >= 4), 3)  # of a 3x3 kernel, not its centre
    for weight in teacher.parameters():
        if weight.dim() == 1:
            weight.zero_()
            continue
        rotation = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=generator))[0]
        outs, ins, size, _ = weight.shape
        tap = (row, column) if size == 3 else (0, 0)
        weight.zero_()[:, :, *tap] = (GAIN if size == 3 else 1.0) * rotation[:outs, :ins]


class Planted:
    """One space with a teacher in it.

    Args:
        kind: ``tree`` or ``repeat``.
        depth: blocks of the teacher.
        seed: of the teacher, the data, and the search.
    """

    def __init__(self, kind: str, depth: int, seed: int) -> None:
        self.graph = space(kind)
        self.exits: tuple[Option, ...] = self.graph.decisions[PATH].options
        self.seed = seed
        generator = torch.Generator().manual_seed(seed)
        self._teacher = tn.build(self.graph, {PATH: self.exits[depth - 1]}).requires_grad_(False)
        plant(self._teacher, generator)
        x = torch.randn(256, 4, SIZE, SIZE, generator=generator)
        self._scale = self._teacher(x).std()

    def batch(self, step: int, *, valid: bool = False) -> tuple[Tensor, Tensor]:
        """Input and target of a step, never seen before."""
        generator = torch.Generator().manual_seed((2 * self.seed + valid) * 1_000_003 + step)
        x = torch.randn(BATCH, 4, SIZE, SIZE, generator=generator)
        return x, self._teacher(x) / self._scale

    def search(self, setting: Setting) -> int:
        """The depth at which a search ends."""
        net = self._supernet(setting)
        weights, arch = net.weight_parameters(), list(net.arch_parameters().values())
        of_weights = torch.optim.Adam(weights, 1e-2)
        of_arch = torch.optim.Adam(arch, 2e-2, betas=(0.5, 0.999))
        halving = tn.Halving()
        for step in range(setting.pretrain_steps + setting.search_steps):
            searching = step - setting.pretrain_steps
            done = max(0, searching) / setting.search_steps
            share = done if searching >= 0 else step / setting.pretrain_steps
            for group in of_weights.param_groups:
                group["lr"] = 1e-2 * halving(share)
            net.progress = done
            mixture = net.mixture()
            policy = setting.weights if searching >= 0 else setting.pretrain
            loss = _loss(net, mixture.detached(), policy, self.batch(step))
            _descend(of_weights, weights, loss)
            if searching >= 0 and done >= setting.wait:
                loss = _loss(net, mixture, setting.signal, self.batch(step, valid=True))
                _descend(of_arch, arch, loss + setting.cost * self._blocks(mixture))
        net.progress = 1.0
        return self.exits.index(net.derive()[PATH]) + 1

    def _supernet(self, setting: Setting) -> tn.Supernet:
        torch.manual_seed(self.seed)
        relaxations = {
            "sorted": tn.relax.SortedSparsestmax(
                0.01, "linear", radius=tn.relax.Linear(0.0, 1.0, warmup=setting.warmup)
            ),
            "softmax": tn.relax.Softmax(),
        }
        generator = torch.Generator().manual_seed(self.seed)
        return tn.compile_supernet(self.graph, relaxations[setting.relax], generator=generator)

    def _blocks(self, mixture: tn.Mixture) -> Tensor:
        """The expected number of blocks."""
        q = shares(mixture, PATH)
        return torch.stack([k * q[exit_] for k, exit_ in enumerate(self.exits, 1)]).sum()


def _loss(
    net: tn.Supernet, mixture: tn.Mixture, policy: str, batch: tuple[Tensor, Tensor]
) -> Tensor:
    if policy == "mixture":
        return F.mse_loss(net(batch[0], at=mixture), batch[1])
    losses = losses_at_exits(net, mixture, PATH, F.mse_loss, batch)
    if policy == "even":
        return torch.stack(list(losses.values())).mean()
    return expected(losses, shares(mixture, PATH))


def _descend(
    optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter], loss: Tensor
) -> None:
    optimiser.zero_grad()
    loss.backward(inputs=parameters)
    nn.utils.clip_grad_norm_(parameters, CLIP)
    optimiser.step()
