"""A finished drawing: its text, and ways to turn that into a picture."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import attrs

from trinas._core.errors import DrawingError

FORMATS = ("svg", "png", "pdf")
SOURCES = ("dot", "gv")
_DPI = 144


@attrs.frozen
class Drawing:
    """A picture as text in the DOT language of Graphviz.

    In a notebook it shows itself.

    Attributes:
        dot: the text. It needs no other software, and any Graphviz viewer opens it.
    """

    dot: str = attrs.field(repr=False)

    def render(self, path: str | Path) -> Path:
        """Write the drawing to a file; the suffix of `path` says what to write.

        Args:
            path: ``.svg``, ``.png`` and ``.pdf`` are drawn by Graphviz; ``.dot`` and
                ``.gv`` hold the text. The folder has to exist.

        Returns:
            The path.

        Raises:
            DrawingError: another suffix; or Graphviz is not installed, and the message
                says how to install it.

        >>> import tempfile
        >>> import trinas as tn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tn.draw(tn.conv(3, 16)).render(Path(folder) / "stem.dot").name
        'stem.dot'
        """
        path = Path(path)
        suffix = path.suffix.lower().removeprefix(".")
        if suffix in SOURCES:
            path.write_text(self.dot, encoding="utf-8")
        elif suffix in FORMATS:
            path.write_bytes(self._picture(suffix))
        else:
            raise DrawingError(
                "the suffix of the path names the format of a drawing",
                got=repr(path.name),
                fix=f"Known: {', '.join('.' + s for s in (*FORMATS, *SOURCES))}.",
            )
        return path

    def _picture(self, form: str) -> bytes:
        """The bytes of one format."""
        graphviz = _graphviz()
        text = self.dot
        if form == "png":
            text = text.replace("{", f"{{\n  graph [dpi={_DPI}];", 1)
        try:
            return graphviz.pipe("dot", form, text.encode("utf-8"), quiet=True)
        except graphviz.ExecutableNotFound:
            raise _missing("the program dot of Graphviz, which is not on the PATH") from None
        except graphviz.CalledProcessError as error:
            raise DrawingError(
                "Graphviz draws the text of a drawing",
                got=str(error),
                fix="Does `dot -V` say 2.40 or later? The text is in the attribute dot.",
            ) from None

    def _repr_svg_(self) -> str | None:
        """The picture for notebooks; None, which shows the repr, without Graphviz."""
        try:
            return self._picture("svg").decode("utf-8")
        except DrawingError:
            return None


def _graphviz() -> ModuleType:
    try:
        import graphviz
    except ImportError:
        raise _missing("the Python package graphviz") from None
    return graphviz


def _missing(what: str) -> DrawingError:
    return DrawingError(
        f"a picture needs {what}",
        fix="Install both: `pip install trinas[viz]`, and Graphviz itself with `apt install "
        "graphviz`, `brew install graphviz` or `conda install graphviz`. The attribute dot of "
        "the drawing holds its text, which a .dot path saves.",
    )
