"""Pictures to train on, and batches of patches as a pure function of the step.

A set of pictures is a mapping from name to `uint8` tensor `[3, H, W]`, in sorted order of names.
Everything is decoded once and kept in memory at 3 bytes a pixel (DIV2K's 800 training pictures
take 6.6 GB, and 0.4 GB more for their LR partners).

Shapes: HR `3 H W`, LR `3 h w` with `H = scale * h`; batches `B 3 p p` and `B 3 p*scale p*scale`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Literal

import attrs
import torch
from torch import Tensor

from examples.sr_trilevel.imaging import (
    existing_folder,
    load_image,
    read_folder,
    shrink,
    to_unit,
    too_small,
)
from trinas import errors

Images = Mapping[str, Tensor]

_Turn = tuple[tuple[int, ...], bool]

# The colour photographs of everyday scenes among the pictures inside scikit-image's wheel. Left
# out: the right view of the motorcycle (the same scene again: it adds weight, not variety, and
# would leak one half of the data into the other); Hubble's deep field, the retina and the stained
# tissue (instrument pictures, with statistics unlike a photograph's; the first is mostly black);
# drawings, gray pictures and textures.
_BUILTIN = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}

DIV2K_TRAIN = "DIV2K_train_HR"
DIV2K_VALID = "DIV2K_valid_HR"


@attrs.frozen(eq=False)
class Split:
    """Pictures to train on, pictures never trained on, and what was left out.

    Args:
        train: the training pictures.
        held_out: the pictures for scores; none of them is in `train`.
        skipped: `(file, reason)` for each file that was left out as unusable.
    """

    train: Images
    held_out: Images
    skipped: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """How much there is, in one line."""
        line = f"training on {_amount(self.train)}, holding out {_amount(self.held_out)}"
        return line + f", {len(self.skipped)} files skipped" * bool(self.skipped)

    def listing(self) -> str:
        """Names and sizes of all pictures: what tells a folder from another."""
        parts = (self.train, self.held_out)
        return repr([[(name, *image.shape) for name, image in part.items()] for part in parts])


def builtin_images() -> dict[str, Tensor]:
    """The photographs that scikit-image carries in its wheel, for runs without any data.

    Read from the package's own folder, never downloaded: five colour photographs, 1.3 megapixels.
    Enough to see a search work, too few for scores that compare with published ones.

    Raises:
        DataError: scikit-image is not installed, or its wheel lacks one of the files.

    >>> list(builtin_images())
    ['astronaut', 'chelsea', 'coffee', 'motorcycle', 'rocket']
    """
    try:
        folder = resources.files("skimage.data")
    except ModuleNotFoundError:
        raise errors.DataError(
            "the built-in pictures are those of scikit-image",
            got="no module named skimage",
            fix="Install scikit-image, or give a folder of pictures.",
        ) from None
    with resources.as_file(folder) as path:
        return {name: load_image(path / file) for name, file in _BUILTIN.items()}


def split(images: Images, held_out: Sequence[str] = ("astronaut",)) -> Split:
    """Set pictures apart by name, so that training never sees them.

    Args:
        images: all pictures.
        held_out: names to set apart.

    Raises:
        DataError: a name is not among the pictures, or none is left to train on.

    >>> parts = split({"a": torch.zeros(3, 8, 8), "b": torch.zeros(3, 8, 8)}, held_out=["b"])
    >>> list(parts.train), list(parts.held_out)
    (['a'], ['b'])
    """
    if isinstance(held_out, str):
        held_out = (held_out,)
    for name in held_out:
        if name not in images:
            near = difflib.get_close_matches(name, images, n=3) or list(images)[:3]
            raise errors.DataError(
                "a picture to hold out must be among the pictures",
                got=name,
                fix=f"Near it: {', '.join(near)}.",
            )
    train = {name: image for name, image in images.items() if name not in held_out}
    if not train:
        raise errors.DataError("no picture is left to train on", got=f"all {len(images)} held out")
    return Split(train=train, held_out={name: images[name] for name in sorted(set(held_out))})


def folder_images(
    path: str | Path,
    *,
    held_out: Sequence[str] | None = None,
    min_size: int = 1,
    on_bad: Literal["raise", "skip"] = "raise",
) -> Split:
    """Training and held-out pictures from any folder.

    What is held out, by the first rule that applies:

    1. the names in `held_out` (paths below the folder, such as `"city/0001.png"`);
    2. DIV2K's layout: `DIV2K_train_HR` is trained on and `DIV2K_valid_HR` held out;
    3. the last tenth of the sorted names, at least one.

    A folder is read with all folders below it, except hidden ones. In DIV2K's layout only those
    two folders are read, so that LR copies beside them are not taken for pictures.

    Args:
        path: the folder.
        held_out: see above.
        min_size: shortest side allowed, in pixels: `patch * scale` for training on patches.
            Checked once, on the files' headers, before any is decoded.
        on_bad: `"raise"` refuses the folder at its first bad file; `"skip"` leaves bad files out
            and lists them in `Split.skipped`. Bad is what cannot be read or is too small.

    Raises:
        DataError: the folder is missing or without (usable) pictures; a file is bad and `on_bad`
            is `"raise"`; a held-out name is unknown; nothing is left to train on.
    """
    root = existing_folder(path)
    train_root, valid_root = root / DIV2K_TRAIN, root / DIV2K_VALID
    if held_out is None and train_root.is_dir() and valid_root.is_dir():
        train, bad_train = read_folder(train_root, min_size=min_size, on_bad=on_bad)
        valid, bad_valid = read_folder(valid_root, on_bad=on_bad)
        return Split(train=train, held_out=valid, skipped=bad_train + bad_valid)
    folder = train_root if train_root.is_dir() else root
    images, skipped = read_folder(folder, min_size=min_size, on_bad=on_bad)
    if held_out is None:
        if len(images) == 1:
            raise errors.DataError(
                "one picture cannot be both trained on and held out",
                got=next(iter(images)),
                at=folder,
                fix="Add pictures, or name what to hold out.",
            )
        held_out = last_tenth(images)
    return attrs.evolve(split(images, held_out), skipped=skipped)


def last_tenth(names: Iterable[str]) -> list[str]:
    """What is held out where nothing says otherwise: of names in order the last tenth, or one.

    >>> last_tenth("abc"), len(last_tenth(map(str, range(219))))
    (['c'], 21)
    """
    names = list(names)
    return names[-max(1, len(names) // 10) :]


def halves(
    images: Images, *, by_image_from: int = 16, min_size: int = 1
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two equal parts of the training pictures that share no pixel: chi_1 and chi_2.

    Bilevel search trains weights on one and the architecture on the other. With `by_image_from`
    pictures or more, every other one in order of names goes to each part. With fewer, every
    picture is cut across its longer side and each part gets one half; which of them gets the first
    half alternates, so that neither is given all the skies. LR pictures must be made after the
    cut, as `make_pairs` does: made before, each half's edge would hold light from the other.

    Args:
        images: at least one picture.
        by_image_from: number of pictures from which whole pictures are dealt out.
        min_size: shortest side that a picture which is cut must leave in each part, in pixels:
            `patch * scale` for patches.

    Raises:
        DataError: there are no pictures, or one would be cut too small (named, with its size).

    >>> first, second = halves({"a": torch.zeros(3, 8, 13, dtype=torch.uint8)})
    >>> first["a"].shape, second["a"].shape
    (torch.Size([3, 8, 6]), torch.Size([3, 8, 6]))
    """
    if not images:
        raise errors.DataError("two halves need at least one picture", got=0, at="halves")
    names = sorted(images)
    if len(names) >= max(2, by_image_from):
        dealt = names[::2], names[1::2]
        return {n: images[n] for n in dealt[0]}, {n: images[n] for n in dealt[1]}
    parts: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for position, name in enumerate(names):
        image = images[name]
        dim = -1 if image.shape[-1] >= image.shape[-2] else -2
        size = image.shape[dim] // 2
        if size < min_size:
            raise _too_small_to_cut(name, image, min_size, by_image_from)
        # The first and the last `size`: of an odd side the middle line is left out.
        cuts = image.narrow(dim, 0, size), image.narrow(dim, image.shape[dim] - size, size)
        for which, cut in enumerate(cuts):
            parts[(position + which) % 2][name] = cut
    return parts


