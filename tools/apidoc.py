"""Writes docs/api/: an OpenAPI 3.1 document and a page to read, out of the contracts alone.

Paths come from google.api.http, descriptions from the comments, bounds from protovalidate, access from our own option.
Usage: python tools/apidoc.py DESCRIPTOR_SET DIRECTORY, where the set was made with --include_source_info.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.api import annotations_pb2, field_behavior_pb2, httpbody_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from buf.validate import validate_pb2
from pagemesh.common.v1 import access_pb2

VERSION = "v1"
PACKAGE = "pagemesh."
# Server-sent events; what else streams is one JSON object a line (envoy/routes.yaml).
SSE_METHODS = {"StreamSummarize"}

# https://protobuf.dev/programming-guides/json/
WELL_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d+)?s$"},
    "google.protobuf.FieldMask": {"type": "string", "description": "Field names, separated by commas."},
    "google.rpc.Status": {"$ref": "#/components/schemas/Status"},
}
_INT64 = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_SINT64}
_FLOATS = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}

STATUS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Every error, over HTTP and inside streams: google.rpc.Status.",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "integer", "description": "gRPC status code, such as 5 for NOT_FOUND."},
        "message": {"type": "string", "description": "What is wrong and what to do."},
        "details": {
            "type": "array",
            "description": "google.rpc.ErrorInfo with the machine reason first; then BadRequest with the fields, "
            "RetryInfo with the time to wait, QuotaFailure with the budget, where they apply.",
            "items": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
        },
    },
}


_FAULT = {
    "default": {
        "description": "What went wrong.",
        "content": {"application/json": {"schema": WELL_KNOWN["google.rpc.Status"]}},
    }
}


@dataclass(frozen=True)
class Contracts:
    """The descriptors and what their comments say."""

    methods: list[MethodDescriptor]
    comments: dict[str, str]

    def comment(self, full_name: str) -> str:
        """The comment above something, as one paragraph."""
        return self.comments.get(full_name, "")


def load(descriptor_set: bytes) -> Contracts:
    """Reads a FileDescriptorSet with source info."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
    pool = descriptor_pool.DescriptorPool()
    comments: dict[str, str] = {}
    methods: list[MethodDescriptor] = []
    for file in files.file:
        pool.Add(file)
    for file in files.file:
        if not file.package.startswith(PACKAGE):
            continue
        comments.update(_comments(file))
        for service in file.service:
            # From the default pool, whose options know our extensions.
            methods += pool.FindServiceByName(f"{file.package}.{service.name}").methods
    return Contracts(methods, comments)


