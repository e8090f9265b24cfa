"""What each public method takes over JSON and nothing beside it; and any JSON, against a reader of our own."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor
from google.protobuf.message import Message

from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.edge_fields import tables
from tests.edge.calling import METHODS
from tests.edge.envoy.edge import Edge
from tests.edge.envoy.refusals import JSON, SUMMARIZE, is_refused, violations
from tests.edge.envoy.upstreams import Mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")

FREE = {"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"}


def _rule(method: MethodDescriptor) -> Any:
    return method.GetOptions().Extensions[annotations_pb2.http]


def _with_json_body() -> list[MethodDescriptor]:
    return [m for m in METHODS.values() if _rule(m).WhichOneof("pattern") and _rule(m).body and not m.client_streaming]


def _request_line(method: MethodDescriptor) -> tuple[str, str]:
    rule = _rule(method)
    verb = rule.WhichOneof("pattern")
    path = getattr(rule, verb)
    while "{" in path:
        before, _, rest = path.partition("{")
        bound, _, after = rest.partition("}")
        path = f"{before}{bound.partition('=')[2].replace('*', 'a' * 32)}{after}"
    return verb.upper(), path


def _path_bound(method: MethodDescriptor) -> set[tuple[str, ...]]:
    """Fields of the body that the path has already."""
    rule = _rule(method)
    names = [part.partition("=")[0].split(".") for part in getattr(rule, rule.WhichOneof("pattern")).split("{")[1:]]
    return {tuple(name) if rule.body == "*" else tuple(name[1:]) for name in names}


def _fill(message: Message, choice: int, depth: int = 0) -> None:
    """Gives every field a value; of those that exclude one another the one that `choice` falls on."""
    for field in message.DESCRIPTOR.fields:
        group = field.containing_oneof
        if group is not None and len(group.fields) > 1 and field != group.fields[choice % len(group.fields)]:
            continue
        if field.message_type is not None:
            if depth < 6:
                holder = getattr(message, field.name)
                _fill_message(holder.add() if field.is_repeated else holder, choice, depth + 1)
        else:
            value = _scalar(field)
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)


def _fill_message(message: Any, choice: int, depth: int) -> None:
    message.SetInParent()
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Struct":
        message.update({"any": {"thing": [{"maxCots": 1}, None]}, "max_cost": 1, "maxCost": 2, "": 3})
    elif name == "google.protobuf.FieldMask":
        message.paths.append("display_name")
    elif name in {"google.protobuf.Timestamp", "google.protobuf.Duration"}:
        message.seconds = 1
    else:
        _fill(message, choice, depth)


def _scalar(field: Any) -> object:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    return {
        FieldDescriptor.CPPTYPE_STRING: b"x" if field.type == FieldDescriptor.TYPE_BYTES else "x",
        FieldDescriptor.CPPTYPE_BOOL: True,
    }.get(field.cpp_type, 1)


def _bodies(method: MethodDescriptor) -> Iterator[dict[str, Any]]:
    """Full bodies in both spellings, once for each side of a choice."""
    rule, request = _rule(method), method.input_type
    body: Any = request if rule.body == "*" else request.fields_by_name[rule.body].message_type
    seen: list[dict[str, Any]] = []
    for choice in range(4):
        message = message_factory.GetMessageClass(body)()
        _fill(message, choice)
        for proto_names in (False, True):
            content = json_format.MessageToDict(message, preserving_proto_field_name=proto_names)
            for bound in _path_bound(method):
                content.pop(bound[0] if len(bound) == 1 else "", None)
            if content not in seen:
                seen.append(content)
                yield content


def _steps(value: Any, kind: Descriptor | None, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in a body that stands for a message, with its path."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _steps(item, kind, f"{path}[{index}]")
    elif isinstance(value, dict) and kind is not None and kind.full_name not in FREE:
        yield path, value
        fields = {spelling: f for f in kind.fields for spelling in (f.name, f.json_name)}
        for name, item in value.items():
            yield from _steps(item, fields[name].message_type, f"{path}.{name}")


@pytest.mark.parametrize("method", _with_json_body(), ids=lambda method: str(method.full_name))
async def test_a_methods_own_fields_pass_and_no_other_at_any_level(
    edge: Edge, clean: Mesh, method: MethodDescriptor
) -> None:
    verb, path = _request_line(method)
    rule, request = _rule(method), method.input_type
    kind: Any = request
    prefix = ""
    if rule.body != "*":
        kind, prefix = request.fields_by_name[rule.body].message_type, f".{rule.body}"
    tried: set[str] = set()
    for body in _bodies(method):
        answer = await edge.call(verb, path, body=body)
        assert answer.status in {200, 501}, (body, answer)
        for index, (place, _) in enumerate(_steps(body, kind, prefix)):
            if place in tried:
                continue
            tried.add(place)
            spoilt = copy.deepcopy(body)
            list(_steps(spoilt, kind, prefix))[index][1]["nonsense"] = {"x": 1}
            answer = await edge.call(verb, path, body=spoilt)
            assert [field for field, _ in violations(answer)] == [f"{place}.nonsense".removeprefix(".")]
    assert tried


# --- Shapes that no contract has today, and JSON of all kinds, against a reader of our own. ---


def _invented() -> FileDescriptor:
    """A contract with all that a message can hold, at the path of Summarize."""
    file = descriptor_pb2.FileDescriptorProto(name="invented.proto", package="invented", syntax="proto3")
    file.dependency.extend(["google/protobuf/struct.proto", "google/api/annotations.proto"])
    types = descriptor_pb2.FieldDescriptorProto
    node = file.message_type.add(name="Node")
    entry = node.nested_type.add(name="ByNameEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=types.TYPE_MESSAGE, type_name=".invented.Node", label=types.LABEL_OPTIONAL
    )
    for number, (name, type_name, repeated) in enumerate(
        (
            ("by_name", ".invented.Node.ByNameEntry", True),
            ("nodes", ".invented.Node", True),
            ("node", ".invented.Node", False),
            ("free", ".google.protobuf.Struct", False),
            ("any_value", ".google.protobuf.Value", False),
            ("text_value", "", False),
        ),
        start=1,
    ):
        node.field.add(
            name=name,
            number=number,
            type=types.TYPE_MESSAGE if type_name else types.TYPE_STRING,
            type_name=type_name or None,
            label=types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL,
        )
    method = file.service.add(name="Service").method.add(
        name="Do", input_type=".invented.Node", output_type=".invented.Node"
    )
    rule = method.options.Extensions[annotations_pb2.http]
    rule.post, rule.body = "/v1/{text_value=documents/*}:summarize", "*"
    pool = descriptor_pool.DescriptorPool()
    for known in (descriptor_pb2.DESCRIPTOR, struct_pb2.DESCRIPTOR):
        pool.AddSerializedFile(known.serialized_pb)
    http = annotations_pb2.DESCRIPTOR
    for dependency in (*http.dependencies, http):
        if dependency.name != descriptor_pb2.DESCRIPTOR.name:
            pool.AddSerializedFile(dependency.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindFileByName("invented.proto")


def _reference(text: str, root: Descriptor) -> list[tuple[str, str]] | None:
    """Names that are wrong and why; None where the text is no object of JSON. Python's own parser, with pairs kept."""
    wrong: list[tuple[str, str]] = []

    def walk(value: Any, kind: Descriptor | None, path: str) -> None:
        if isinstance(value, list):
            for index, item in enumerate(value):
                walk(item, kind, f"{path}[{index}]")
        if not isinstance(value, tuple):
            return
        is_map = kind is not None and kind.GetOptions().map_entry
        known = kind if kind is not None and not is_map and kind.full_name not in FREE else None
        fields = {spelling: f for f in known.fields for spelling in (f.name, f.json_name)} if known else {}
        seen = set()
        for name, item in value:
            place = f"{path}.{name}" if known else f'{path}["{name}"]'
            inner = None
            if is_map and kind is not None:
                inner = kind.fields_by_name["value"].message_type
            elif known and name in fields:
                inner = fields[name].message_type
            elif known:
                wrong.append((place.removeprefix("."), "UNKNOWN_FIELD"))
            same = fields[name].name if name in fields else name
            if same in seen:
                wrong.append((place.removeprefix("."), "DUPLICATE_FIELD"))
            seen.add(same)
            walk(item, inner, place)

    def bad_constant(name: str) -> float:
        raise ValueError(name)

    try:
        value = json.loads(text, object_pairs_hook=tuple, strict=False, parse_constant=bad_constant)
    except ValueError:
        return None
    if not isinstance(value, tuple):
        return None
    walk(value, root, "")
    return sorted(wrong)


