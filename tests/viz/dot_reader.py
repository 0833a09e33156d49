"""Reads back the DOT text that drawings are written in, as far as tests look at it."""

from __future__ import annotations

import html
import itertools
import re
from xml.etree import ElementTree

import attrs

_TOKEN = re.compile(r'\s+|"((?:[^"\\]|\\.)*)"|(->|[{}\[\];,=])|(\w+)')


@attrs.define
class Read:
    """What a DOT text holds; attributes are plain texts, labels without their markup."""

    nodes: dict[str, dict[str, str]] = attrs.field(factory=dict)
    edges: list[tuple[str, str, dict[str, str]]] = attrs.field(factory=list)
    clusters: dict[str, dict[str, str]] = attrs.field(factory=dict)
    inside: dict[str, list[str]] = attrs.field(factory=dict)
    graph: dict[str, str] = attrs.field(factory=dict)

    @property
    def shown(self) -> list[tuple[str, str, dict[str, str]]]:
        """The edges one can see."""
        return [edge for edge in self.edges if edge[2].get("style") != "invis"]

    def arrow(self, tail: str, head: str) -> dict[str, str]:
        """The attributes of the only visible edge between two nodes."""
        (found,) = [a for t, h, a in self.shown if (t, h) == (tail, head)]
        return found

    def labels(self) -> dict[str, str]:
        """Id of every node to its label."""
        return {key: values.get("label", "") for key, values in self.nodes.items()}


def read(text: str) -> Read:
    """Parse `text`; an AssertionError says where it is no DOT."""
    tokens = _tokens(text)
    assert [next(tokens) for _ in range(3)] == ["digraph", "trinas", "{"]
    found = Read()
    _block(list(tokens)[::-1], found, [])
    return found


def _tokens(text):
    position = 0
    while position < len(text):
        if text[position] == "<":
            end = _closing(text, position)
            yield ("label", _plain(text[position + 1 : end]))
            position = end + 1
            continue
        match = _TOKEN.match(text, position)
        assert match, f"no DOT from here: {text[position : position + 60]!r}"
        position = match.end()
        if match[1] is not None:
            yield ("text", re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], match[1]))
        elif match[2] or match[3]:
            yield match[2] or match[3]


def _closing(text, position):
    depth = 0
    for n in range(position, len(text)):
        depth += (text[n] == "<") - (text[n] == ">")
        if depth == 0:
            return n
    raise AssertionError("a label without an end")


def _plain(markup):
    """The words of an HTML-like label, a bar between lines and cells."""
    ElementTree.fromstring(f"<label>{markup}</label>")  # well formed, or it raises
    words = re.sub(r"<[^>]+>", "", re.sub(r"<(BR|TD)\b[^>]*>", "|", markup))
    return html.unescape(words)


def _block(tokens, found, path):
    while tokens:
        token = tokens.pop()
        if token == "}":
            return
        if token == ";":
            continue
        if token == "subgraph":
            name = tokens.pop()[1]
            assert tokens.pop() == "{"
            found.inside[name] = []
            _block(tokens, found, [*path, name])
        elif token == "{":
            _block(tokens, found, path)
        elif token in ("graph", "node", "edge"):
            values = _attributes(tokens)
            if token == "graph" and path:
                found.clusters[path[-1]] = values
            elif token == "graph":
                found.graph |= values
        elif token == "rank":
            assert [tokens.pop(), tokens.pop()] == ["=", "same"]
        else:
            _statement(token[1], tokens, found, path)
    assert not path, "a block without an end"


def _statement(first, tokens, found, path):
    chain = [first]
    while tokens[-1] == "->":
        tokens.pop()
        chain.append(tokens.pop()[1])
    values = _attributes(tokens)
    if len(chain) == 1:
        assert first not in found.nodes, f"{first} twice"
        found.nodes[first] = values
        for name in path:
            found.inside[name].append(first)
    for tail, head in itertools.pairwise(chain):
        found.edges.append((tail, head, values))


def _attributes(tokens):
    values = {}
    if tokens[-1] != "[":
        return values
    tokens.pop()
    while tokens[-1] != "]":
        key = tokens.pop()
        assert tokens.pop() == "=", key
        value = tokens.pop()
        values[key] = value[1] if isinstance(value, tuple) else value
        if tokens[-1] == ",":
            tokens.pop()
    tokens.pop()
    return values


def flow(found: Read) -> set[tuple[str, str]]:
    """Who feeds whom: without the points that arrows only pass, and without hidden edges."""
    # From a corner an edge without a tip leads back to where the arrow comes from.
    behind = {corner: tail for corner, tail, a in found.shown if a.get("dir") == "none"}
    edges = {(behind.get(t, t), h) for t, h, a in found.shown if a.get("dir") != "none"}
    for point in [n for n, a in found.nodes.items() if a.get("shape") == "point"]:
        tails = {t for t, h in edges if h == point}
        heads = {h for t, h in edges if t == point}
        edges = {e for e in edges if point not in e} | {(t, h) for t in tails for h in heads}
    return edges
