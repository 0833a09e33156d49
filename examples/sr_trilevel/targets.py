"""What a teacher makes of whole pictures: computed once, kept in memory and on disk.

Shapes: LR `3 h w`, target `3 h*scale w*scale`, both `uint8`.
"""

from __future__ import annotations

import hashlib
import math
import threading
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.sr_trilevel.data import Pair
from examples.sr_trilevel.teachers import Teacher, load_teacher
from examples.sr_trilevel.tiles import enlarged
from examples.sr_trilevel.writing import writing
from trinas import errors

VERSION = 1
"""Of the way targets are made. Raise it whenever their pixels change: kept ones then no longer
count, and a run started before refuses to go on with other targets."""

# A picture of DIV2K is one tile: 510 x 339. Features of 64 channels take 67 MB for a tile.
TILE = 512
OVERLAP = 32

_SEAL = hashlib.sha256().digest_size


def whole_target(
    teacher: Teacher, lr: Tensor, *, tile: int = TILE, overlap: int = OVERLAP
) -> Tensor:
    """What the teacher makes of a whole picture, as a target to cut patches from.

    A patch of it is not what the teacher makes of the patch: the picture goes on beyond the
    patch's border, and the teacher's attention, which pools over what it sees, sees all of it.
    This is the output that the teacher's scores are taken on. On two photographs of LR 256 x 341
    and 256 x 409, enlarging patches of 32 x 32 instead differs from it by 39 to 44 dB and is up
    to 0.3 dB further from HR.

    A side longer than `tile` is covered by equal tiles that overlap; of two neighbours each gives
    its half of the overlap. That bounds the memory, and lets the attention see no more than a
    tile: with tiles of 192 the pictures above differ by 50 to 54 dB. Rounding to 8 bits, as HR
    pictures are, differs by 59 dB.

    Args:
        teacher: runs on the device it is on, in eval mode, and is left in the mode it was in.
        lr: `uint8 [3, h, w]`.
        tile: longest side given to the teacher, in pixels of LR.
        overlap: of neighbouring tiles, in pixels of LR; less than `tile`.

    Returns:
        `uint8 [3, h * scale, w * scale]` on the CPU, a function of `lr` alone.

    Raises:
        ShapeError: the picture is smaller than the teacher takes.
        DataError: the teacher gives NaN.
    """
    return enlarged(teacher, lr, scale=teacher.scale, tile=tile, overlap=overlap)


class Targets:
    """The teacher's pictures in the place of HR pictures, each computed when first asked for.

    `Patches(..., targets=targets)` cuts them as it cuts HR pictures, so that batches stay a
    function of the step. A target is computed from its own LR picture and nothing else: the
    halves of a picture, shrunk after the cut, get targets that know nothing of each other.

    Memory: 3 bytes a pixel of HR for as long as the object lives, as much again as the pictures
    themselves (DIV2K's 800: 6.6 GB); pictures with the same LR share one target. Computing takes
    what features of one tile take: about 1.2 GB with BSRN, 2.4 GB with RRDBNet. Disk: 3 bytes a
    pixel.

    Time: a picture of DIV2K has the LR pixels of 170 patches of 32 x 32, which 900 epochs of one
    patch each would enlarge five times over, and then again in every further run.

    Any number of threads may ask; one at a time computes.

    Args:
        teacher: on the device to compute on.
        digest: of the file its weights came from.
        folder: where targets are kept from run to run, made when the first one is written; in
            memory alone where None. A file is named after the digest of all that its content
            depends on: LR picture, weights, scale, kind of device, and the way it is computed
            (`VERSION`, tiles). Its content is checked when it is read, and what is damaged is
            computed anew, with a line saying so.
    """

    def __init__(self, teacher: Teacher, *, digest: str, folder: Path | None = None) -> None:
        self.teacher = teacher
        self.digest = digest
        self.folder = folder
        device = next((p.device.type for p in teacher.parameters()), "cpu")
        self._maker = f"{VERSION} {digest} x{teacher.scale} {device} {TILE} {OVERLAP}"
        self._of_pair: dict[Pair, Tensor] = {}
        self._of_key: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def __call__(self, pair: Pair) -> Tensor:
        """The target of a pair: `uint8`, of the size of its HR picture.

        Raises:
            DataError: the pair was made for another scale than the teacher's.
            OSError: the target cannot be written.
        """
        target = self._of_pair.get(pair)
        if target is None:
            with self._lock:  # streams of batches may have threads of their own
                target = self._of_pair.get(pair)
                if target is None:
                    target = self._of_pair[pair] = self._found_or_made(pair)
        return target

    def _found_or_made(self, pair: Pair) -> Tensor:
        height, width = (side * self.teacher.scale for side in pair.lr.shape[-2:])
        if (height, width) != tuple(pair.hr.shape[-2:]):
            raise errors.DataError(
                f"a teacher enlarges as pictures were shrunk, here {self.teacher.scale} times",
                got=f"LR {tuple(pair.lr.shape[-2:])}, HR {tuple(pair.hr.shape[-2:])}",
                at=pair.name,
            )
        key = self._key(pair.lr)
        target = self._of_key.get(key)
        if target is None and self.folder is not None:
            target = _read(self.folder / f"{key}.rgb", key, (3, height, width))
        if target is None:
            target = whole_target(self.teacher, pair.lr)
            if self.folder is not None:
                _write(self.folder / f"{key}.rgb", key, target)
        self._of_key[key] = target
        return target

    def _key(self, lr: Tensor) -> str:
        digest = hashlib.sha256(f"{self._maker} {tuple(lr.shape)}\n".encode())
        digest.update(lr.contiguous().numpy().data)
        return digest.hexdigest()


def load_targets(
    path: str | Path, *, scale: int, device: torch.device, folder: Path | None = None
) -> Targets:
    """The targets of a published network.

    Args:
        path: the file of its weights.
        scale: of the pictures.
        device: where to compute.
        folder: see `Targets`.

    Raises:
        CheckpointError: the file cannot be used, or its network enlarges otherwise.
        DataError: `folder` is a file.
    """
    teacher = load_teacher(path)
    if teacher.scale != scale:
        raise errors.CheckpointError(
            f"a teacher for this recipe enlarges {scale} times",
            got=f"{teacher.name} for x{teacher.scale}",
            at=path,
        )
    if folder is not None and folder.exists() and not folder.is_dir():
        raise errors.DataError("targets are kept in a folder", got="a file", at=folder)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return Targets(teacher.to(device), digest=digest, folder=folder)


# A file holds a seal and then the pixels as they lie in memory. The seal is a digest of key and
# pixels, so that a file that was cut short, changed or renamed does not pass.


def _seal(key: str, pixels: np.ndarray) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(pixels.data)
    return digest.digest()


def _read(path: Path, key: str, shape: tuple[int, ...]) -> Tensor | None:
    """What is kept in a file; None where there is none, or it is damaged."""
    if not path.exists():
        return None
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        print(f"{path}: {error}; this target is computed anew", flush=True)
        return None
    seal, pixels = content[:_SEAL], content[_SEAL:]
    if pixels.size != math.prod(shape) or seal.tobytes() != _seal(key, pixels):
        print(f"{path}: damaged; this target is computed anew", flush=True)
        return None
    return torch.from_numpy(pixels).reshape(shape)


def _write(path: Path, key: str, target: Tensor) -> None:
    """Write a file; another run that writes the same one at the same time does no harm."""
    pixels = target.contiguous().numpy()
    with writing(path) as aside, aside.open("wb") as file:
        file.write(_seal(key, pixels))
        file.write(pixels.data)