def _too_small_to_cut(name: str, image: Tensor, least: int, whole_from: int) -> errors.DataError:
    return errors.DataError(
        "a picture that is cut in two must hold a patch in each half",
        got=f"{image.shape[-1]} x {image.shape[-2]} pixels",
        at=name,
        fix=f"Its longer side needs {2 * least} pixels: remove it, or give at least "
        f"{whole_from} pictures to train on, which are dealt out whole.",
    )


@attrs.frozen(eq=False)
class Pair:
    """One picture at both sizes: `hr` `uint8 [3, H, W]`, `lr` `uint8 [3, H / scale, W / scale]`."""

    name: str
    hr: Tensor
    lr: Tensor


def make_pairs(images: Images, *, scale: int = 4) -> tuple[Pair, ...]:
    """Shrink every picture once, as a whole: MATLAB bicubic, rounded to 8 bits.

    Shrinking patches instead would give other pixels near their borders than a test picture has.

    Raises:
        DataError: a picture is smaller than `scale`.

    >>> make_pairs({"a": torch.zeros(3, 9, 8, dtype=torch.uint8)})[0].lr.shape
    torch.Size([3, 2, 2])
    """
    pairs = []
    for name, image in images.items():
        lr, hr = shrink(image, scale)
        pairs.append(Pair(name, hr.contiguous(), lr.contiguous()))
    return tuple(pairs)


