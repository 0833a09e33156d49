"""Pack training pictures into one file of a given size, for machines that take one upload.

    python -m examples.sr_trilevel.pack DIV2K --out div2k.zip --megabytes 60 --crop 480

The file is a plain zip of pictures, in `train/` and `held_out/`, with `manifest.json`, which says
how they were chosen and stored. Which pictures are held out is decided as for a folder (DIV2K's
layout, or the last tenth by name); they get a tenth of the megabytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
from PIL import Image, features
from torch import Tensor

from examples.sr_trilevel.command import ending, parser_of
from examples.sr_trilevel.folders import parts_of, sizes_of
from examples.sr_trilevel.imaging import existing_folder, load_image
from examples.sr_trilevel.packed import PARTS, Piece, overhead, write_pack
from trinas import errors

QUALITY = 95
HELD_OUT_SHARE = 0.1

FORMS = ("webp", "png", "jpeg", "original")
"""How pictures are stored: two lossless ways, a lossy one, or the files as they are."""

# So many pieces in a row that do not fit end the search for one that does.
_MISSES = 8

Size = tuple[int, int]
Box = tuple[int, int, int, int]


@attrs.frozen(kw_only=True)
class Packing:
    """What is chosen, and how it is stored.

    Args:
        megabytes: most that the file may take, in 10^6 bytes.
        form: `"webp"` (lossless, smallest), `"png"` (lossless), `"jpeg"` (lossy, colours at full
            resolution) or `"original"` (whole files as they are: best where they are JPEG).
        quality: of JPEG, 1 to 100; 95 where None.
        crop: side of the square pieces that pictures are cut into, in pixels: more pictures are
            in the file then. Whole pictures where None.
        min_side: pictures with a shorter side are left out; so would be their pieces.
        seed: of the order in which pictures and pieces are taken.

    Raises:
        ConfigError: an option outside these, or two that contradict each other.
    """

    megabytes: float
    form: str = "webp"
    quality: int | None = None
    crop: int | None = None
    min_side: int = 1
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        """Refuse what no file can be made with."""
        rules = (
            (self.megabytes > 0, "a file has more than 0 megabytes", self.megabytes),
            (self.form in FORMS, f"pictures are stored as {', '.join(FORMS)}", self.form),
            (
                self.quality is None or (self.form == "jpeg" and 1 <= self.quality <= 100),
                "a quality, 1 to 100, is for jpeg",
                f"{self.quality} for {self.form}",
            ),
            (
                self.crop is None or self.crop >= max(1, self.min_side),
                "a crop is no smaller than the shortest side allowed",
                f"{self.crop} < {self.min_side}",
            ),
            (
                self.crop is None or self.form != "original",
                "files as they are cannot be cropped",
                f"crop {self.crop}",
            ),
            (
                self.form != "webp" or features.check("webp"),
                "webp needs a Pillow that knows it",
                "one that does not",
            ),
        )
        for kept, rule, got in rules:
            if not kept:
                raise errors.ConfigError(rule, got=got, at="Packing")


@attrs.frozen
class Packed:
    """What has come into a file: pieces, pixels, bytes, and what was left out.

    Attributes:
        pieces: number of pieces, by part.
        pixels: of these, by part.
        size: of the file, in bytes.
        small: names of pictures left out as too small.
        skipped: `(file, reason)` for each that cannot be used.
    """

    pieces: Mapping[str, int]
    pixels: Mapping[str, int]
    size: int
    small: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        """All of it in one line."""
        parts = (
            f"{part}: {self.pieces[part]} pieces ({self.pixels[part] / 1e6:.2f} megapixels)"
            for part in PARTS
        )
        left = [f"{len(self.small)} too small"] * bool(self.small)
        left += [f"{len(self.skipped)} skipped"] * bool(self.skipped)
        return ", ".join([*parts, *left, f"{self.size / 1e6:.2f} MB"])


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 0, or 2 after an error, or 130 when interrupted."""
    options = _parser().parse_args(arguments)
    return ending(lambda: _go(options))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("pack", __doc__)
    add = parser.add_argument
    add("folder", metavar="DIR", help="folder of pictures (DIV2K's layout is known)")
    add("--out", metavar="FILE", required=True, help="the file to write (data.zip)")
    add("--megabytes", type=float, default=60.0, metavar="M", help="its most (default: 60)")
    add("--format", choices=FORMS, default="webp", help="how to store (default: webp, lossless)")
    add("--quality", type=int, metavar="Q", help=f"of jpeg (default: {QUALITY})")
    add("--crop", type=int, metavar="N", help="cut pictures into squares of N pixels")
    add("--min-side", type=int, default=1, metavar="N", help="leave out smaller pictures")
    add("--seed", type=int, default=0, help="of what is chosen (default: 0)")
    add("--skip-bad", action="store_true", help="leave out pictures that cannot be read")
    return parser


