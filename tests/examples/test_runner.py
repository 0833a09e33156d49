"""What variants change in a run: its search, what is trained, on which loss, from which weights."""

from __future__ import annotations

import json
import math

import attrs
import pytest
import torch
from PIL import Image
from torch import nn

import trinas as tn
from examples.sr_trilevel import runner
from examples.sr_trilevel.checkpoint import load_checkpoint
from examples.sr_trilevel.data import Split, builtin_images
from examples.sr_trilevel.features import TORCHVISION, Features
from examples.sr_trilevel.imaging import bicubic
from examples.sr_trilevel.losses import LossWeights
from examples.sr_trilevel.metrics import score
from examples.sr_trilevel.pack import Packing, pack
from examples.sr_trilevel.recipes import find_recipe
from examples.sr_trilevel.runner import Run
from examples.sr_trilevel.strategies import Drawn, GradientStrategy
from examples.sr_trilevel.teachers import BSRN


def short(name: str):
    """A variant of the smoke recipe with hardly any steps."""
    recipe = find_recipe(f"smoke/{name}")
    return attrs.evolve(
        recipe,
        search=attrs.evolve(recipe.search, pretrain_steps=2, search_steps=2),
        train=attrs.evolve(recipe.train, steps=2),
        candidates=3,
    )


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture
def features(monkeypatch, tmp_path):
    """A small network of features in the place of a published one."""
    layers = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Conv2d(5, 4, 3))
    monkeypatch.setattr(runner, "load_features", lambda _: Features("small", layers, TORCHVISION))
    (tmp_path / "features.pth").write_bytes(b"weights")
    return str(tmp_path / "features.pth")


@pytest.mark.parametrize(
    ("name", "network", "inherits"), [("bilevel", "a-a-b", True), ("scratch", None, False)]
)
def test_weights_are_inherited_or_drawn_anew(name, network, inherits, tmp_path, monkeypatch):
    begun = []
    inner = tn.Training.__init__

    def note(self, model, *arguments):
        begun.append({key: value.clone() for key, value in model.state_dict().items()})
        inner(self, model, *arguments)

    monkeypatch.setattr(tn.Training, "__init__", note)
    run = Run(short(name), out=tmp_path)
    run.go()

    left = run.strategy.network(run.strategy.genotype(), inherit=True).state_dict()
    assert all(torch.equal(begun[0][key], left[key]) for key in left) == inherits
    if network is not None:
        assert results(tmp_path)["path"] == network


def test_a_random_search_keeps_to_the_budget_and_has_no_mixture_to_tell_of(tmp_path):
    recipe = short("random")
    run = Run(recipe, out=tmp_path)
    run.go()

    assert isinstance(run.search, tn.RandomSearch)
    facts = results(tmp_path)
    assert [row["name"] for row in facts["rows"]] == ["bicubic", "derived", "trained"]
    assert (facts["entropy"], facts["one_hot"]) == (None, None)
    assert facts["search_steps"] == recipe.search.total_steps + 3
    budget = recipe.budget()
    assert budget is not None
    assert tn.cost.macs(run.graph, run.search.best) <= budget
    assert "one-hot" not in (tmp_path / "results.md").read_text()


def test_softmax_ends_far_from_one_network_and_sparsestmax_in_one(tmp_path):
    facts = {}
    for name in ("softmax", "lambda-0.1"):
        Run(short(name), out=tmp_path / name).go()
        facts[name] = results(tmp_path / name)

    assert min(facts["softmax"]["entropy"].values()) > 0.9
    assert facts["softmax"]["supernet_minus_derived"] > 0
    assert facts["lambda-0.1"]["entropy"] == {"alpha": 0.0, "beta": 0.0}


def test_a_stochastic_supernet_is_scored_as_it_is_trained(tmp_path, monkeypatch):
    """By draws: its likeliest options are the derived network, whose gap tells nothing."""
    Run(short("gumbel"), out=tmp_path / "run").go()
    rows = {row["name"]: row["psnr"] for row in results(tmp_path / "run")["rows"]}
    assert rows["supernet"] != rows["derived"]

    graph = tn.lower(tn.choice(a=tn.conv(3, 1), b=tn.conv(1, 1), name="slot"), (1, 8, 8))
    net = tn.compile_supernet(graph, tn.relax.GumbelSoftmax()).eval()
    with torch.no_grad():
        net.logits("slot").copy_(torch.tensor([0.0, 1.0]))  # odds of 0.27 and 0.73
    drawn, x = Drawn(net, seed=0), torch.rand(1, 1, 8, 8)
    either = [net(x, at=tn.Genotype.of(graph, {"slot": name})) for name in "ab"]
    outputs = [drawn(x) for _ in range(400)]
    counts = [sum(torch.equal(one, output) for output in outputs) for one in either]
    assert sum(counts) == 400
    assert abs(counts[1] / 400 - 0.731) < 0.07, "three standard deviations"
    assert not net.architecture.training
    again = Drawn(net, seed=0)
    assert all(torch.equal(again(x), output) for output in outputs[:20])