@attrs.frozen(eq=False, kw_only=True)
class Patches:
    """Random aligned patches: `patches(step)` gives the batch of a step, and nothing else does.

    The draws come from a generator seeded by `(seed, stream, step)`. There is no position to save:
    a run that resumes at step N gets the batches it would have got, and two streams ("weights" and
    "arch", say) are independent whatever the order they are asked in. Instances pickle, given that
    their `targets` do.

    Args:
        pairs: from `make_pairs`; shared by as many streams as wanted.
        patch: side of an LR patch.
        batch: patches in a batch.
        seed: of the run.
        stream: a name that sets these draws apart from others of the same seed.
        flips: `"none"`, `"horizontal"`, or `"dihedral"` for all eight flips and turns.
        choose: `"area"` picks a picture with probability proportional to its pixels, so every
            place is about as likely as any other; `"uniform"` picks every picture equally often.
        targets: what takes the place of the HR picture of a pair: a picture of its size and
            dtype, the same whenever it is asked for. The HR picture itself where None.

    Raises:
        DataError: an option outside these, no pictures, or one smaller than a patch (named, with
            its size and the size required).

    >>> patches = Patches(pairs=make_pairs(split(builtin_images()).train), patch=32, batch=4)
    >>> lr, hr = patches(0)
    >>> tuple(lr.shape), tuple(hr.shape), bool(torch.equal(patches(0)[1], hr))
    ((4, 3, 32, 32), (4, 3, 128, 128), True)
    """

    pairs: tuple[Pair, ...] = attrs.field(
        converter=tuple, repr=lambda pairs: f"<{len(pairs)} pictures>"
    )
    patch: int = 48
    batch: int = 16
    seed: int = 0
    stream: str = "train"
    flips: Literal["none", "horizontal", "dihedral"] = "horizontal"
    choose: Literal["area", "uniform"] = "area"
    targets: Callable[[Pair], Tensor] | None = None
    scale: int = attrs.field(init=False)
    _shares: Tensor = attrs.field(init=False, repr=False)
    _room: Tensor = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Check once, and work out what every batch needs."""
        self._check_options()
        first = self.pairs[0]
        object.__setattr__(self, "scale", first.hr.shape[-1] // first.lr.shape[-1])
        for pair in self.pairs:
            _check_pair(pair, self.patch, self.scale)
        sizes = torch.tensor([pair.lr.shape[-2:] for pair in self.pairs], dtype=torch.float64)
        weights = sizes.prod(1) if self.choose == "area" else torch.ones(len(sizes)).double()
        object.__setattr__(self, "_shares", weights.cumsum(0) / weights.sum())
        object.__setattr__(self, "_room", sizes - self.patch + 1)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of `step`: LR `[B, 3, p, p]` and target `[B, 3, p*scale, p*scale]` in [0, 1].

        LR and target of a pair are cut at the same place, and flipped and turned alike.
        """
        generator = torch.Generator().manual_seed(_seed(self.seed, self.stream, step))
        draws = torch.rand(self.batch, 6, dtype=torch.float64, generator=generator)
        # The last share may fall short of 1 by a rounding error.
        index = torch.searchsorted(self._shares, draws[:, 0].contiguous(), right=True)
        index = index.clamp(max=len(self.pairs) - 1)
        corners = (draws[:, 1:3] * self._room[index]).long().tolist()
        turns = _turns(draws[:, 3:] < 0.5, self.flips)
        lr, targets = [], []
        for i, corner, turn in zip(index.tolist(), corners, turns):
            pair = self.pairs[i]
            target = pair.hr if self.targets is None else self.targets(pair)
            lr.append(self._cut(pair.lr, corner, turn, 1))
            targets.append(self._cut(target, corner, turn, self.scale))
        return to_unit(torch.stack(lr)), to_unit(torch.stack(targets))

    def _cut(self, image: Tensor, corner: list[int], turn: _Turn, scale: int) -> Tensor:
        (y, x), side = (place * scale for place in corner), self.patch * scale
        patch = image[:, y : y + side, x : x + side]
        axes, transposed = turn
        # A flip of one patch copies that patch; of a batch under a mask, the batch several times.
        patch = patch.flip(axes) if axes else patch
        return patch.transpose(-1, -2) if transposed else patch

    def _check_options(self) -> None:
        if not self.pairs:
            raise errors.DataError("patches need at least one picture", got=0, at="Patches")
        for field, least in (("patch", 1), ("batch", 1)):
            if getattr(self, field) < least:
                raise errors.DataError(
                    f"{field} must be positive", got=getattr(self, field), at="Patches"
                )
        for field, known in (
            ("flips", ("none", "horizontal", "dihedral")),
            ("choose", ("area", "uniform")),
        ):
            if getattr(self, field) not in known:
                raise errors.DataError(
                    f"{field} is one of {', '.join(known)}", got=getattr(self, field), at="Patches"
                )


