"""Which fields the JSON body of each REST path may have, as tables for envoy/strict_json.lua, out of the contracts."""

import re
from collections.abc import Iterable

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor

# Indexes into TYPES begin at 1, as Lua's do.
SCALAR, FREE = 0, -1
# A file as it is; and what takes any name.
_RAW = "google.api.HttpBody"
_FREE = {_RAW, "google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"}
_VARIABLE = re.compile(r"\{(?P<field>[\w.]+)(=(?P<value>[^}]*))?\}")
_SEGMENT = re.compile(r"[\w.-]+|\*")


def tables(files: Iterable[FileDescriptor]) -> str:
    """Lua that sets TYPES and PATHS for all methods of these files that have a google.api.http rule.

    Raises ValueError at a rule of a kind that strict_json.lua does not know.
    """
    types = _Types()
    paths: dict[str, object] = {}
    for file in files:
        for service in file.services_by_name.values():
            for method in service.methods:
                _add(method, types, paths)
    return (
        f"local SCALAR, FREE = {SCALAR}, {FREE}\n"
        f"local TYPES = {{\n{''.join(f'  {_lua(kind)},{chr(10)}' for kind in types.found)}}}\n"
        f"local PATHS = {_lua(paths)}\n"
    )


class _Types:
    """The messages that were met, each once."""

    def __init__(self) -> None:
        self.found: list[dict[str, object]] = []
        self._indexes: dict[str, int] = {}

    def index(self, message: Descriptor) -> int:
        """Of the message in TYPES, which is 1 for the first; FREE for what has no names of its own."""
        if message.full_name in _FREE:
            return FREE
        if message.full_name == "google.protobuf.Any":
            raise ValueError("strict_json.lua does not look into google.protobuf.Any; no request may hold one.")
        if message.full_name not in self._indexes:
            kind: dict[str, object] = {"name": message.name}
            self.found.append(kind)
            self._indexes[message.full_name] = len(self.found)
            if message.GetOptions().map_entry:
                kind["values"] = self._value(message.fields_by_name["value"])
            else:
                kind["fields"] = self._fields(message)
                kind["other"] = {f.name: f.json_name for f in message.fields if f.name != f.json_name}
        return self._indexes[message.full_name]

    def _fields(self, message: Descriptor) -> dict[str, object]:
        return {
            spelling: self._value(field)
            for field in message.fields
            for spelling in dict.fromkeys((field.json_name, field.name))
        }

    def _value(self, field: FieldDescriptor) -> int:
        return SCALAR if field.message_type is None else self.index(field.message_type)


def _add(method: MethodDescriptor, types: _Types, paths: dict[str, object]) -> None:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    if verb is None:
        return
    if verb == "custom" or rule.additional_bindings:
        raise ValueError(
            f"{method.full_name}: strict_json.lua knows one binding, with get, put, post, delete or patch."
        )
    body, bound_to = method.input_type, ""
    if rule.body not in ("", "*"):
        field = method.input_type.fields_by_name[rule.body]
        if field.message_type is None:
            raise ValueError(f"{method.full_name}: the body is bound to {rule.body}, which is no message.")
        body, bound_to = field.message_type, field.name
    leaf: dict[str, object] = {"request": types.index(method.input_type)}
    if body.full_name != _RAW:
        # Where a rule binds no body, the transcoder takes one for the request nevertheless.
        leaf["body"] = types.index(body)
        if bound_to:
            leaf["field"] = bound_to
    elif not method.client_streaming:
        raise ValueError(f"{method.full_name}: strict_json.lua knows raw bodies of streams alone.")
    if method.client_streaming and "body" in leaf:
        raise ValueError(f"{method.full_name}: strict_json.lua reads one message, and this is a stream of them.")
    if bound := _bound(method, getattr(rule, verb), rule.body):
        leaf["bound"] = bound
    node = paths
    for segment in _segments(getattr(rule, verb)):
        step = node.setdefault(segment, {})
        assert isinstance(step, dict)
        node = step
    methods = node.setdefault("methods", {})
    assert isinstance(methods, dict)
    methods[verb.upper()] = leaf


def _bound(method: MethodDescriptor, template: str, body: str) -> dict[str, object]:
    """What the path sets: of `/v1/{document.name=documents/*}` the field document.name, which is `name` in a body that
    is bound to document; its value, the segments 2 to 3; and what callers may take its name for."""
    variables = list(_VARIABLE.finditer(template))
    if not variables:
        return {}
    if len(variables) > 1:
        raise ValueError(f"{template}: strict_json.lua knows one field in a path.")
    dotted, value = variables[0]["field"], variables[0]["value"] or "*"
    names: list[str] = []
    message: Descriptor | None = method.input_type
    for step in dotted.split("."):
        if message is None:
            raise ValueError(f"{template}: {dotted} goes into a field that is no message.")
        field = message.fields_by_name[step]
        names.append(field.json_name)
        message = field.message_type
    first = template[: variables[0].start()].strip("/").count("/") + 2
    collection = value.split("/")[0].lower()
    one = _singular(collection)
    called = {names[-1].lower(), "name", "id", collection, one, f"{one}id", f"{one}name"} - {"*", ""}
    bound: dict[str, object] = {"field": ".".join(names), "from": first, "to": first + value.count("/")}
    inside = names[1:] if body == dotted.split(".")[0] else names
    if len(inside) == 1:
        bound["in_body"] = inside[0]
    return bound | {"called": dict.fromkeys(sorted(called), 1)}


def _singular(collection: str) -> str:
    if collection.endswith("ies"):
        return f"{collection[:-3]}y"
    return collection.removesuffix("es" if collection.endswith("ches") else "s")


def _segments(template: str) -> list[str]:
    """`/v1/{document=documents/*}:embed` as v1, documents, *, embed: the transcoder takes the verb for a segment."""
    bare = re.sub(r"\{[\w.]+=([^}]*)\}", r"\1", template)
    bare = re.sub(r"\{[\w.]+\}", "*", bare)
    segments = re.sub(r":([^:/]*)$", r"/\1", bare).strip("/").split("/")
    for segment in segments:
        if not _SEGMENT.fullmatch(segment) or segment == "methods":
            raise ValueError(f"{template}: strict_json.lua does not know the segment {segment}.")
    return segments


def _lua(value: object) -> str:
    """A constructor; names and numbers alone, so that nothing needs escapes."""
    if isinstance(value, dict):
        return "{" + ",".join(f'["{key}"]={_lua(item)}' for key, item in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else str(value)