def test_for_visual_quality_pretraining_and_training_have_content_alone(features, tmp_path):
    recipe = short("visual")
    run = Run(recipe, out=tmp_path, features=features)
    seen = []
    inner = run.loss.forward

    def note(prediction, target):
        seen.append((run.search.step, run.training is not None, run.loss.weights))
        return inner(prediction, target)

    run.loss.forward = note
    run.go()

    assert run.training is not None
    assert run.finetuning is not None
    assert run.finetuning.model is run.training.model
    assert run.finetuning.step == 4, "two for each of training"
    for step, trained, weights in seen:
        assert weights == (LossWeights() if step < 2 and not trained else recipe.loss)
    assert {phase for phase, _, _ in load_checkpoint(tmp_path)["curve"]} == {
        "pretrain",
        "search",
        "train",
        "finetune",
    }


def test_interrupted_while_it_is_finetuned_it_ends_with_the_same_weights(
    features, tmp_path, monkeypatch
):
    whole = Run(short("visual"), out=tmp_path / "whole", features=features)
    whole.go()
    run = Run(short("visual"), out=tmp_path / "broken", features=features)
    inner = tn.Training.advance

    def stop(self):
        if run.finetuning is not None and self.step == 2:
            run._save()
            raise KeyboardInterrupt
        return inner(self)

    monkeypatch.setattr(tn.Training, "advance", stop)
    with pytest.raises(KeyboardInterrupt):
        run.go()
    monkeypatch.setattr(tn.Training, "advance", inner)

    again = Run(short("visual"), out=tmp_path / "broken", features=features, resume=True)
    assert again.finetuning is not None
    assert again.finetuning.step == 2
    again.go()

    assert whole.training is not None
    assert again.training is not None
    expected = whole.training.model.state_dict()
    for key, value in again.training.model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)


def test_a_perceptual_loss_wants_features(tmp_path):
    with pytest.raises(tn.errors.ConfigError, match="a perceptual term needs a network"):
        Run(short("visual"), out=tmp_path)