def _go(options: argparse.Namespace) -> None:
    packing = Packing(
        megabytes=options.megabytes,
        form=options.format,
        quality=options.quality,
        crop=options.crop,
        min_side=options.min_side,
        seed=options.seed,
    )
    on_bad = "skip" if options.skip_bad else "raise"
    packed = pack(options.folder, options.out, packing, on_bad=on_bad)
    for name, reason in packed.skipped:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    print(f"{options.out}: {packed}")


# --- writing --------------------------------------------------------------------------------------


def pack(
    folder: str | Path,
    out: str | Path,
    packing: Packing,
    *,
    on_bad: Literal["raise", "skip"] = "raise",
) -> Packed:
    """Write one file with as many pictures of a folder as fit, or as many pieces of them.

    Pictures are taken in an order drawn from the seed and their names; with a crop, one piece of
    each, then a second one of each, and so on, no two of which share a pixel. The same folder and
    options give the same file, byte for byte.

    Args:
        folder: of pictures; which are held out is decided as `folder_images` does.
        out: the file; what lies there stays until the new one is whole.
        packing: what is chosen, and how it is stored.
        on_bad: `"raise"` stops at the first file that cannot be read, `"skip"` leaves it out.

    Raises:
        DataError: there are no pictures, one cannot be read, two would be stored under one name,
            or nothing fits in the megabytes.
    """
    root = existing_folder(folder)
    settings = _settings(packing, root.resolve().name)
    budget = int(packing.megabytes * 1e6) - overhead(settings)
    room = {"held_out": int(budget * HELD_OUT_SHARE), "train": budget}
    small: list[str] = []
    bad: dict[str, str] | None = {} if on_bad == "skip" else None
    sizes: dict[Path, Size] = {}

    def measured(files: Mapping[str, Path]) -> dict[str, Size]:
        new = {name: file for name, file in files.items() if file not in sizes}
        sizes.update({new[name]: size for name, size in _sizes(new, bad).items()})
        return {name: sizes[file] for name, file in files.items() if file in sizes}

    def usable(files: Mapping[str, Path]) -> dict[str, Path]:
        found = measured(files)
        small.extend(name for name, size in found.items() if min(size) < packing.min_side)
        return {name: files[name] for name, s in found.items() if min(s) >= packing.min_side}

    chosen: dict[str, list[Piece]] = {}
    for part, files in parts_of(root, usable).items():
        own = measured(files)
        chosen[part] = _filled(_pieces(part, files, own, packing, bad), room[part])
        if not chosen[part]:
            raise errors.DataError(
                f"a file holds pictures of both parts, but none fits into {part}",
                got=f"{packing.megabytes:g} megabytes, {len(own)} usable pictures",
                at=root,
                fix="Give more megabytes, or a smaller crop.",
            )
        room["train"] -= sum(piece.cost for piece in chosen[part])
    ordered = [piece for part in PARTS for piece in chosen[part]]
    size = write_pack(Path(out).expanduser(), settings, ordered)
    return Packed(
        pieces={part: len(chosen[part]) for part in PARTS},
        pixels={part: sum(piece.pixels for piece in chosen[part]) for part in PARTS},
        size=size,
        small=tuple(small),
        skipped=tuple((bad or {}).items()),
    )


def _settings(packing: Packing, folder: str) -> dict[str, Any]:
    """What the manifest says of the choice."""
    settings = attrs.asdict(packing)
    if packing.form == "jpeg":
        settings["quality"] = packing.quality or QUALITY
    return {"folder": folder, "lossless": packing.form in ("webp", "png"), **settings}


def _sizes(files: Mapping[str, Path], bad: dict[str, str] | None) -> dict[str, Size]:
    sizes, skipped = sizes_of(files, on_bad="raise" if bad is None else "skip")
    if bad is not None:
        bad.update(skipped)
    return sizes


