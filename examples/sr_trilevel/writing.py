"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place when the block ends well.

    What lies there stays until then, and if the block fails. Folders are made if needed. Another
    process that writes the same file at the same time does no harm.

    Raises:
        OSError: what lies there is no file, which would be gone.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no file that can be replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
