"""Lets the reference show what a package re-exports with ``from x import y as y``."""

from __future__ import annotations

from typing import Any

import griffe


class Reexports(griffe.Extension):
    """Marks ``from x import y as y`` as public, which type checkers take it to mean."""

    def on_alias_instance(self, *, alias: griffe.Alias, node: Any, **kwargs: Any) -> None:
        """Mark one import, if its own name is repeated."""
        names = getattr(node, "names", ())
        if any(name.name == name.asname == alias.name for name in names):
            alias.public = True