def _filled(pieces: Iterator[Piece], room: int) -> list[Piece]:
    """Pieces in their order, as long as there is room for them; sorted by name.

    Raises:
        DataError: two are stored under one name.
    """
    kept: dict[str, Piece] = {}
    misses = 0
    for piece in pieces:
        if piece.cost > room:
            misses += 1
            if misses == _MISSES:
                break
            continue
        if piece.file in kept:
            raise errors.DataError(
                "every picture is stored under a name of its own",
                got=f"{kept[piece.file].source} and {piece.source}, both as {piece.file}",
                fix="Rename one of them.",
            )
        kept[piece.file] = piece
        misses = 0
        room -= piece.cost
    return [kept[name] for name in sorted(kept)]


def _pieces(
    part: str,
    files: Mapping[str, Path],
    sizes: Mapping[str, Size],
    packing: Packing,
    bad: dict[str, str] | None,
) -> Iterator[Piece]:
    """Every piece, encoded when it is asked for; those of bad pictures are left out."""
    for name, box in _order(sizes, packing):
        if bad is not None and name in bad:
            continue
        try:
            picture = load_image(files[name])
        except errors.DataError as error:
            if bad is None:
                raise
            bad[name] = str(error)
            continue
        yield _piece(f"{part}/{name}", files[name], _cut(picture, box), box, packing)


def _order(sizes: Mapping[str, Size], packing: Packing) -> Iterator[tuple[str, Box | None]]:
    """Which pieces, one of each picture before a second one of any; None is a whole picture."""
    names = sorted(sizes, key=lambda name: _drawn(packing.seed, name))
    boxes = {name: _boxes(name, sizes[name], packing) for name in names}
    for turn in range(max(map(len, boxes.values()), default=0)):
        for name in names:
            if turn < len(boxes[name]):
                yield name, boxes[name][turn]


def _boxes(name: str, size: Size, packing: Packing) -> list[Box | None]:
    """Where a picture is cut: a grid in its middle, in an order drawn from the seed."""
    crop = packing.crop
    if crop is None or max(size) <= crop:
        return [None]
    across, down = (_stretches(side, min(side, crop)) for side in size)
    boxes = [(left, top, right, bottom) for top, bottom in down for left, right in across]
    boxes.sort(key=lambda box: _drawn(packing.seed, name, *box))
    return [*boxes]


def _stretches(side: int, length: int) -> list[tuple[int, int]]:
    """As many stretches as a side holds; what is left over is left at both ends."""
    first = side % length // 2
    return [(start, start + length) for start in range(first, side - length + 1, length)]


def _cut(picture: Tensor, box: Box | None) -> Tensor:
    if box is None:
        return picture
    left, top, right, bottom = box
    return picture[:, top:bottom, left:right]


def _drawn(*what: object) -> bytes:
    return hashlib.sha256("/".join(map(str, what)).encode()).digest()


def _piece(name: str, file: Path, picture: Tensor, box: Box | None, packing: Packing) -> Piece:
    if packing.form == "original":
        content, suffix = file.read_bytes(), file.suffix
    else:
        content, suffix = _encoded(picture, packing, file), f".{packing.form}"
    place = "" if box is None else f"_{box[0]}_{box[1]}"
    return Piece(
        file=f"{name.removesuffix(file.suffix)}{place}{suffix}",
        source=name.partition("/")[2],
        box=box,
        content=content,
        pixels=picture.shape[-1] * picture.shape[-2],
    )


def _encoded(picture: Tensor, packing: Packing, file: Path) -> bytes:
    options: dict[str, Any] = {
        "webp": {"lossless": True, "quality": 100, "method": 4},
        "png": {"optimize": True},
        "jpeg": {"quality": packing.quality or QUALITY, "subsampling": 0, "optimize": True},
    }[packing.form]
    buffer = io.BytesIO()
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    try:
        image.save(buffer, format=packing.form, **options)
    except (OSError, ValueError) as error:  # WebP holds 16,383 pixels a side
        raise errors.DataError(
            f"a picture can be stored as {packing.form}",
            got=f"{image.width} x {image.height} pixels: {error}",
            at=file,
            fix="Cut it (--crop), or store it otherwise (--format).",
        ) from None
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