def _random_json(draw: random.Random, depth: int = 0) -> str:
    """Objects with names that are right, wrong and twice, in no particular order."""
    kind = draw.random()
    if depth > 4 or kind < 0.15:
        return draw.choice(['"a"', '"\\"}{"', '"\\\\"', "1", "-1.5e3", "true", "null", '""', '"é,]"'])
    space = draw.choice(["", " ", "\n\t"])
    count = draw.randrange(3)
    if kind < 0.35:
        return f"[{space}" + f"{space},".join(_random_json(draw, depth + 1) for _ in range(count)) + f"{space}]"
    names = ["byName", "by_name", "nodes", "node", "node", "free", "anyValue", "any_value", "n\\u006fde", "nod", "x y"]
    pairs = [f'"{draw.choice(names)}"{space}:{_random_json(draw, depth + 1)}' for _ in range(count + 1)]
    return "{" + space + f",{space}".join(pairs) + space + "}"


async def test_any_json_is_read_as_a_parser_reads_it(
    clean: Mesh, short_dir: Path, mesh_pki: CertificateAuthority
) -> None:
    contract = _invented()
    root = contract.message_types_by_name["Node"]
    edge = Edge(short_dir / "invented", clean, tls_dir=mesh_pki.tls_dir("edge"), ca_file=mesh_pki.ca_file)
    script = edge.directory / "strict_json.lua"
    script.write_text(tables([contract]) + script.read_text()[script.read_text().index("-- What is said of") :])
    draw = random.Random(37)
    texts = [_random_json(draw) for _ in range(150)]
    for text in texts[:40]:  # and what is no JSON any more, most of them
        cut = draw.randrange(len(text))
        texts.append(text[:cut] + draw.choice(["", "{", "]", '"', ",", ":", "\\", "}"]) + text[cut + 1 :])
    await edge.start()
    verdicts = {"told": 0, "fine": 0, "no json": 0}
    try:
        await edge.wait_all_healthy()
        for text in texts:
            expected = _reference(text, root)
            answer = await edge.call("POST", SUMMARIZE, body=text.encode(), headers=JSON)
            if expected:
                fields = sorted(field for field, _ in violations(answer))
                assert answer.reason in {reason for _, reason in expected}
                assert fields == sorted(field for field, _ in expected) or len(fields) == 10, text
                verdicts["told"] += 1
            else:
                assert not is_refused(answer), (text, answer)
                assert expected is not None or answer.status == 400, text
                verdicts["fine" if expected is not None else "no json"] += 1
    finally:
        edge.stop()
    assert min(verdicts.values()) > 10, verdicts
