"""The public names and their signatures, as one golden file."""

from __future__ import annotations
import __future__

import builtins
import inspect
import re
from types import ModuleType

import trinas as tn
import trinas.bench

# The package, and what is used as a namespace.
PARTS = (tn, tn.cost, tn.relax, tn.errors, trinas.bench)


def public(part: ModuleType) -> dict[str, object]:
    return {
        name: thing
        for name, thing in sorted(vars(part).items())
        if not name.startswith("_")
        and not isinstance(thing, __future__._Feature)
        and (thing in PARTS or not isinstance(thing, ModuleType))
    }


def described(name: str, thing: object) -> list[str]:
    """One line for a name; for a class also one for every public method it defines."""
    if isinstance(thing, ModuleType):
        return [f"{name} (module)"]
    if not inspect.isclass(thing):
        return [
            f"{name}{_signature(thing)}" if callable(thing) else f"{name} ({type(thing).__name__})"
        ]
    members = {
        member: value
        for kind in reversed(thing.__mro__)
        if kind.__module__.startswith("trinas")
        for member, value in vars(kind).items()
        if not member.startswith("_")
    }
    lines = [f"class {name}{_signature(thing)}"]
    for member in sorted(members):
        value = inspect.getattr_static(thing, member)
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        lines.append(f"    {name}.{member}{_signature(value) if callable(value) else ''}")
    return lines


def _signature(thing: object) -> str:
    try:
        # Names and defaults; annotations are checked by the type checker.
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return "(...)"
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=parameters, return_annotation=signature.empty))
    return re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "<unset>", text)


def test_the_public_names_stay_as_they_are(golden):
    """A name or an argument that goes, or changes, breaks someone's code.

    To accept a change: ``pytest tests/test_public_api.py --update-golden``.
    """
    lines = []
    for part in PARTS:
        lines.append(f"# {part.__name__}")
        for name, thing in public(part).items():
            lines.extend(described(name, thing))
    golden("public_api.txt", "\n".join(lines) + "\n")


def test_everything_public_is_documented():
    undocumented = [
        f"{part.__name__}.{name}"
        for part in PARTS
        for name, thing in public(part).items()
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and not thing.__doc__
    ]

    assert undocumented == []


def test_no_public_name_shadows_a_builtin():
    assert not set(vars(builtins)) & set(public(tn))
