"""The teacher's pictures: computed once, kept soundly, cut as HR pictures are."""

from __future__ import annotations

import math
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import trinas as tn
from examples.sr_trilevel import targets as module
from examples.sr_trilevel.data import Pair, Patches, halves, make_pairs
from examples.sr_trilevel.imaging import read_folder, shrink, to_uint8, to_unit
from examples.sr_trilevel.targets import Targets, load_targets, whole_target
from examples.sr_trilevel.teachers import BSRN, Teacher, load_teacher
from trinas._core.errors import CheckpointError, DataError, ShapeError


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


class Counted(nn.Module):
    """Enlarges by repeating pixels, brighter by `gain`; counts the pixels it has seen."""

    def __init__(self, scale: int = 4, gain: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.gain = nn.Parameter(torch.tensor(gain))
        self.seen: list[tuple[int, int]] = []

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(lr.shape[-2:]))
        return F.interpolate(lr, scale_factor=self.scale, mode="nearest") * self.gain


def teacher_of(network: nn.Module, scale: int = 4) -> Teacher:
    return Teacher("counted", network, scale=scale, input_range=1.0)


@pytest.fixture
def counted() -> Counted:
    return Counted(gain=0.5)


PAIRS = make_pairs({"wide": noise(96, 160), "square": noise(64, 64, 1), "tall": noise(128, 72, 2)})


# --- one picture ----------------------------------------------------------------------------------


def test_a_target_is_the_teachers_output_rounded_as_a_picture():
    torch.manual_seed(3)
    teacher = Teacher("BSRN", BSRN(16, 1), scale=4, input_range=1.0)
    lr = noise(18, 23)
    with torch.no_grad():
        output = teacher(to_unit(lr)[None])[0]
    target = whole_target(teacher, lr)

    assert (target.dtype, tuple(target.shape)) == (torch.uint8, (3, 72, 92))
    assert torch.equal(target, to_uint8(output))
    assert float((to_unit(target) - output.clamp(0, 1)).abs().max()) <= 0.5 / 255 + 1e-6


def test_values_are_clamped_and_no_number_is_refused(counted):
    bright = teacher_of(Counted(gain=3.0))
    assert whole_target(bright, torch.full((3, 16, 16), 200, dtype=torch.uint8)).unique() == 255
    with pytest.raises(DataError, match="cannot hold NaN"):
        whole_target(teacher_of(Counted(gain=math.nan)), noise(16, 16))
    with pytest.raises(ShapeError, match="at least 15"):
        whole_target(teacher_of(counted), noise(14, 30))


def test_the_teacher_is_left_as_it_was():
    class Moody(nn.Module):
        def forward(self, lr):
            return torch.full((1, 3, 64, 64), 1.0 if self.training else 0.2)

    teacher = teacher_of(Moody()).train()

    assert whole_target(teacher, noise(16, 16)).unique() == 51
    assert teacher.training


