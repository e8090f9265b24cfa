"""JSON Schemas of callers: checked and bounded before they are used, and what an answer violates of them.

Every schema is untrusted. Nothing is ever fetched, its size and depth are bounded, references lead forward only, so
that the work for a value is at most the unrolled schema's, and patterns run in an engine whose time is linear.
"""

import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from services.runtime.errors import FieldViolation, InvalidArgument
from services.summarizer.domain.fields_values import Path, Target, Violation, parts_of, pointer_of
from services.summarizer.domain.schema_targets import targets_of

MAX_BYTES = 32 * 1024
"""Of the canonical JSON. It stands in every prompt."""
MAX_DEPTH = 24
"""Levels of objects and lists in the schema's JSON."""
MAX_NESTED = 200
"""Schemas within each other, with each reference replaced by what it refers to."""
MAX_UNROLLED = 5_000
"""Schemas in it, with each reference replaced by what it refers to."""
MAX_TARGETS = 300
"""Values that are looked for."""
MAX_PATTERN_CHARS = 500
MAX_VIOLATIONS = 200
_SHOWN_CHARS = 300
_PATTERN_BYTES = 1 << 20
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES)
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFUSED = ("$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef", "$vocabulary")
_NAMED = ("properties", "patternProperties", "dependentSchemas")
_LISTED = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE = (
    "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CheckedSchema:
    """A schema that is safe to use. `text` is its canonical JSON, `digest` the SHA-256 of that in hexadecimal."""

    text: str
    digest: str
    targets: tuple[Target, ...]
    _validator: jsonschema_rs.Validator = field(repr=False, compare=False)

    def violations(self, value: Mapping[str, object]) -> tuple[tuple[Violation, ...], tuple[Path, ...]]:
        """What the value violates, at most MAX_VIOLATIONS: first what is wrong, then the paths that are missing."""
        wrong: dict[tuple[Path, str, str], Violation] = {}
        missing: dict[Path, None] = {}
        for error in islice(self._validator.iter_errors(dict(value)), MAX_VIOLATIONS):
            path = tuple(error.instance_path)
            if error.kind.name == "required":
                missing[(*path, error.kind.as_dict()["property"])] = None
            else:
                violation = Violation(path, error.kind.name, _explained(error.kind))
                wrong.setdefault((path, violation.keyword, violation.message), violation)
        return tuple(wrong.values()), tuple(missing)


def check(schema: Mapping[str, object], *, field: str = "json_schema") -> CheckedSchema:
    """The schema, where it can be used. Raises InvalidArgument SCHEMA_INVALID or SCHEMA_TOO_LARGE, which name the place
    in it as a JSON pointer and say what to do; `field` is the request's."""
    _check_depth(schema, field)
    text = canonical(schema)
    if len(text) > MAX_BYTES:
        raise too_large(f"has {len(text):,} bytes and may have {MAX_BYTES:,}: split it into several", (), field)
    plain = json.loads(text)
    try:
        jsonschema_rs.meta.validate({**plain, "$schema": _DIALECT})
    except jsonschema_rs.ValidationError as exc:
        raise _invalid(_mistake(exc), tuple(exc.instance_path), field) from exc
    _check_root(plain, field)
    known = {id(node) for _, node in _schemas(plain, ())}
    for path, node in _schemas(plain, ()):
        _check_node(plain, node, path, known, field)
    if _size(plain, plain, {}, set(), field) > MAX_UNROLLED:
        raise too_large("refers to the same parts too often: name each part in fewer places", (), field)
    targets = targets_of(plain, lambda ref: _resolved(plain, ref), limit=MAX_TARGETS + 1)
    if len(targets) > MAX_TARGETS:
        raise too_large(f"describes more than {MAX_TARGETS} values: split it into several", (), field)
    if not targets:
        raise _invalid("names no property with a value to look for", ("properties",), field)
    return CheckedSchema(text, sha256(text.encode()).hexdigest(), targets, _compiled(plain, field))


def canonical(value: object) -> str:
    """JSON with sorted keys, without white space, in ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _compiled(schema: dict[str, Any], field: str) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.Draft202012Validator(
            {**schema, "$schema": _DIALECT}, validate_formats=True, pattern_options=_PATTERNS, offline=True
        )
    except jsonschema_rs.ValidationError as exc:
        raise _invalid(_mistake(exc), tuple(exc.instance_path), field) from exc


def _check_depth(schema: object, field: str) -> None:
    level: list[tuple[Path, object]] = [((), schema)]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[tuple[Path, object]] = []
        for path, value in level:
            if isinstance(value, Mapping):
                deeper += [((*path, name), item) for name, item in value.items()]
            elif isinstance(value, list):
                deeper += [((*path, index), item) for index, item in enumerate(value)]
        level = deeper
        if not level:
            return
    raise too_large(f"is deeper than {MAX_DEPTH} levels: make it flatter", level[0][0], field)


def _check_root(schema: Mapping[str, Any], field: str) -> None:
    dialect = schema.get("$schema", _DIALECT)
    if dialect.rstrip("#") != _DIALECT:
        raise _invalid(f"must be {_DIALECT}, or left out", ("$schema",), field)
    if schema.get("type") != "object":
        raise _invalid('must be "object": the answer is an object', ("type",), field)


def _check_node(root: Mapping[str, Any], node: Mapping[str, Any], path: Path, known: Set[int], field: str) -> None:
    for keyword in _REFUSED:
        if keyword in node:
            raise _invalid(
                "is not supported: refer with $ref to a pointer such as #/$defs/name", (*path, keyword), field
            )
    if "$id" in node and path:
        raise _invalid("is allowed at the top of a schema only", (*path, "$id"), field)
    patterns = [node.get("pattern", ""), *node.get("patternProperties", {})]
    if any(len(pattern) > MAX_PATTERN_CHARS for pattern in patterns):
        raise too_large(f"has a pattern of more than {MAX_PATTERN_CHARS} characters", path, field)
    if "$ref" in node:
        try:
            # What stands in no place of a schema was not checked as one.
            if id(_resolved(root, node["$ref"])) not in known:
                raise LookupError("no schema there")
        except (LookupError, ValueError) as exc:
            message = "must be a pointer into this schema, such as #/$defs/name; nothing is ever fetched"
            raise _invalid(message, (*path, "$ref"), field) from exc


def _resolved(root: Mapping[str, Any], ref: str) -> Mapping[str, Any]:
    """The schema that a reference names. Raises LookupError or ValueError where it names none."""
    if not ref.startswith("#/"):
        raise ValueError("not a pointer into the schema")
    found: Any = root
    for part in parts_of(unquote(ref[1:])):
        found = found[int(part)] if isinstance(found, list) else found[part]
        if not isinstance(found, dict | list):
            break
    if not isinstance(found, dict):
        raise LookupError("no schema there")
    return found


def _schemas(node: object, path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The schema and every one within it."""
    if not isinstance(node, dict):
        return
    yield path, node
    for child_path, child in _children(node, path, (*_NAMED, "$defs", "definitions")):
        yield from _schemas(child, child_path)


def _children(node: Mapping[str, Any], path: Path, named: tuple[str, ...] = _NAMED) -> Iterator[tuple[Path, Any]]:
    for keyword in named:
        for name, child in node.get(keyword, {}).items():
            yield (*path, keyword, name), child
    for keyword in _LISTED:
        for index, child in enumerate(node.get(keyword, [])):
            yield (*path, keyword, index), child
    for keyword in _SINGLE:
        if keyword in node:
            yield (*path, keyword), node[keyword]


def _size(root: Mapping[str, Any], node: object, known: dict[int, int], above: set[int], field: str) -> int:
    """How many schemas it is with each reference replaced by what it refers to. Refuses those that lead back."""
    if not isinstance(node, dict):
        return 1
    if id(node) in known:
        return known[id(node)]
    if id(node) in above:
        raise _invalid("leads back to itself: a schema of fields cannot be recursive", ("$ref",), field)
    if len(above) == MAX_NESTED:
        raise too_large(f"is deeper than {MAX_NESTED} schemas: refer to fewer parts that refer on", ("$ref",), field)
    above.add(id(node))
    size = 1 + sum(_size(root, child, known, above, field) for _, child in _children(node, ()))
    if "$ref" in node:
        size += _size(root, _resolved(root, node["$ref"]), known, above, field)
    above.discard(id(node))
    known[id(node)] = size
    return size


def _mistake(error: jsonschema_rs.ValidationError) -> str:
    """What is wrong with a schema, from what its own schema says."""
    if error.instance_path and error.instance_path[-1] == "pattern":
        return "must be a regular expression without look-around and back-references, and of a sensible size"
    return _explained(error.kind)


def _explained(kind: jsonschema_rs.ValidationErrorKind) -> str:
    """What the schema wants, in words; never what the document says."""
    wants: dict[str, Any] = kind.as_dict()
    match kind.name:
        case "type":
            return f"must be of the type {' or '.join(wants['types'])}"
        case "enum":
            return f"must be one of {_shown(wants['options'])}"
        case "const":
            return f"must be {_shown(wants['expected_value'])}"
        case "format":
            return f"must have the format {wants['format']}"
        case "pattern":
            return f"must match the pattern {_shown(wants['pattern'])}"
        case "multipleOf":
            return f"must be a multiple of {wants['multiple_of']}"
        case "uniqueItems":
            return "must not hold an item twice"
        case "anyOf" | "oneOf":
            return "must satisfy one of the alternatives" + (" and no other" if kind.name == "oneOf" else "")
        case _ if "limit" in wants:
            return f"must keep to {kind.name} {wants['limit']}"
        case _:
            return f"must satisfy {kind.name}"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _invalid(message: str, path: Path, field: str) -> InvalidArgument:
    return _refusal("SCHEMA_INVALID", message, path, field)


def too_large(message: str, path: Path, field: str) -> InvalidArgument:
    """SCHEMA_TOO_LARGE at a place in the schema; `message` goes on from what it "has" or "may have" there."""
    return _refusal("SCHEMA_TOO_LARGE", message, path, field)


def _refusal(reason: str, message: str, path: Path, field: str) -> InvalidArgument:
    pointer = pointer_of(path)[:_SHOWN_CHARS]
    where = f"at {pointer}: " if pointer else ""
    return InvalidArgument(
        reason,
        f"The schema cannot be used. {where}{message}.",
        fields=[FieldViolation(field, f"{where}{message}")],
        metadata={"pointer": pointer},
    )
