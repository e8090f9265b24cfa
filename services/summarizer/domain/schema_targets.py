"""Which single values a schema describes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from services.summarizer.domain.fields_values import Target, Template

Node = Mapping[str, Any]
Resolve = Callable[[str], Node]

_IN_PLACE = ("allOf", "anyOf", "oneOf")
_BRANCHES = ("then", "else")
_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_MAX_LABEL_CHARS = 500


def targets_of(schema: Node, resolve: Resolve, *, limit: int) -> tuple[Target, ...]:
    """The values of the schema in its order, at most `limit`. Alternatives are taken together: a value that one of them
    describes is looked for. References must not lead in circles."""
    return tuple(islice(_targets([schema], (), resolve), limit))


def _targets(nodes: Sequence[Node], at: Template, resolve: Resolve) -> Iterator[Target]:
    facts = [fact for node in nodes for fact in _facts(node, resolve)]
    properties: dict[str, list[Node]] = {}
    for fact in facts:
        for name, node in fact.get("properties", {}).items():
            properties.setdefault(name, []).append(node if isinstance(node, dict) else {})
    if properties:
        for name, described in properties.items():
            yield from _targets(described, (*at, name), resolve)
        return
    items = [fact["items"] for fact in facts if isinstance(fact.get("items"), dict)]
    kinds = frozenset(kind for fact in facts for kind in _kinds(fact))
    if items:
        yield from _targets(items, (*at, None), resolve)
    elif "array" in kinds:
        yield Target((*at, None), frozenset({"string"}))
    elif at and kinds != {"object"}:
        yield _target(facts, at, kinds - {"object"})


def _target(facts: Sequence[Node], at: Template, kinds: frozenset[str]) -> Target:
    options = [value for fact in facts for value in _listed(fact) if isinstance(value, str)]
    return Target(
        template=at,
        kinds=kinds,
        format=_first(facts, "format"),
        options=tuple(dict.fromkeys(options)),
        title=_first(facts, "title"),
        description=_first(facts, "description"),
    )


def _facts(node: Node, resolve: Resolve) -> Iterator[Node]:
    """The schema and all that say something of the same value."""
    yield node
    if "$ref" in node:
        yield from _facts(resolve(node["$ref"]), resolve)
    for keyword in _IN_PLACE:
        for other in node.get(keyword, []):
            if isinstance(other, dict):
                yield from _facts(other, resolve)
    for keyword in _BRANCHES:
        if isinstance(node.get(keyword), dict):
            yield from _facts(node[keyword], resolve)


def _kinds(node: Node) -> list[str]:
    kinds = node.get("type", [])
    return (
        [kinds]
        if isinstance(kinds, str)
        else list(kinds) or [_KINDS[type(v)] for v in _listed(node) if type(v) in _KINDS]
    )


def _listed(node: Node) -> list[Any]:
    return [*node.get("enum", []), *([node["const"]] if "const" in node else [])]


def _first(facts: Sequence[Node], keyword: str) -> str:
    return next((fact[keyword][:_MAX_LABEL_CHARS] for fact in facts if isinstance(fact.get(keyword), str)), "")
