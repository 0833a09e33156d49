"""Networks from what they left: a run's folder, a file of weights, a word."""

from __future__ import annotations

import json
import shutil

import attrs
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import trinas as tn
from examples.sr_trilevel.checkpoint import load_checkpoint, save_checkpoint
from examples.sr_trilevel.imaging import bicubic, to_unit
from examples.sr_trilevel.networks import SRNetwork, conv_macs, load_network
from examples.sr_trilevel.recipes import smoke
from examples.sr_trilevel.run import Run
from examples.sr_trilevel.space import paper_architecture
from examples.sr_trilevel.teachers import BSRN, RLFN, load_teacher
from trinas._core.errors import CheckpointError, GenotypeError

LR = torch.rand(1, 3, 20, 27, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of hardly any steps, and its network; not quite the recipe by name."""
    recipe = attrs.evolve(
        smoke(),
        name="smoke/variant",
        features=24,
        ratios=(1 / 3, 1),
        search=attrs.evolve(smoke().search, pretrain_steps=1, search_steps=2),
        train=attrs.evolve(smoke().train, steps=3),
    )
    run = Run(recipe, out=tmp_path_factory.mktemp("runs") / "tiny", device="cpu")
    run.go()
    assert run.training is not None
    return run.out, run.training.model


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "copy")


def changed(folder, change) -> None:
    state = load_checkpoint(folder)
    change(state)
    save_checkpoint(folder, state)


def test_the_network_of_a_run_is_the_one_it_trained(finished):
    out, model = finished
    network = load_network(out)
    row = json.loads((out / "results.json").read_text())["rows"][-1]

    with torch.no_grad():
        assert torch.equal(network(LR), model.eval()(LR))
    assert (network.name, network.scale) == ("tiny", 4)
    assert (network.params, network.macs) == (row["params"], row["macs"])
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert str(network) == (
        f"tiny x4, {row['params']:,} parameters, {row['macs'] / 1e9:.3f} G MACs at 256x256"
    )


def test_a_run_that_is_not_finished_says_so(copied):
    changed(copied, lambda state: state["training"].update(step=2))
    assert load_network(copied).name == "copy (training 2 of 3)"

    changed(copied, lambda state: state.update(training=None))
    with pytest.raises(CheckpointError, match=r"training has begun; got a run that is still sear"):
        load_network(copied)


def test_the_network_is_that_of_the_last_stage(copied):
    def tune(state):
        weights = {name: tensor * 2 for name, tensor in state["training"]["model"].items()}
        state["finetuning"] = {"model": weights, "step": 1, "total": 1}

    before = next(load_network(copied).parameters()).clone()
    changed(copied, tune)
    network = load_network(copied)
    assert network.name == "copy"
    assert torch.equal(next(network.parameters()), 2 * before)

    changed(copied, lambda state: state["finetuning"].update(step=0))
    assert load_network(copied).name == "copy (fine-tuning 0 of 1)"

    def plan(state):
        recipe = json.loads(state["identity"]["recipe"])
        state["identity"]["recipe"] = json.dumps({**recipe, "finetune": 0.5})
        state["finetuning"] = None

    changed(copied, plan)
    assert load_network(copied).name == "copy (training 3 of 3)"


def test_a_run_that_does_not_fit_itself_is_refused(copied, finished):
    (copied / "genotype.json").unlink()
    with pytest.raises(GenotypeError, match=r"genotype\.json"):
        load_network(copied)
    shutil.copy(finished[0] / "genotype.json", copied)

    changed(copied, lambda state: state["training"]["model"].popitem())
    with pytest.raises(CheckpointError, match=r"fits the program that reads it.*checkpoint\.pt"):
        load_network(copied)
    shutil.copy(finished[0] / "checkpoint.pt", copied)

    def rename(state):
        recipe = json.loads(state["identity"]["recipe"])
        state["identity"]["recipe"] = json.dumps({**recipe, "name": "lost"})

    changed(copied, rename)
    with pytest.raises(CheckpointError, match=r"recipe known here; got lost; .*Known are smoke"):
        load_network(copied)

    (copied / "checkpoint.pt").write_bytes(b"x" * 99)
    with pytest.raises(CheckpointError, match=r"cannot be read; .*checkpoint\.pt"):
        load_network(copied)
    (copied / "checkpoint.pt").unlink()
    with pytest.raises(CheckpointError, match=r"holds a checkpoint; got none; at .*checkpoint\.pt"):
        load_network(copied)


def test_what_a_run_had_besides_its_space_may_be_unknown(copied, finished):
    """Fields of other versions, and settings of search and training."""

    def age(state):
        recipe = json.loads(state["identity"]["recipe"])
        del recipe["warmup"]
        recipe |= {"of_the_future": 3, "search": {"of_the_past": 1}}
        state["identity"]["recipe"] = json.dumps(recipe)

    changed(copied, age)
    with torch.no_grad():
        assert torch.equal(load_network(copied)(LR), load_network(finished[0])(LR))


@pytest.mark.parametrize(("word", "scale"), [("bicubic", 4), ("bicubic-x2", 2), ("bicubic-x3", 3)])
def test_bicubic_is_a_word(word, scale):
    network = load_network(word)
    stored = to_unit((LR * 255).to(torch.uint8))

    assert torch.equal(network(stored), bicubic(scale)(stored))
    assert (network.name, network.scale, network.params, network.macs) == (
        "bicubic",
        scale,
        0,
        None,
    )


@pytest.mark.parametrize("make", [lambda: BSRN(16, 1, 3), lambda: RLFN(16, 1, 3)])
def test_published_weights(make, tmp_path):
    network = make()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    loaded = load_network(tmp_path / "w.pth")

    with torch.no_grad():
        assert torch.equal(loaded(LR), load_teacher(tmp_path / "w.pth")(LR))
    assert (loaded.name, loaded.scale) == (type(network).__name__, 3)
    assert loaded.params == sum(p.numel() for p in network.parameters())
    assert loaded.macs == conv_macs(network)


@pytest.mark.parametrize("path", ["bicubic-x0", "bicubic4", "nowhere/at/all.pth"])
def test_nothing_there(path):
    with pytest.raises(CheckpointError, match=f"or the word bicubic; got no such .*; at {path}"):
        load_network(path)


def test_multiply_adds_are_those_of_the_graph():
    graph, genotype = paper_architecture("table9_psnr_B")

    assert conv_macs(tn.build(graph, genotype)) == tn.cost.count(graph, genotype).macs


@pytest.mark.parametrize("network", [BSRN(16, 2), RLFN(16, 2)])
def test_multiply_adds_are_half_of_torchs_flops(network):
    """torch leaves biases out."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.bias = None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 40, 40))

    assert conv_macs(network, 40) == counter.get_total_flops() / 2


def test_multiply_adds_of_other_layers_are_unknown():
    assert conv_macs(nn.Sequential(nn.Conv2d(3, 3, 1), nn.PReLU())) is None


def test_a_network_without_known_multiply_adds():
    assert str(SRNetwork("n", nn.Conv2d(3, 3, 1), scale=1)) == "n x1, 12 parameters"