def _turns(coins: Tensor, flips: str) -> list[_Turn]:
    """What to do with each patch: the axes to flip, and whether to transpose. Coins: `[B, 3]`."""
    if flips == "none":
        return [((), False)] * len(coins)
    whole = flips == "dihedral"
    return [
        ((-1,) * across + (-2,) * (down and whole), turn and whole)
        for across, down, turn in coins.tolist()
    ]


def _seed(seed: int, stream: str, step: int) -> int:
    """63 bits that differ, for all purposes, between any two triples."""
    if step < 0:
        raise errors.DataError("steps count from 0", got=step, at="Patches")
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _check_pair(pair: Pair, patch: int, scale: int) -> None:
    height, width = pair.lr.shape[-2:]
    if (height * scale, width * scale) != tuple(pair.hr.shape[-2:]):
        raise errors.DataError(
            f"all pictures must be paired at the same scale, here {scale}",
            got=f"LR {width} x {height}, HR {pair.hr.shape[-1]} x {pair.hr.shape[-2]}",
            at=pair.name,
        )
    if min(height, width) < patch:
        raise too_small(pair.name, pair.hr.shape[-1], pair.hr.shape[-2], patch * scale)


def _amount(images: Images) -> str:
    pixels = sum(image.shape[-1] * image.shape[-2] for image in images.values())
    plural = "s" * (len(images) != 1)
    return f"{len(images)} image{plural} ({pixels / 1e6:.2f} megapixels)"
