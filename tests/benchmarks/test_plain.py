"""The supernets that trinas is compared with compute what the trinas supernets compute."""

import pytest
import torch

import trinas as tn
from benchmarks.plain.cells import Darts, NasBench201
from benchmarks.plain.mixed import copy_weights
from benchmarks.plain.tree import Tree, Width
from examples.cell_spaces import darts, nas_bench_201
from examples.sr_trilevel.space import backbone_b

SIZE = {"slots": 3, "cells": 2, "convs": 1}


def _rows(graph, flat, kind):
    """The parts of a flat vector that belong to the decisions of one kind."""
    starts = ((path, graph.offsets[path]) for path, d in graph.decisions.items() if d.kind == kind)
    return [flat[start : start + len(graph.decisions[path].options)] for path, start in starts]


def _compared(net, plain, mixture, run, x):
    """Check that output and gradients agree; `run` runs `plain` at a flat vector of weights."""
    copy_weights(net, plain)
    ours, theirs = mixture.leaf(), mixture.weights.detach().requires_grad_()
    x, x_plain = (x.clone().requires_grad_() for _ in range(2))

    y, y_plain = net(x, at=ours), run(x_plain, theirs)
    torch.testing.assert_close(y, y_plain)

    cotangent = torch.randn_like(y)
    y.backward(cotangent)
    y_plain.backward(cotangent)
    torch.testing.assert_close(x.grad, x_plain.grad)
    torch.testing.assert_close(ours.weights.grad, theirs.grad)
    for a, b in zip(net.weight_parameters(), _weights(plain), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def _weights(plain):
    """All parameters but those of the architecture, which `plain` itself holds."""
    return [p for name, p in plain.named_parameters() if "." in name]


def _net(space, in_shape):
    graph = tn.lower(space, in_shape)
    soft = tn.relax.Softmax()
    relax = {"operation": soft, "path": soft, "inputs": "strongest"}
    net = tn.compile_supernet(graph, relax, init_std=1.0).double()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight)
            torch.nn.init.uniform_(module.bias)
    return net


@pytest.mark.parametrize("widths", ["widest", "narrowest", "sampled"])
@pytest.mark.parametrize("seed", range(2))
def test_tree(widths, seed):
    torch.manual_seed(seed)
    net = _net(backbone_b(16, 2, ratios=(1 / 4, 1 / 2, 1), **SIZE), (3, 6, 6))
    mixture = net.mixture(widths=widths)
    plain = Tree(16, 2, candidates=(8, 16), **SIZE).double()

    def run(x, flat):
        alpha = torch.stack(_rows(net.graph, flat, "operation"))
        (beta,) = _rows(net.graph, flat, "path")
        scores = _rows(net.graph, flat, "width")
        drawn = [
            Width(c, row[net.graph.decisions[path].index(c)] if widths == "sampled" else None)
            for (path, c), row in zip(mixture.widths.items(), scores)
        ]
        return plain.mixed(x, alpha, beta, drawn)

    _compared(net, plain, mixture, run, torch.rand(2, 3, 6, 6, dtype=torch.float64))


def test_darts():
    net = _net(darts(4, 5, 3), (3, 16, 16))
    plain = Darts(4, 5, 3).double()

    def run(x, flat):
        rows = _rows(net.graph, flat, "operation")
        half = len(rows) // 2
        return plain.mixed(x, torch.stack(rows[:half]), torch.stack(rows[half:]))

    _compared(net, plain, net.mixture(), run, torch.rand(2, 3, 16, 16, dtype=torch.float64))


def test_nas_bench_201():
    net = _net(nas_bench_201(4, 2), (3, 16, 16))
    plain = NasBench201(4, 2).double()

    def run(x, flat):
        return plain.mixed(x, torch.stack(_rows(net.graph, flat, "operation")))

    _compared(net, plain, net.mixture(), run, torch.rand(2, 3, 16, 16, dtype=torch.float64))
