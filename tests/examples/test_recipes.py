"""Recipes: the paper's numbers are the paper's, and all of them can be run."""

from __future__ import annotations

import json
import re

import attrs
import pytest
import torch

import trinas as tn
from examples.sr_trilevel.paper import paper_tables
from examples.sr_trilevel.recipe import Recipe
from examples.sr_trilevel.recipes import RECIPES, VARIANTS, find_recipe, paper, smoke
from examples.sr_trilevel.space import path_of
from examples.sr_trilevel.strategies import graph_of

every = pytest.mark.parametrize("name", RECIPES)


@every
def test_a_recipe_is_named_as_it_is_called(name):
    recipe = RECIPES[name]()

    assert recipe.name == name
    assert recipe == RECIPES[name]()
    assert RECIPES[name].__doc__


@every
def test_a_recipe_is_text_that_tells_every_setting(name):
    recipe = RECIPES[name]()
    written = json.loads(recipe.to_json())

    assert set(written) == set(Recipe.__attrs_attrs__[i].name for i in range(len(written)))
    assert written["search"]["search_steps"] == recipe.search.search_steps
    assert written["train"]["steps"] == recipe.train.steps


@every
def test_all_three_levels_are_searched(name):
    recipe = RECIPES[name]()
    graph = tn.lower(recipe.space(), (3, recipe.patch, recipe.patch))

    assert {d.kind for d in graph.decisions.values()} == {"operation", "path", "width"}
    assert graph.out_shape == tn.lower(
        tn.seq(tn.conv(3, 3 * recipe.scale**2), tn.pixel_shuffle(recipe.scale)),
        (3, recipe.patch, recipe.patch),
    ).out_shape  # fmt: skip


@every
def test_the_radius_grows_from_nothing_to_the_whole(name):
    recipe = RECIPES[name]()
    radius = recipe.radius()
    values = [radius(share / 20) for share in range(21)]

    assert values == sorted(values)
    assert (values[0], values[-1]) == (0, 1)
    relaxations = recipe.relaxations()
    waits = recipe.search.wait if recipe.signals == "today" else 0.0
    assert relaxations["operation"].radius == radius
    assert relaxations["path"].radius == attrs.evolve(radius, warmup=max(radius.warmup, waits))


def test_the_papers_space_and_relaxations():
    recipe = paper()
    path = recipe.relaxations()["path"]

    assert (recipe.features, recipe.scale, recipe.slots) == (64, 4, 5)
    assert (recipe.cells, recipe.convs) == (5, 2)
    assert recipe.ratios == (1 / 3, 1 / 2, 2 / 3, 5 / 6, 1)
    assert (path.strength, path.form) == (0.1, "linear")
    assert [recipe.radius()(share) for share in (0, 0.25, 1)] == [0, 0.25, 1], "step / total"


def test_the_papers_search():
    """Design notes and appendix A.1: 100 + 100 epochs of 575 steps; batch 3; 32 x 32."""
    recipe, search = paper(), paper().search

    assert (search.pretrain_steps, search.search_steps) == (100 * 575, 100 * 575)
    assert (recipe.patch, recipe.batch, recipe.flips) == (32, 3, "horizontal")
    assert (search.weight_lr, search.arch_lr, search.arch_betas) == (1e-4, 3e-4, (0.5, 0.999))
    assert search.clip == 5
    epochs = (24, 25, 49, 50, 74, 75, 99)
    rates = [search.weight_schedule(epoch / 100) for epoch in epochs]
    assert rates == [1, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 8, 1 / 8]
    assert sorted(search.search_passes) == ["narrowest", "sampled", "widest"]
    assert sorted(search.pretrain_passes) == ["narrowest", "random", "random", "widest"]
    assert search.cost is not None
    assert search.cost.share_structure == 2 / 7
    assert search.cost.every == 575
    assert search.order == 1


def test_the_papers_training():
    """Appendix A.2: 900 epochs, batch 16, halved at 225, 450 and 675."""
    recipe, train = paper(), paper().train

    assert train.steps == 900 * round((800 + 2650) / 16)
    assert (recipe.train_batch, recipe.train_patch, train.lr) == (16, 32, 1e-4)
    rates = [train.schedule(epoch / 900) for epoch in (224, 225, 450, 675)]
    assert rates == [1, 1 / 2, 1 / 4, 1 / 8]


def test_the_smoke_run_is_small():
    assert smoke().search.total_steps + smoke().train.steps < 100


# --- variants -------------------------------------------------------------------------------------

variants = pytest.mark.parametrize("variant", VARIANTS)


