"""One file of pictures: a zip with a manifest, sealed by a digest of all its bytes.

`pack` chooses what comes into it. Any zip tool opens it.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from examples.sr_trilevel.data import Split
from examples.sr_trilevel.imaging import too_small
from examples.sr_trilevel.writing import writing
from trinas import errors

VERSION = 1
"""Of the format. Raise it whenever `packed_images` has to read files another way."""

PARTS = ("train", "held_out")

_MANIFEST = "manifest.json"
_SEAL = hashlib.sha256().digest_size * 2
# A zip file spends 30 + name + content and 46 + name on a member, and 22 + comment on itself.
_MEMBER = 30 + 46
_END = 22 + _SEAL
# What a piece takes in the manifest besides its own text: indent, comma and line end.
_LINE = 6


@attrs.frozen
class Piece:
    """A picture, or a part of one, as it is stored.

    Attributes:
        file: its name in the zip, beginning with the part it belongs to.
        source: the picture it comes from.
        box: left, top, right and bottom of the part taken; None for the whole picture.
        content: the bytes of a picture file.
        pixels: how many it has.
    """

    file: str
    source: str
    box: tuple[int, int, int, int] | None
    content: bytes
    pixels: int

    @property
    def cost(self) -> int:
        """Bytes that it takes in the file, its line in the manifest included."""
        return len(self.content) + _MEMBER + 2 * len(self.file.encode()) + len(self.line()) + _LINE

    def line(self) -> str:
        """What the manifest says of it (ASCII)."""
        return json.dumps({"file": self.file, "from": self.source, "box": self.box})


def overhead(settings: Mapping[str, Any]) -> int:
    """Bytes that a file without any piece takes."""
    return _END + _MEMBER + 2 * len(_MANIFEST) + len(_manifest(settings, ()))


def write_pack(path: Path, settings: Mapping[str, Any], pieces: Sequence[Piece]) -> int:
    """Write a file; what lies there stays until the new one is whole.

    Args:
        path: of the file.
        settings: how the pieces were chosen and stored, for the manifest.
        pieces: in the order they are stored.

    Returns:
        Its size in bytes: `overhead` and the pieces' costs, or a byte or two less.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = bytes(_SEAL)  # room for the seal
        archive.writestr(zipfile.ZipInfo(_MANIFEST), _manifest(settings, pieces))
        for piece in pieces:
            # Stored as they are: pictures do not shrink any more. ZipInfo is of 1980, always.
            archive.writestr(zipfile.ZipInfo(piece.file), piece.content)
    content = buffer.getvalue()[:-_SEAL]
    with writing(path) as aside:
        aside.write_bytes(content + _seal(content))
    return len(content) + _SEAL


def packed_images(path: str | Path, *, min_size: int = 1) -> Split:
    """The pictures in a file that `pack` wrote, decoded, as `folder_images` gives them.

    Args:
        path: the file.
        min_size: shortest side allowed of those to train on, in pixels: `patch * scale`.

    Raises:
        DataError: the file is missing, is damaged or something else, or holds a picture that is
            too small.
    """
    place = Path(path).expanduser()
    with _opened(place) as archive:
        manifest = json.loads(archive.read(_MANIFEST))
        if manifest["trinas_pack"] != VERSION:
            raise errors.DataError(
                f"packed pictures are of version {VERSION}",
                got=manifest["trinas_pack"],
                at=place,
                fix="Pack them anew.",
            )
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
        for entry in manifest["pieces"]:
            part, _, name = entry["file"].partition("/")
            parts[part][name] = _decoded(archive.read(entry["file"]), f"{place}/{entry['file']}")
    for name, picture in parts["train"].items():
        height, width = picture.shape[-2:]
        if min(height, width) < min_size:
            raise too_small(f"{place}/train/{name}", width, height, min_size)
    train, held_out = (dict(sorted(parts[part].items())) for part in PARTS)
    return Split(train=train, held_out=held_out)


def _manifest(settings: Mapping[str, Any], pieces: Sequence[Piece]) -> bytes:
    """As JSON, a piece a line."""
    head = json.dumps({"trinas_pack": VERSION, **settings}, indent=2)[:-2]
    lines = ",\n".join(f"    {piece.line()}" for piece in pieces)
    return f'{head},\n  "pieces": [\n{lines}\n  ]\n}}\n'.encode()


def _seal(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _opened(path: Path) -> zipfile.ZipFile:
    """A file whose seal is whole, open.

    Raises:
        DataError: it cannot be read, or its seal is another.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise errors.DataError(
            "a file of packed pictures cannot be read", got=str(error), at=path
        ) from None
    if _seal(content[:-_SEAL]) != content[-_SEAL:]:
        raise errors.DataError(
            "a file of packed pictures ends with a digest of itself",
            got=f"{len(content):,} bytes that do not",
            at=path,
            fix="It is damaged, cut short, or something else: copy it again, or pack it anew.",
        )
    return zipfile.ZipFile(io.BytesIO(content))


def _decoded(content: bytes, at: str) -> Tensor:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise errors.DataError(
            "a packed picture can be decoded here", got=f"{type(error).__name__}: {error}", at=at
        ) from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