@pytest.mark.parametrize(("height", "width"), [(50, 90), (48, 48), (20, 131), (49, 16)])
def test_what_a_teacher_of_small_reach_makes_does_not_depend_on_tiles(height, width):
    """Three layers see 3 pixels far; tiles overlap by 8. Attention is another matter."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)]
    network = nn.Sequential(*layers, nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))
    teacher = teacher_of(network, scale=2)
    lr = noise(height, width)
    whole = whole_target(teacher, lr)
    tiled = whole_target(teacher, lr, tile=32, overlap=8)

    assert int((whole.int() - tiled.int()).abs().max()) <= 1  # sums in another order
    assert (whole != tiled).float().mean() < 1e-3


def test_memory_is_bounded_by_the_tile(counted):
    whole_target(teacher_of(counted), noise(100, 300), tile=64, overlap=16)

    assert set(counted.seen) == {(64, 64)}
    assert len(counted.seen) == 2 * 6


# --- computed once --------------------------------------------------------------------------------


def patches(targets: Callable[[Pair], torch.Tensor] | None, **options) -> Patches:
    settings = {"pairs": PAIRS, "patch": 8, "batch": 6, "flips": "dihedral", "targets": targets}
    return Patches(**(settings | options))


def test_every_picture_is_computed_once_however_many_ask(counted):
    """Two streams of batches, and other pairs of the same pictures."""
    targets = Targets(teacher_of(counted), digest="d")
    again = make_pairs({"wide": noise(96, 160), "square": noise(64, 64, 1)})
    for step in range(20):
        patches(targets)(step)
        patches(targets, stream="other", pairs=again)(step)

    assert sorted(counted.seen) == sorted(tuple(pair.lr.shape[-2:]) for pair in PAIRS)
    assert targets(again[0]) is targets(PAIRS[0])


def test_a_picture_is_computed_when_it_is_first_needed(counted):
    targets = Targets(teacher_of(counted), digest="d")
    patches(targets)
    assert counted.seen == []
    patches(targets, pairs=PAIRS[1:2])(0)

    assert counted.seen == [(16, 16)]


def test_threads_that_ask_at_once_get_one_picture(counted):
    targets = Targets(teacher_of(counted), digest="d")
    start = threading.Barrier(4)
    found = []

    def ask():
        start.wait()
        found.append(targets(PAIRS[0]))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 4
    assert all(target is found[0] for target in found)
    assert len(counted.seen) == 1


@pytest.mark.parametrize("flips", ["none", "horizontal", "dihedral"])
@given(step=st.integers(0, 10**6))
def test_patches_are_cut_from_targets_as_from_hr(flips, step):
    """Same places, flips and turns: where the teacher gives HR, so do the batches."""
    by_pair = {pair.name: pair.hr for pair in PAIRS}
    plain, cut = (
        patches(targets, flips=flips)(step) for targets in (None, lambda pair: by_pair[pair.name])
    )
    negative = patches(lambda pair: 255 - pair.hr, flips=flips)(step)

    assert torch.equal(plain[0], cut[0])
    assert torch.equal(plain[1], cut[1])
    assert torch.equal(to_uint8(negative[1]), 255 - to_uint8(plain[1]))


def test_patches_are_crops_of_the_whole_output(counted):
    """Every LR patch, and its target, lies at one place of one picture."""
    torch.manual_seed(1)
    teacher = Teacher("BSRN", BSRN(16, 1), scale=4, input_range=1.0)
    targets = Targets(teacher, digest="d")
    wholes = [whole_target(teacher, pair.lr) for pair in PAIRS]
    lr, target = patches(targets, flips="none", batch=12)(5)

    for small, large in zip(to_uint8(lr), to_uint8(target)):
        places = [
            (whole, y, x)
            for pair, whole in zip(PAIRS, wholes)
            for y in range(pair.lr.shape[-2] - 7)
            for x in range(pair.lr.shape[-1] - 7)
            if torch.equal(pair.lr[:, y : y + 8, x : x + 8], small)
        ]
        ((whole, y, x),) = places
        assert torch.equal(whole[:, 4 * y : 4 * y + 32, 4 * x : 4 * x + 32], large)


def test_batches_stay_a_function_of_the_step(counted):
    """In any order, by another object, and in the background."""
    first, second = (patches(Targets(teacher_of(counted), digest="d")) for _ in range(2))
    forwards = {step: first(step) for step in range(12)}
    with tn.prefetch(second) as ahead:
        for step in (11, 3, 4, 5, 0, 9):
            for a, b in zip(forwards[step], ahead(step)):
                assert torch.equal(a, b)


def test_no_pixel_leaks_between_halves():
    """A picture is cut before it is shrunk and enlarged: other pixels there change nothing here."""
    torch.manual_seed(0)
    teacher = Teacher("BSRN", BSRN(16, 1), scale=4, input_range=1.0)
    picture = noise(64, 160)
    changed = picture.clone()
    changed[:, :, 80:] = 255 - changed[:, :, 80:]
    parts = [
        Targets(teacher, digest="d")(make_pairs(halves({"a": image})[0])[0])
        for image in (picture, changed)
    ]
    whole = whole_target(teacher, shrink(picture, 4)[0])

    assert torch.equal(*parts)
    assert not torch.equal(whole[:, :, :80], parts[0])  # which is why halves are not cut from it


def test_pictures_of_another_scale_are_refused(counted):
    (pair,) = make_pairs({"a": noise(64, 64)}, scale=2)

    with pytest.raises(DataError, match=r"here 4 times; got LR \(32, 32\), HR \(64, 64\); at a"):
        Targets(teacher_of(counted), digest="d")(pair)


def test_patches_pickle_as_long_as_their_targets_do():
    again = pickle.loads(pickle.dumps(patches(None)))

    assert torch.equal(again(3)[1], patches(None)(3)[1])


# --- kept on disk ---------------------------------------------------------------------------------


def kept(folder: Path, *, digest: str = "d", gain: float = 0.5) -> tuple[Targets, Counted]:
    network = Counted(gain=gain)
    return Targets(teacher_of(network), digest=digest, folder=folder), network


@pytest.fixture
def filled(tmp_path) -> Path:
    """A folder in which the targets of all pictures are."""
    targets, network = kept(tmp_path / "deep" / "targets")
    for pair in PAIRS:
        targets(pair)
    assert len(network.seen) == len(PAIRS)
    return tmp_path / "deep" / "targets"


def test_a_second_run_computes_nothing(filled, capsys):
    targets, network = kept(filled)
    again = [targets(pair) for pair in PAIRS]

    assert network.seen == []
    assert all(
        torch.equal(target, whole_target(teacher_of(Counted(gain=0.5)), pair.lr))
        for target, pair in zip(again, PAIRS)
    )
    assert [path.suffix for path in filled.iterdir()] == [".rgb"] * 3
    assert capsys.readouterr().out == ""


def test_batches_from_disk_are_the_batches_computed(filled):
    from_disk = patches(kept(filled)[0])
    computed = patches(Targets(teacher_of(Counted(gain=0.5)), digest="d"))

    for step in range(8):
        assert all(torch.equal(a, b) for a, b in zip(from_disk(step), computed(step)))


def test_another_teacher_picture_scale_or_way_misses(filled, monkeypatch):
    other, network = kept(filled, digest="e", gain=0.25)
    assert int(other(PAIRS[0]).max()) < 70
    assert len(network.seen) == 1

    targets, network = kept(filled)
    picture = PAIRS[0].hr.clone()
    picture[:, :16, :16] ^= 1
    targets(make_pairs({"wide": picture})[0])
    assert len(network.seen) == 1
    targets(make_pairs({"renamed": PAIRS[0].hr})[0])
    assert len(network.seen) == 1  # only pixels count

    network = Counted(scale=2)
    targets = Targets(teacher_of(network, scale=2), digest="d", folder=filled)
    lr = PAIRS[0].lr
    targets(Pair("wide", noise(lr.shape[-2] * 2, lr.shape[-1] * 2), lr))
    assert len(network.seen) == 1

    for name, value in (("VERSION", 0), ("TILE", 256), ("OVERLAP", 8)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            targets, network = kept(filled)
            targets(PAIRS[0])
        assert len(network.seen) == 1, name

    assert len(list(filled.iterdir())) == 3 + 6
    targets, network = kept(filled)
    targets(PAIRS[0])
    assert network.seen == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:500] + bytes([content[500] ^ 1]) + content[501:],
        lambda content: bytes([content[0] ^ 128]) + content[1:],
        lambda content: bytes(len(content)),
    ],
    ids=["cut short", "too long", "empty", "seal only", "a pixel", "the seal", "zeros"],
)
def test_a_damaged_file_is_computed_anew(filled, capsys, damage):
    broken = sorted(filled.iterdir())[1]
    sound = broken.read_bytes()
    broken.write_bytes(damage(sound))
    targets, network = kept(filled)
    for pair in PAIRS:
        assert torch.equal(targets(pair), whole_target(teacher_of(Counted(gain=0.5)), pair.lr))

    assert len(network.seen) == 1
    assert capsys.readouterr().out == f"{broken}: damaged; this target is computed anew\n"
    assert broken.read_bytes() == sound


def test_a_file_under_the_name_of_another_is_no_target(tmp_path, capsys):
    """Of the same size: only the seal tells."""
    pairs = make_pairs({"a": noise(64, 64, 5), "b": noise(64, 64, 6)})
    targets, _ = kept(tmp_path)
    expected = [targets(pair) for pair in pairs]
    one, other = tmp_path.iterdir()
    one.write_bytes(other.read_bytes())
    targets, network = kept(tmp_path)

    assert all(torch.equal(targets(pair), target) for pair, target in zip(pairs, expected))
    assert len(network.seen) == 1
    assert "damaged" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_computed_anew(filled, monkeypatch, capsys):
    def unreadable(*_):
        raise OSError("Input/output error")

    monkeypatch.setattr(module.np, "fromfile", unreadable)
    targets, network = kept(filled)
    targets(PAIRS[0])

    assert len(network.seen) == 1
    assert "Input/output error; this target is computed anew" in capsys.readouterr().out


def test_a_target_that_was_being_written_when_a_run_died_does_no_harm(filled):
    """It has another name until it is whole."""
    whole = sorted(filled.iterdir())[0]
    whole.replace(whole.with_suffix(".1.part"))
    targets, network = kept(filled)
    for pair in PAIRS:
        targets(pair)

    assert len(network.seen) == 1
    assert whole.exists()


def test_what_cannot_be_written_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("")
    targets, _ = kept(tmp_path / "file" / "targets")

    with pytest.raises(OSError, match="file"):
        targets(PAIRS[0])


# --- from a file of weights -----------------------------------------------------------------------


def test_targets_of_a_file_of_weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "w.pth"
    torch.save(BSRN(16, 1).state_dict(), path)
    cpu = torch.device("cpu")
    targets = load_targets(path, scale=4, device=cpu, folder=tmp_path / "t")

    assert torch.equal(targets(PAIRS[1]), whole_target(load_teacher(path), PAIRS[1].lr))
    digest = targets.digest
    torch.save(BSRN(16, 1).state_dict(), path)
    assert load_targets(path, scale=4, device=cpu).digest != digest
    with pytest.raises(CheckpointError, match=r"enlarges 2 times; got BSRN for x4; at .*w\.pth"):
        load_targets(path, scale=2, device=cpu)
    with pytest.raises(DataError, match=r"kept in a folder; got a file; at .*w\.pth"):
        load_targets(path, scale=4, device=cpu, folder=path)


@pytest.mark.skipif(
    "TRINAS_SR_DATA" not in os.environ, reason="TRINAS_SR_DATA names no folder with weights"
)
@pytest.mark.parametrize("file", ["net_g_BSRN_x4.pth", "rlfn_x4.pth"])
def test_whole_pictures_are_better_targets_than_patches(file):
    """Closer to HR than what the teacher makes of patches; tiles are hardly worse than none."""
    root = Path(os.environ["TRINAS_SR_DATA"])
    images, _ = read_folder(root / "benchmark" / "Set14")
    teacher = load_teacher(root / "weights" / file)
    lr, hr = shrink(images["monarch.png"], 4)

    def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
        return -10 * math.log10(float((to_unit(a) - to_unit(b)).square().mean()))

    whole = whole_target(teacher, lr)
    tiled = whole_target(teacher, lr, tile=128, overlap=32)
    small = whole_target(teacher, lr, tile=32, overlap=0)

    assert psnr(whole, hr) > psnr(small, hr) + 0.05
    assert psnr(tiled, whole) > 45
    assert psnr(small, whole) < 45