@variants
@pytest.mark.parametrize("size", RECIPES)
def test_a_variant_differs_in_its_own_settings_alone(size, variant):
    recipe, base = find_recipe(f"{size}/{variant}"), find_recipe(size)
    _, changes = VARIANTS[variant]

    assert recipe.name == f"{size}/{variant}"
    for field in attrs.fields(Recipe):
        if field.name != "name":
            expected = changes.get(field.name, getattr(base, field.name))
            assert getattr(recipe, field.name) == expected


def compiled(variant: str) -> tuple[Recipe, tn.Supernet]:
    recipe = find_recipe(f"smoke/{variant}")
    graph = tn.lower(recipe.space(), (3, recipe.patch, recipe.patch))
    return recipe, tn.compile_supernet(graph, recipe.relaxations())


@variants
def test_a_variant_makes_a_supernet_that_enlarges(variant):
    recipe, net = compiled(variant)
    lr = torch.rand(1, 3, recipe.patch, recipe.patch)

    result = net(lr)

    assert result.shape == (1, 3, recipe.patch * recipe.scale, recipe.patch * recipe.scale)
    result.mean().backward()
    assert all(p.grad is not None for p in net.arch_parameters().values())


def test_network_levels():
    """Tree: 4 nodes for two cells and a convolution; trellis: its one real choice; fixed: none."""
    kinds = {
        variant: [
            decision.kind
            for path, decision in compiled(variant)[1].graph.decisions.items()
            if decision.kind == "path"
        ]
        for variant in ("lambda-0", "trellis", "bilevel")
    }

    assert {name: len(found) for name, found in kinds.items()} == {
        "lambda-0": 1,
        "trellis": 1,
        "bilevel": 0,
    }


@pytest.mark.parametrize(
    ("variant", "longest"), [("lambda-0", None), ("trellis", 3), ("bilevel", 3)]
)
def test_paths_are_read_off_genotypes(variant, longest):
    recipe, net = compiled(variant)
    for seed in range(20):
        blocks = path_of(tn.sample(net.graph, seed), recipe.at_most).split("-")
        assert blocks[0] == "a"
        assert all(blocks.count(label) <= most for label, most in recipe.at_most.items())
        assert longest is None or len(blocks) == longest
    if variant == "bilevel":
        assert blocks == ["a", "a", "b"]


def test_a_budget_is_that_of_the_tree_whatever_the_paths():
    budgets = {find_recipe(f"smoke/{v}").budget() for v in ("lambda-0", "trellis", "bilevel")}

    assert len(budgets) == 1
    recipe, net = compiled("lambda-0")
    costs = [tn.cost.macs(net.graph, tn.sample(net.graph, seed)) for seed in range(50)]
    assert 0 < max(costs) <= budgets.pop() / recipe.mac_share


def test_relaxations_by_name():
    alpha = {
        name: type(find_recipe(f"smoke/{name}").relaxations()["operation"]).__name__
        for name in ("softmax", "sparsemax", "gumbel", "lambda-0")
    }
    assert alpha == {
        "softmax": "Softmax",
        "sparsemax": "Sparsestmax",
        "gumbel": "GumbelSoftmax",
        "lambda-0": "Sparsestmax",
    }
    logits = torch.randn(5, 4)
    sparsemax = find_recipe("smoke/sparsemax").relaxations()["operation"]
    torch.testing.assert_close(sparsemax(logits, progress=1.0), tn.relax.Sparsemax()(logits))


def test_widths_are_drawn_or_sorted_like_paths():
    widths = {
        name: find_recipe(f"paper/{name}").relaxations()["width"]
        for name in ("lambda-0.1", "sorted-widths", "sorted-widths+lambda-0", "sorted-widths+hinge")
    }
    assert {name: str(relax) for name, relax in widths.items()} == {
        "lambda-0.1": str(tn.relax.GumbelSoftmax()),
        "sorted-widths": str(find_recipe("paper/lambda-0.1").relaxations()["path"]),
        "sorted-widths+lambda-0": str(find_recipe("paper/lambda-0").relaxations()["path"]),
        "sorted-widths+hinge": str(find_recipe("paper/hinge").relaxations()["path"]),
    }


def test_with_sorted_widths_all_three_levels_end_one_hot_and_as_the_derived_network():
    """The gap at the kernel level is none by the relaxation, not by drawing."""
    recipe, net = compiled("sorted-widths")
    assert {d.kind for d in net.graph.decisions.values()} == {"operation", "path", "width"}
    x = torch.rand(1, 3, recipe.patch, recipe.patch)
    assert net.mixture().widths is None, "soft at the start"
    net.progress = 1.0
    derived = tn.build(net.graph, tn.derive(net), inherit=net)

    assert all(max(weights) == 1 for weights in net.weights().values())
    torch.testing.assert_close(net(x), derived(x))
    assert net(x, widths="soft").isfinite().all()


