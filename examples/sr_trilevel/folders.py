"""Picture files by name, without decoding them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from examples.sr_trilevel.data import DIV2K_TRAIN, DIV2K_VALID, last_tenth
from examples.sr_trilevel.imaging import opened, picture_files, upright_size
from trinas import errors


def pictures_below(path: str | Path) -> dict[str, Path]:
    """Name to file: of a picture itself, or of all pictures in a folder and below it.

    Raises:
        DataError: there is no such file, or no picture in the folder.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return {place.name: place}
    if not place.is_dir():
        raise errors.DataError("a picture or a folder of them", got="no such thing", at=place)
    files = picture_files(place)
    if not files:
        raise errors.DataError("a folder holds no pictures", got="none", at=place)
    return files


def sizes_of(
    files: Mapping[str, Path], *, on_bad: Literal["raise", "skip"] = "raise"
) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Width and height, held upright, from the files' headers; the reason for each one skipped.

    Raises:
        DataError: a file cannot be read and `on_bad` is `"raise"`.
    """
    sizes: dict[str, tuple[int, int]] = {}
    skipped: dict[str, str] = {}
    for name, file in files.items():
        try:
            with opened(file) as picture:
                sizes[name] = upright_size(picture)
        except errors.DataError as error:
            if on_bad == "raise":
                raise
            skipped[name] = str(error)
    return sizes, skipped


def parts_of(
    root: Path, usable: Callable[[Mapping[str, Path]], dict[str, Path]] = dict
) -> dict[str, dict[str, Path]]:
    """The pictures held out and those to train on, by the rules of `data.folder_images`.

    Args:
        root: DIV2K's folder, or any other, of whose sorted names the last tenth is held out.
        usable: leaves out what cannot be trained on, which is done before the last tenth is taken;
            DIV2K's held-out pictures are not asked.

    Raises:
        DataError: there are not two pictures.
    """
    train, valid = root / DIV2K_TRAIN, root / DIV2K_VALID
    if train.is_dir() and valid.is_dir():
        return {"held_out": picture_files(valid), "train": usable(picture_files(train))}
    files = usable(picture_files(train if train.is_dir() else root))
    if len(files) < 2:
        raise errors.DataError(
            "a picture to train on and another to hold out are needed", got=len(files), at=root
        )
    last = last_tenth(files)
    return {
        "held_out": {name: files[name] for name in last},
        "train": {name: file for name, file in files.items() if name not in last},
    }
