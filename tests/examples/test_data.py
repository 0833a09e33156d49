"""Batches as a pure function of the step, and which pictures go where."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from importlib import resources

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from examples.sr_trilevel.data import (
    Pair,
    Patches,
    builtin_images,
    folder_images,
    halves,
    make_pairs,
    split,
)
from examples.sr_trilevel.imaging import imresize, to_uint8, to_unit
from trinas._core.errors import DataError


def noise(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


SMALL = make_pairs({"wide": noise(40, 160), "square": noise(48, 48, 1)})


def small(**options):
    return Patches(**({"pairs": SMALL, "patch": 8, "batch": 4} | options))


def write(folder, *names, side=32):
    for position, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((side, side, 3), position, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


# --- pictures -------------------------------------------------------------------------------------


def test_builtin_images_are_local_colour_photographs():
    images = builtin_images()

    assert list(images) == ["astronaut", "chelsea", "coffee", "motorcycle", "rocket"]
    for image in images.values():
        assert torch.uint8 == image.dtype
        assert image.shape[0] == 3
        assert min(image.shape[1:]) >= 300
        assert not torch.equal(image[0], image[1])


def test_builtin_images_without_scikit_image(monkeypatch):
    def missing(package):
        raise ModuleNotFoundError(package)

    monkeypatch.setattr(resources, "files", missing)

    with pytest.raises(
        DataError, match=r"those of scikit-image; got no module named skimage.*Install"
    ):
        builtin_images()


def test_split_sets_the_astronaut_apart():
    parts = split(builtin_images())

    assert (
        list(parts.train),
        list(parts.held_out),
    ) == (["chelsea", "coffee", "motorcycle", "rocket"], ["astronaut"])
    assert str(parts) == (
        "training on 4 images (1.02 megapixels), holding out 1 image (0.26 megapixels)"
    )


def test_split_by_name_and_its_refusals():
    images = {name: noise(8, 8) for name in ("one", "two", "three")}

    assert list(split(images, held_out="two").held_out) == ["two"]
    assert list(split(images, held_out=["two", "three", "two"]).held_out) == ["three", "two"]
    with pytest.raises(DataError, match=r"must be among the pictures; got twoo\. Near it: two"):
        split(images, held_out=["twoo"])
    with pytest.raises(DataError, match="no picture is left to train on; got all 3 held out"):
        split(images, held_out=list(images))


def test_folder_holds_out_the_last_tenth(tmp_path):
    write(tmp_path, *[f"{i:02}.png" for i in range(23)])

    parts = folder_images(tmp_path)

    assert list(parts.held_out) == ["21.png", "22.png"]
    assert [f"{i:02}.png" for i in range(21)] == list(parts.train)
    assert {5} == set(parts.train["05.png"].flatten().tolist())


def test_folder_with_named_pictures_held_out(tmp_path):
    write(tmp_path, "city/a.png", "city/b.png", "c.png")

    assert list(folder_images(tmp_path, held_out=["city/a.png"]).held_out) == ["city/a.png"]
    with pytest.raises(DataError, match=r"got a\.png"):
        folder_images(tmp_path, held_out=["a.png"])


def test_div2k_layout(tmp_path):
    """Both folders: train and held out; LR copies beside them are left alone."""
    write(tmp_path / "DIV2K_train_HR", "0001.png", "0002.png")
    write(tmp_path / "DIV2K_train_LR_bicubic" / "X4", "0001x4.png")
    alone = folder_images(tmp_path)
    write(tmp_path / "DIV2K_valid_HR", "0801.png")
    both = folder_images(tmp_path)

    assert (list(alone.train), list(alone.held_out)) == (["0001.png"], ["0002.png"])
    assert (list(both.train), list(both.held_out)) == (["0001.png", "0002.png"], ["0801.png"])
    inside = folder_images(tmp_path / "DIV2K_train_HR")
    assert list(alone.train) == list(inside.train)
    named = folder_images(tmp_path, held_out=["0001.png"])
    assert (list(named.train), list(named.held_out)) == (["0002.png"], ["0001.png"])


def test_div2k_held_out_pictures_may_be_small_and_bad_ones_are_listed(tmp_path):
    write(tmp_path / "DIV2K_train_HR", "0001.png", "0002.png", side=64)
    write(tmp_path / "DIV2K_valid_HR", "0801.png", side=16)
    assert len(folder_images(tmp_path, min_size=64).train) == 2
    (tmp_path / "DIV2K_train_HR" / "0003.png").write_text("x")
    (tmp_path / "DIV2K_valid_HR" / "0802.png").write_text("x")

    with pytest.raises(DataError, match=r"cannot be read; .*0003\.png"):
        folder_images(tmp_path)
    skipped = folder_images(tmp_path, on_bad="skip")
    assert [name for name, _ in skipped.skipped] == ["0003.png", "0802.png"]
    assert str(skipped).endswith("2 files skipped")


def test_folder_refuses(tmp_path):
    with pytest.raises(DataError, match=r"read from a folder; got no such folder; at .*absent"):
        folder_images(tmp_path / "absent")
    with pytest.raises(DataError, match=r"holds no pictures; got none of \.bmp, \.jpeg, \.jpg"):
        folder_images(tmp_path)
    write(tmp_path, "only.png")
    with pytest.raises(DataError, match=r"both trained on and held out; got only\.png"):
        folder_images(tmp_path)
    write(tmp_path, "more.png", side=191)
    with pytest.raises(
        DataError, match=r"got 191 x 191 pixels; at .*more\.png\. At least 192 x 192 are required"
    ):
        folder_images(tmp_path, min_size=192)


# --- halves ---------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 9), st.integers(2, 9)), min_size=1, max_size=7),
    st.integers(1, 9),
)
def test_halves_share_no_pixel_and_are_equal(sizes, by_image_from):
    """Every pixel has a value of its own, so that sharing one would show."""
    images, start = {}, 0
    for i, (height, width) in enumerate(sizes):
        images[f"{i}"] = (start + torch.arange(3 * height * width)).reshape(3, height, width)
        start += images[f"{i}"].numel()

    first, second = halves(images, by_image_from=by_image_from)

    values = [
        {v for image in part.values() for v in image.flatten().tolist()} for part in (first, second)
    ]
    assert not values[0] & values[1]
    if len(images) >= max(2, by_image_from):
        assert len(first) - len(second) in (0, 1)
        assert list(images) == sorted([*first, *second])
    else:
        assert list(first) == list(second) == list(images)
        assert all(first[name].shape == second[name].shape for name in images)
        assert start - sum(map(len, values)) <= sum(3 * min(size) for size in sizes)


def test_halves_alternate_and_cut_the_longer_side():
    images = {"a": noise(8, 12), "b": noise(12, 8)}
    first, second = halves(images)

    assert torch.equal(images["a"][:, :, :6], first["a"])
    assert torch.equal(images["b"][:, :6], second["b"])
    assert torch.equal(images["b"][:, 6:], first["b"])
    with pytest.raises(DataError, match="two halves need at least one picture"):
        halves({})


def test_halves_of_pictures_too_small_to_cut():
    """Only what is cut has to be twice as long as a patch."""
    images = {"long": noise(8, 16), "short": noise(15, 8)}

    assert halves({"long": images["long"]}, min_size=8)[0]["long"].shape == (3, 8, 8)
    assert [list(part) for part in halves(images, min_size=8, by_image_from=2)] == [
        ["long"],
        ["short"],
    ]
    with pytest.raises(
        DataError,
        match=r"got 8 x 15 pixels; at short\. Its longer side needs 16 .* at least 16 pic",
    ):
        halves(images, min_size=8)


def test_a_listing_tells_pictures_apart_by_name_size_and_use():
    images = {"a": noise(8, 8), "b": noise(8, 12), "c": noise(8, 8)}
    parts = [
        split(images, held_out="c"),
        split(images, held_out="a"),
        split({**images, "b": noise(12, 8)}, held_out="c"),
        split({"a": images["a"], "d": images["b"], "c": images["c"]}, held_out="c"),
    ]

    assert len({part.listing() for part in parts}) == 4
    assert parts[0].listing() == split(images, held_out=["c"]).listing()


# --- patches --------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["none", "horizontal", "dihedral"]),
    st.sampled_from([2, 4]),
)
def test_patches_are_aligned(step, flips, scale):
    """Away from its border, where the kernel sees the patch alone, shrunk HR is LR exactly."""
    # Middle values alone: what the kernel overshoots must not be cut off between its two passes.
    pairs = make_pairs({"a": noise(90, 130) // 2 + 64}, scale=scale)
    lr, hr = Patches(pairs=pairs, patch=12, batch=3, flips=flips)(step)

    assert ((3, 3, 12, 12), (3, 3, 12 * scale, 12 * scale)) == (tuple(lr.shape), tuple(hr.shape))
    shrunk = imresize(to_uint8(hr), 1 / scale)
    inner = (..., slice(3, -3), slice(3, -3))
    if flips == "dihedral":
        # Turned, rows and columns are rounded in the other order: half a level in either pass,
        # the first one times the kernel's absolute sum of about 1.2.
        difference = (shrunk[inner].int() - to_uint8(lr)[inner].int()).abs()
        assert difference.max() <= 2
    else:
        assert torch.equal(shrunk[inner], to_uint8(lr)[inner])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**12), st.integers(-5, 2**40))
def test_a_batch_is_a_function_of_its_step(step, seed):
    """Whatever was asked for before, and after pickling."""
    patches = small(seed=seed)
    expected = patches(step)
    patches(step + 1)
    torch.rand(3)

    for again in (patches(step), small(seed=seed)(step), pickle.loads(pickle.dumps(patches))(step)):
        assert torch.equal(expected[0], again[0])
        assert torch.equal(expected[1], again[1])


def test_seed_stream_and_step_each_change_the_batch():
    batches = [
        small()(0)[1],
        small()(1)[1],
        small(seed=1)(0)[1],
        small(stream="arch")(0)[1],
        small(flips="none")(0)[1],
        small(choose="uniform", batch=64)(0)[1][:4],
    ]

    assert len(batches) == len({tuple(batch.flatten().tolist()) for batch in batches})


def test_values_and_global_generator_untouched():
    state = torch.random.get_rng_state()
    lr, hr = small()(5)

    assert torch.equal(state, torch.random.get_rng_state())
    for part in (lr, hr):
        assert torch.float32 == part.dtype
        assert part.is_contiguous()
        assert part.min() >= 0
        assert part.max() <= 1
        assert torch.equal(part, to_unit(to_uint8(part)))


@pytest.mark.parametrize(("choose", "share"), [("area", 400 / (400 + 144)), ("uniform", 0.5)])
def test_pictures_are_chosen_by_area_or_evenly(choose, share):
    """Each picture has one value; 4000 draws are within four standard deviations."""
    pairs = make_pairs({"a": torch.zeros(3, 40, 160).byte(), "b": torch.ones(3, 48, 48).byte()})
    lr, _ = Patches(pairs=pairs, patch=4, batch=4000, choose=choose)(0)

    of_first = (lr.amax((1, 2, 3)) == 0).double().mean().item()
    assert abs(of_first - share) < 4 * math.sqrt(share * (1 - share) / 4000)


@pytest.mark.parametrize(("flips", "count"), [("none", 1), ("horizontal", 2), ("dihedral", 8)])
def test_every_flip_comes_up_equally_often(flips, count):
    """A picture of one patch has no other place to be cut from."""
    pairs = make_pairs({"a": noise(16, 16)})
    lr, _ = Patches(pairs=pairs, patch=4, batch=1600, flips=flips)(0)

    seen = Counter(tuple(patch.flatten().tolist()) for patch in lr)
    assert count == len(seen)
    assert min(seen.values()) > 0.7 * 1600 / count


def test_every_place_comes_up():
    """Corners are uniform over all places where a patch fits, the last one included."""
    ramp = torch.arange(0, 240, 40, dtype=torch.uint8).repeat_interleave(4)
    pairs = make_pairs({"a": ramp.expand(3, 16, 24)})
    lr, _ = Patches(pairs=pairs, patch=4, batch=900, flips="none")(0)

    starts = Counter(lr[:, 0, 0, 0].tolist())
    assert len(starts) == 3
    assert min(starts.values()) > 240


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pairs": ()}, "patches need at least one picture"),
        ({"patch": 0}, "patch must be positive; got 0; at Patches"),
        ({"batch": -1}, "batch must be positive; got -1"),
        ({"flips": "vertical"}, "flips is one of none, horizontal, dihedral; got vertical"),
        ({"choose": "size"}, "choose is one of area, uniform; got size"),
        (
            {"patch": 12},
            r"smaller than a patch; got 160 x 40 pixels; at wide\. At least 48 x 48 are required",
        ),
        (
            {"pairs": [*SMALL, Pair("odd", noise(64, 64), noise(32, 32))]},
            "paired at the same scale, here 4; got LR 32 x 32, HR 64 x 64; at odd",
        ),
    ],
)
def test_patches_refuse(options, text):
    with pytest.raises(DataError, match=text):
        small(**options)


def test_steps_count_from_zero():
    with pytest.raises(DataError, match="steps count from 0; got -1"):
        small()(-1)


def test_repr_is_short():
    assert "pairs=<2 pictures>, patch=8" in repr(small())


def test_pairs_are_made_from_the_whole_picture():
    picture = noise(21, 30)
    (pair,) = make_pairs({"a": picture})

    assert torch.equal(picture[:, :20, :28], pair.hr)
    assert torch.equal(imresize(picture[:, :20, :28], 1 / 4), pair.lr)
    # Patches of a half must not carry the whole picture along when they are pickled.
    half = make_pairs(halves({"a": noise(64, 128)})[0])[0].hr
    assert half.numel() == half.untyped_storage().nbytes()