def test_every_stage_is_scored_on_further_sets(tmp_path):
    picture = builtin_images()["chelsea"][:, :100, :120]
    folder = tmp_path / "Cats"
    folder.mkdir()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / "chelsea.png")

    Run(short("lambda-0"), out=tmp_path / "run", sets=[folder]).go()

    rows = results(tmp_path / "run")["rows"]
    expected = score(bicubic(4), {"chelsea": picture})
    assert rows[0]["sets"] == {
        "Cats": {"psnr": round(expected.psnr, 3), "ssim": round(expected.ssim, 4)}
    }
    assert all(math.isfinite(row["sets"]["Cats"]["psnr"]) for row in rows)
    assert "| Cats |" in (tmp_path / "run" / "results.md").read_text()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures in one file."""
    tmp_path = tmp_path_factory.mktemp("packed")
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, image in builtin_images().items():
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{name}.png")
    pack(folder, tmp_path / "photos.zip", Packing(megabytes=1, crop=128))
    return str(tmp_path / "photos.zip")


def test_data_may_be_one_packed_file(photos, tmp_path):
    run = Run(short("lambda-0"), out=tmp_path / "run", data=photos)

    assert all(image.shape == (3, 128, 128) for image in run.split.train.values())
    run.go()


def in_short(recipe):
    """A recipe with all it has, but narrow, and with hardly any steps."""
    search, cost = recipe.search, recipe.search.cost
    return attrs.evolve(
        recipe,
        features=16,
        slots=2,
        cells=2,
        convs=1,
        ratios=(1 / 2, 1),
        patch=16,
        train_patch=16,
        train_batch=1,
        search=attrs.evolve(
            search,
            pretrain_steps=2,
            search_steps=5,
            prune_after=1,
            arch_lr=0.1,
            cost=attrs.evolve(cost, every=2),
        ),
        train=attrs.evolve(recipe.train, steps=3),
    )


@pytest.mark.parametrize("name", ["lambda-0.1", "table9"])
def test_what_a_gpu_is_lent_for_comes_to_its_end_step_by_step(name, photos, tmp_path):
    """The recipes of an hour with everything: bfloat16, pruning, one file of data, a teacher."""
    recipe = in_short(find_recipe(f"hour/{name}"))
    assert recipe.search.autocast is recipe.train.autocast is torch.bfloat16
    teacher = tmp_path / "teacher.pth"
    torch.save(BSRN(16, 1).state_dict(), teacher)
    given = {"data": photos, "teacher": str(teacher), "teacher_cache": str(tmp_path / "targets")}

    whole = Run(recipe, out=tmp_path / "whole", **given)
    whole.go()
    breaks = 0
    while not (tmp_path / "broken" / "results.json").exists():
        run = Run(recipe, out=tmp_path / "broken", minutes=0, resume=breaks > 0, **given)
        try:
            run.go()
        except KeyboardInterrupt:
            breaks += 1

    steps = recipe.train.steps + (0 if name == "table9" else recipe.search.total_steps)
    assert breaks == steps, "one step every time"
    assert results(tmp_path / "broken") == results(tmp_path / "whole")
    models = [load_checkpoint(tmp_path / one)["training"]["model"] for one in ("broken", "whole")]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(value, models[1][key]) for key, value in models[0].items())
    if name != "table9":
        assert isinstance(whole.strategy, GradientStrategy)
        assert whole.strategy.net.pruned, "an option left the supernet"


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_a_run_comes_to_the_same_network(tmp_path, monkeypatch):
    """Without a backend, whose own work takes minutes."""
    inner = tn.Network.compile
    monkeypatch.setattr(tn.Network, "compile", lambda self: inner(self, backend="eager"))
    recipe = short("lambda-0")
    for name, compiled in (("plain", False), ("compiled", True)):
        torch.compiler.reset()
        run = Run(recipe, out=tmp_path / name, compile=compiled)
        assert (run.strategy.searched.network.compiled is not None) == compiled
        run.go()
        assert (run.training.model.compiled is not None) == compiled

    plain, other = (results(tmp_path / name) for name in ("plain", "compiled"))
    assert other["path"] == plain["path"]
    for one, two in zip(plain["rows"], other["rows"]):
        assert two["psnr"] == pytest.approx(one["psnr"], abs=0.02)


@pytest.mark.parametrize("name", ["table9", "bsrn_m"])
def test_a_published_network_is_trained_without_a_search(name, tmp_path, monkeypatch):
    recipe = attrs.evolve(short(name), train_batch=1)
    monkeypatch.setattr(runner, "write_pictures", lambda *_: None)
    monkeypatch.setattr(Run, "_psnr", lambda _: 0.0)
    picture = {"one": builtin_images()["chelsea"][:, :80, :80]}
    monkeypatch.setattr(runner, "split", lambda images: Split(images, picture))

    Run(recipe, out=tmp_path).go()

    facts = results(tmp_path)
    assert [row["name"] for row in facts["rows"]] == ["bicubic", "trained"]
    params = {"table9": 509_072, "bsrn_m": 272_776}
    assert facts["rows"][1]["params"] == params[name]
    assert facts["search_steps"] == 0
    again = Run(recipe, out=tmp_path, resume=True)
    assert again.training is not None
    assert again.training.step == recipe.train.steps


def test_time_that_is_up_is_a_break_like_any_other(tmp_path, monkeypatch):
    recipe = short("lambda-0")
    whole = Run(recipe, out=tmp_path / "whole")
    whole.go()
    with pytest.raises(KeyboardInterrupt):
        Run(recipe, out=tmp_path / "broken", minutes=0).go()
    assert load_checkpoint(tmp_path / "broken")["search"]["step"] == 1

    again = Run(recipe, out=tmp_path / "broken", resume=True)
    again.go()

    assert results(tmp_path / "broken") == results(tmp_path / "whole")


def test_networks_that_there_are_none_of(tmp_path):
    recipe = attrs.evolve(short("table9"), network="table11")
    with pytest.raises(tn.errors.UnknownNameError, match=r"got table11\. There are table7_"):
        Run(recipe, out=tmp_path)


def test_two_sets_of_one_name_are_refused(tmp_path):
    folders = [tmp_path / name / "Set5" for name in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
    with pytest.raises(tn.errors.DataError, match="every set has a name of its own"):
        Run(short("lambda-0"), out=tmp_path / "run", sets=folders)


def test_pictures_too_small_to_score_are_refused_before_anything_is_trained(tmp_path):
    (tmp_path / "Dots").mkdir()
    Image.new("RGB", (12, 12)).save(tmp_path / "Dots" / "dot.png")
    with pytest.raises(tn.errors.ShapeError, match=r"dot\.png"):
        Run(short("lambda-0"), out=tmp_path / "run", sets=[tmp_path / "Dots"])