def _comments(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for location in file.source_code_info.location:
        text = " ".join(location.leading_comments.split())
        name = _name_at(file, list(location.path))
        if text and name:
            yield f"{file.package}.{name}", text


def _name_at(file: descriptor_pb2.FileDescriptorProto, path: list[int]) -> str:
    """The dotted name of what a source location points at: pairs of field number and index, from the file down."""
    where: Any = file
    parts = []
    for number, index in zip(path[::2], path[1::2], strict=False):
        field = where.DESCRIPTOR.fields_by_number.get(number)
        if field is None or not field.is_repeated or field.message_type is None:
            return ""
        where = getattr(where, field.name)[index]
        parts.append(where.name if hasattr(where, "name") else "")
    return ".".join(parts) if len(path) % 2 == 0 else ""


class Writer:
    """Builds the OpenAPI document; schemas are added as they are met."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self._schemas: dict[str, Any] = {"Status": STATUS_SCHEMA}

    def document(self) -> dict[str, Any]:
        """The whole document."""
        paths: dict[str, Any] = {}
        for method in self._contracts.methods:
            if method.GetOptions().HasExtension(annotations_pb2.http):
                verb, path, operation = self._operation(method)
                paths.setdefault(path, {})[verb] = operation
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Pagemesh",
                "version": VERSION,
                "description": "Documents in; pages, cited summaries and their exact cost out.",
                "license": {"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
            },
            "servers": [{"url": "https://localhost:8443", "description": "The embedded stack."}],
            "security": [{"bearer": []}, {"apiKey": []}],
            "paths": dict(sorted(paths.items())),
            "components": {
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, pm_…"},
                    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                },
                "schemas": dict(sorted(self._schemas.items())),
            },
        }

    def _operation(self, method: MethodDescriptor) -> tuple[str, str, dict[str, Any]]:
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        verb = str(rule.WhichOneof("pattern"))
        path, bound = _openapi_path(getattr(rule, verb))
        fields = [field for field in method.input_type.fields if field.name not in bound.values()]
        parameters = [self._path_parameter(name, method.input_type, bound[name]) for name in bound]
        operation: dict[str, Any] = {
            "operationId": method.name,
            "tags": [method.containing_service.name],
            "summary": self._contracts.comment(method.full_name).split(". ")[0].rstrip(".") + ".",
            "description": f"{self._contracts.comment(method.full_name)}\n\n{_access_text(method)}",
            "responses": self._responses(method),
        }
        if rule.body == "*":
            schema = self._object(fields)
            operation["requestBody"] = {
                "required": "required" in schema,
                "content": {"application/json": {"schema": schema}},
            }
        else:
            if rule.body:
                content = self._body(method.input_type.fields_by_name[rule.body])
                operation["requestBody"] = {"required": True, "content": content}
            parameters += [self._query_parameter(field) for field in fields if field.name != rule.body]
        if parameters:
            operation["parameters"] = parameters
        return verb, path, operation

    def _body(self, field: FieldDescriptor) -> dict[str, Any]:
        message = _message_of(field)
        if message.full_name == httpbody_pb2.HttpBody.DESCRIPTOR.full_name:
            return {"application/octet-stream": {"schema": {"type": "string", "contentMediaType": "*/*"}}}
        return {"application/json": {"schema": self._message(message)}}

    def _responses(self, method: MethodDescriptor) -> dict[str, Any]:
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        description = self._contracts.comment(method.output_type.full_name)
        if rule.response_body:
            content = self._body(method.output_type.fields_by_name[rule.response_body])
            whole = {"description": "The whole of it, of the type that its header says.", "content": content}
            return {"200": whole, **_FAULT}
        schema = self._message(method.output_type)
        kind = "application/json"
        if method.server_streaming:
            if method.name in SSE_METHODS:
                kind, description = "text/event-stream", f"{description} Each event's data is one of these objects."
            else:
                description += " One of these objects on each line, as it becomes ready."
        return {"200": {"description": description, "content": {kind: {"schema": schema}}}, **_FAULT}

    def _path_parameter(self, name: str, message: Descriptor, field_name: str) -> dict[str, Any]:
        *outer, last = field_name.split(".")
        for step in outer:
            message = _message_of(message.fields_by_name[step])
        field = message.fields_by_name[last]
        pattern = field.GetOptions().Extensions[validate_pb2.field].string.pattern
        return {
            "name": name,
            "in": "path",
            "required": True,
            "description": f"The id in `{field_name}`. {self._contracts.comment(field.full_name)}",
            "schema": {"type": "string", "pattern": re.sub(r"^\^\w+/", "^", pattern)},
        }

    def _query_parameter(self, field: FieldDescriptor) -> dict[str, Any]:
        schema = self._field(field)
        description = schema.pop("description", "")
        required = field_behavior_pb2.REQUIRED in _behavior(field)
        return {
            "name": field.json_name,
            "in": "query",
            "required": required,
            "description": description,
            "schema": schema,
        }

    def _message(self, message: Descriptor) -> dict[str, Any]:
        if message.full_name in WELL_KNOWN:
            return WELL_KNOWN[message.full_name]
        if message.full_name == httpbody_pb2.HttpBody.DESCRIPTOR.full_name:
            return {"type": "string", "contentEncoding": "base64"}
        if message.name not in self._schemas:
            self._schemas[message.name] = {}  # a message that holds itself meets this
            schema = self._object(list(message.fields))
            self._schemas[message.name] = {"description": self._contracts.comment(message.full_name), **schema}
        return {"$ref": f"#/components/schemas/{message.name}"}

    def _object(self, fields: list[FieldDescriptor]) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "object", "properties": {f.json_name: self._field(f) for f in fields}}
        required = [f.json_name for f in fields if field_behavior_pb2.REQUIRED in _behavior(f)]
        if required:
            schema["required"] = required
        alternatives = [f.json_name for f in fields if f.containing_oneof and not _is_optional(f)]
        if alternatives:
            schema["oneOf"] = [{"required": [name]} for name in alternatives]
        return schema

    def _field(self, field: FieldDescriptor) -> dict[str, Any]:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            values = self._single(field.message_type.fields_by_name["value"], rules.map.values)
            schema: dict[str, Any] = {"type": "object", "additionalProperties": values}
            _copy(rules.map, schema, {"max_pairs": "maxProperties"})
        elif field.is_repeated:
            schema = {"type": "array", "items": self._single(field, rules.repeated.items)}
            _copy(rules.repeated, schema, {"min_items": "minItems", "max_items": "maxItems", "unique": "uniqueItems"})
        else:
            schema = self._single(field, rules)
        schema = {**schema, "description": self._contracts.comment(field.full_name)}
        if field_behavior_pb2.OUTPUT_ONLY in _behavior(field):
            schema["readOnly"] = True
        return schema

    def _single(self, field: FieldDescriptor, rules: Any) -> dict[str, Any]:
        if field.message_type is not None:
            return dict(self._message(field.message_type))
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.type in _INT64:
            return {"type": "string", "format": "int64"}
        if field.type == FieldDescriptor.TYPE_BOOL:
            return {"type": "boolean"}
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        if field.type == FieldDescriptor.TYPE_STRING:
            schema: dict[str, Any] = {"type": "string"}
            _copy(rules.string, schema, {"min_len": "minLength", "max_len": "maxLength", "pattern": "pattern"})
            if rules.string.uuid:
                schema["format"] = "uuid"
            return schema
        schema = {"type": "number" if field.type in _FLOATS else "integer"}
        _copy(getattr(rules, rules.WhichOneof("type") or "int32"), schema, {"gte": "minimum", "lte": "maximum"})
        return schema

    def _enum(self, enum: EnumDescriptor) -> dict[str, Any]:
        if enum.name not in self._schemas:
            values = [f"`{v.name}`: {self._contracts.comment(f'{enum.full_name}.{v.name}')}" for v in enum.values]
            self._schemas[enum.name] = {
                "type": "string",
                "enum": [v.name for v in enum.values],
                "description": "\n\n".join([self._contracts.comment(enum.full_name), *values]),
            }
        return {"$ref": f"#/components/schemas/{enum.name}"}


def _copy(rules: Any, schema: dict[str, Any], names: dict[str, str]) -> None:
    """Takes the bounds over that the contract sets."""
    for ours, theirs in names.items():
        if ours in rules.DESCRIPTOR.fields_by_name and rules.HasField(ours):
            schema[theirs] = getattr(rules, ours)


def _message_of(field: FieldDescriptor) -> Descriptor:
    message = field.message_type
    assert message is not None, f"{field.full_name} is no message"
    return message


def _behavior(field: FieldDescriptor) -> Any:
    return field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def _is_optional(field: FieldDescriptor) -> bool:
    return field.containing_oneof is not None and field.containing_oneof.name.startswith("_")


def _openapi_path(template: str) -> tuple[str, dict[str, str]]:
    """`/v1/{name=documents/*}:x` as `/v1/documents/{document}:x`, and which field each parameter is in."""
    bound: dict[str, str] = {}

    def replace(match: re.Match[str]) -> str:
        field, collection = match[1], match[2]
        parameter = collection.removesuffix("s")
        bound[parameter] = field
        return f"{collection}/{{{parameter}}}"

    return re.sub(r"\{([\w.]+)=(\w+)/\*\}", replace, template), bound


def _access_text(method: MethodDescriptor) -> str:
    access = method.GetOptions().Extensions[access_pb2.access]
    return f"Scope: `{access.scope}`." if access.scope else "Any valid key may call this."


def page(document: dict[str, Any]) -> str:
    """The document as Markdown, to be read in a browser where the repository is shown."""
    lines = [
        "# API reference",
        "",
        "Written by `make gen` out of the contracts in proto/; the same as OpenAPI 3.1 is in "
        "[openapi.json](openapi.json). Every method is a gRPC method of the same name as well.",
        "",
    ]
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            lines += [
                f"## {operation['operationId']}",
                "",
                f"`{verb.upper()} {path}`",
                "",
                operation["description"],
                "",
            ]
            lines += _rows(
                "Parameter", [(p["name"], p["schema"], p["description"]) for p in operation.get("parameters", [])]
            )
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if "$ref" in body:
                body = document["components"]["schemas"][body["$ref"].rpartition("/")[2]]
            lines += _rows("Body", [(n, s, s.get("description", "")) for n, s in body.get("properties", {}).items()])
            kind, content = next(iter(operation["responses"]["200"]["content"].items()))
            lines += [
                f"Answers `{kind}`, {_type(content['schema'])}: {operation['responses']['200']['description']}",
                "",
            ]
    lines += ["# Messages", ""]
    for name, schema in document["components"]["schemas"].items():
        lines += [f"## {name}", "", schema.get("description", ""), ""]
        lines += _rows("Field", [(n, s, s.get("description", "")) for n, s in schema.get("properties", {}).items()])
    return "\n".join(lines).rstrip() + "\n"


def _rows(title: str, rows: list[tuple[str, dict[str, Any], str]]) -> list[str]:
    if not rows:
        return []
    cells = [f"| `{name}` | {_type(schema)} | {text.replace('|', chr(92) + '|')} |" for name, schema, text in rows]
    return [f"| {title} | Type | |", "|---|---|---|", *cells, ""]


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return str(schema.get("format") or schema.get("type", "object"))


def main(descriptor_set: Path, directory: Path) -> None:
    """Writes both files."""
    document = Writer(load(descriptor_set.read_bytes())).document()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "openapi.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    (directory / "README.md").write_text(page(document))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