def test_the_order_is_a_term_of_the_loss_where_weights_cannot_be_sorted():
    penalties = {
        name: find_recipe(f"paper/{name}").search_config(0).order_penalty
        for name in ("softmax", "gumbel", "lambda-0.1", "trellis")
    }
    assert penalties == {"softmax": 0.1, "gumbel": 0.1, "lambda-0.1": 0.0, "trellis": 0.0}


def test_a_random_search_has_the_same_steps_and_budget():
    recipe = find_recipe("paper/random")
    config = recipe.random_config(3)

    assert (config.train_steps, config.seed) == (recipe.search.total_steps, 3)
    assert config.within is not None
    assert config.within.limit == recipe.budget()


def test_variants_can_be_combined():
    recipe = find_recipe("paper/A+visual+lambda-0")

    assert (recipe.name, recipe.backbone, recipe.order_strength) == (
        "paper/A+visual+lambda-0",
        "A",
        0.0,
    )
    assert recipe.loss.perceptual > 0


def test_the_rate_of_training_is_that_of_the_size_and_of_the_network():
    assert find_recipe("hour/table9").training() == find_recipe("hour").train
    bsrn = find_recipe("hour/bsrn_m+visual")
    assert bsrn.training() == attrs.evolve(bsrn.train, lr=3 * bsrn.train.lr)
    tuned = bsrn.finetuning()
    assert tuned is not None
    assert tuned.lr == bsrn.training().lr


def test_finetuning_for_visual_quality():
    """Appendix A.2: 1800 epochs after the 900, halved at 225, 450, 900 and 1350."""
    config = find_recipe("paper/visual").finetuning()

    assert config is not None
    assert config.steps == 2 * paper().train.steps
    rates = [config.schedule(epoch / 1800) for epoch in (224, 225, 450, 900, 1350)]
    assert rates == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16]
    assert paper().finetuning() is None


@pytest.mark.parametrize("name", ["tiny/efficient+trellis", "paper/bilevel+efficient"])
def test_todays_blocks_have_a_tree_of_paths(name):
    with pytest.raises(
        tn.errors.ConfigError, match=rf"has a tree of paths; got paths: .*; at {re.escape(name)}"
    ):
        find_recipe(name)


@pytest.mark.parametrize("name", ["tiny/table9+trellis", "hour/softmax+bsrn_m"])
def test_what_a_given_network_would_ignore(name):
    with pytest.raises(tn.errors.ConfigError, match=r"without a search; got (paths|relaxation) be"):
        find_recipe(name)
    assert find_recipe("paper/table7+visual").finetune


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tiny/hinge+softmax", "order_form with paths tree, relaxation softmax"),
        ("tiny/strict+gumbel", "order_form with"),
        ("tiny/hinge+trellis", "order_form with paths trellis"),
        ("tiny/lambda-0+bilevel", "order_strength with paths fixed"),
        ("tiny/hinge+lambda-0", "order_form with .* order 0"),
        ("tiny/lambda-0.01+strict", "order_strength with"),
        ("tiny/random+sorted-widths", "width_relaxation with .* strategy random"),
        ("tiny/sorted-widths+lambda-0.01+strict", "order_strength with"),
        ("tiny/random+softmax", "relaxation with .* strategy random"),
        ("tiny/random+lambda-0", "order_strength with .* strategy random"),
    ],
)
def test_what_another_variant_leaves_no_place_for(name, text):
    with pytest.raises(tn.errors.ConfigError, match=rf"changes something; got {text}"):
        find_recipe(name)
    assert find_recipe("tiny/softmax+lambda-0").order_strength == 0, "a term of the loss"
    assert find_recipe("tiny/bilevel+hinge+sorted-widths").order_form == "hinge", "of widths"


def test_every_row_of_the_paper_compiles_as_published():
    """Recipes by several variants, which are named nowhere else."""
    rows = [row for table in paper_tables().values() for row in table.rows]
    names = {variant for row in rows for variant in row.variants}
    assert "A+visual+bilevel+softmax" in names
    for name in sorted(names):
        recipe = find_recipe(f"smoke/{name}")
        graph = graph_of(recipe, 16)
        net = tn.compile_supernet(graph, recipe.relaxations())
        assert net(torch.rand(1, 3, 16, 16)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("name", ["tiny/softmax+gumbel", "tiny/A+efficient", "smoke/hinge+hinge"])
def test_variants_that_contradict_each_other(name):
    with pytest.raises(tn.errors.ConfigError, match=r"changes something else; got .* twice"):
        find_recipe(name)
