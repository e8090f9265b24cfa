"""Schemas of callers: what is refused and where, what is looked for, and that none of them can take much time."""

from typing import Any

import pytest

from services.runtime.errors import InvalidArgument
from services.summarizer.domain.json_schema import MAX_BYTES, MAX_DEPTH, MAX_TARGETS, check


def with_properties(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = with_properties(a=schema)
    return schema


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no object": ({"type": "array"}, "/type"),
    "no type": ({"properties": {"a": {}}}, "/type"),
    "no properties": ({"type": "object"}, "/properties"),
    "an unknown type": (with_properties(a={"type": "money"}), "/properties/a/type"),
    "a length below zero": (with_properties(a={"minLength": -1}), "/properties/a/minLength"),
    "a broken pattern": (with_properties(a={"pattern": "("}), "/properties/a/pattern"),
    "look-ahead": (with_properties(a={"pattern": "(?=a)"}), "/properties/a/pattern"),
    "a back-reference": (with_properties(a={"pattern": r"(a)\1"}), "/properties/a/pattern"),
    "a pattern that explodes": (with_properties(a={"pattern": r"(\w{999}){999}"}), "/properties/a/pattern"),
    "another document": (with_properties(a={"$ref": "http://127.0.0.1:1/x"}), "/properties/a/$ref"),
    "a file": (with_properties(a={"$ref": "file:///etc/passwd"}), "/properties/a/$ref"),
    "a reference to nothing": (with_properties(a={"$ref": "#/$defs/b"}), "/properties/a/$ref"),
    "a reference to text": (with_properties(a={"title": "x", "$ref": "#/properties/a/title"}), "/properties/a/$ref"),
    "a reference to itself": (with_properties(a={"$ref": "#/properties/a"}), "/$ref"),
    "a tree": (
        {**with_properties(a={"$ref": "#/$defs/n"}), "$defs": {"n": with_properties(n={"$ref": "#/$defs/n"})}},
        "/$ref",
    ),
    "a place that is no schema": (
        {**with_properties(a={"$ref": "#/x"}), "x": {"properties": [1]}},
        "/properties/a/$ref",
    ),
    "a default": (
        with_properties(a={"$ref": "#/properties/b/default"}, b={"default": {"type": 5}}),
        "/properties/a/$ref",
    ),
    "the root": (with_properties(a={"$ref": "#"}), "/properties/a/$ref"),
    "an anchor": (with_properties(a={"$anchor": "x"}), "/properties/a/$anchor"),
    "a dynamic reference": (with_properties(a={"$dynamicRef": "#x"}), "/properties/a/$dynamicRef"),
    "another base": (with_properties(a={"$id": "http://x.example/"}), "/properties/a/$id"),
    "another dialect": ({"$schema": "http://json-schema.org/draft-07/schema#", **with_properties(a={})}, "/$schema"),
    "a name with a slash": (with_properties(**{"a/b~": {"type": "x"}}), "/properties/a~1b~0/type"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_with_its_place(case: str) -> None:
    schema, pointer = REFUSED[case]
    with pytest.raises(InvalidArgument) as caught:
        check(schema)
    assert (caught.value.reason, caught.value.metadata["pointer"]) == ("SCHEMA_INVALID", pointer)
    assert pointer in caught.value.message
    assert [violation.field for violation in caught.value.fields] == ["json_schema"]


def chain(links: int) -> dict[str, object]:
    defs = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(links)} | {f"d{links}": {"type": "string"}}
    return {**with_properties(a={"$ref": "#/$defs/d0"}), "$defs": defs}


def billion() -> dict[str, Any]:
    """Thirty levels of which each refers twice to the next: a thousand million when unrolled."""
    two = [{"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(30)]
    defs = {f"d{n}": schema for n, schema in enumerate([*two, {"type": "string"}])}
    return {**with_properties(a={"$ref": "#/$defs/d0"}), "$defs": defs}


TOO_LARGE = {
    "bytes": with_properties(a={"title": "x" * MAX_BYTES}),
    "levels": nested(MAX_DEPTH),
    "levels of a list": with_properties(a={"enum": [[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]}),
    "values": with_properties(**{f"p{n}": {} for n in range(MAX_TARGETS + 1)}),
    "pattern": with_properties(a={"pattern": "a" * 501}),
    "references": billion(),
    "a chain of references": chain(1050),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_what_is_too_large_is_refused(case: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check(TOO_LARGE[case])
    assert caught.value.reason == "SCHEMA_TOO_LARGE"


def test_a_property_may_be_called_like_a_keyword() -> None:
    schema = with_properties(**{"$ref": {"type": "string"}, "pattern": {"type": "string"}, "$id": {"type": "string"}})
    assert [target.name for target in check(schema).targets] == ["$id", "$ref", "pattern"]
    assert check(with_properties(a={"enum": [{"$ref": "http://x.example/"}, "b"]})).targets[0].options == ("b",)


def test_the_same_schema_has_the_same_digest_however_it_is_written() -> None:
    one = check({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}})
    other = check({"properties": {"b": {}, "a": {"type": "string"}}, "type": "object"})
    assert (one.digest, one.text) == (other.digest, other.text)
    assert one.digest != check(with_properties(a={"type": "string"})).digest


def test_what_is_looked_for() -> None:
    schema = {
        "type": "object",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.com/invoice",
        "properties": {
            "a": {"anyOf": [{"type": "string", "format": "date", "title": "Day"}, {"type": "null"}]},
            "b": {"$ref": "#/$defs/party"},
            "lines": {"type": "array", "items": {"allOf": [{"$ref": "#/$defs/line"}, {"properties": {"y": {}}}]}},
            "tags": {"type": "array"},
            "kind": {"enum": ["x", "y", 3]},
            "constant": {"const": True},
            "anything": True,
            "empty": {"type": "object"},
        },
        "$defs": {
            "party": {
                "oneOf": [{"properties": {"name": {"type": "string"}}}, {"properties": {"id": {"type": "integer"}}}]
            },
            "line": {"properties": {"x": {"type": ["number", "null"]}}},
        },
    }
    found = {target.template: target for target in check(schema).targets}
    assert set(found) == {
        ("a",), ("b", "name"), ("b", "id"), ("lines", None, "x"), ("lines", None, "y"), ("tags", None), ("kind",),
        ("constant",), ("anything",),
    }  # fmt: skip
    assert found[("a",)].kinds == {"string", "null"}
    assert (found[("a",)].format, found[("a",)].title) == ("date", "Day")
    assert found[("kind",)].options == ("x", "y")
    assert found[("constant",)].kinds == {"boolean"}
    assert found[("tags", None)].name == "tags"


def test_violations_are_told_without_the_documents_words() -> None:
    schema = with_properties(
        a={"type": "string", "pattern": "^x+$"},
        b={"type": "number", "minimum": 3, "multipleOf": 2},
        c={"enum": ["red", "green"]},
        d={"type": "string", "format": "date"},
        e={"type": "array", "items": {"type": "string"}, "uniqueItems": True, "maxItems": 2},
    )
    schema["required"] = ["a", "z"]
    value = {"a": "SECRET", "b": 1, "c": "SECRET", "d": "SECRET", "e": ["SECRET", "SECRET", 4]}
    violations, missing = check(schema).violations(value)
    assert missing == (("z",),)
    assert {(violation.path, violation.keyword) for violation in violations} == {
        (("a",), "pattern"), (("b",), "minimum"), (("b",), "multipleOf"), (("c",), "enum"), (("d",), "format"),
        (("e",), "uniqueItems"), (("e",), "maxItems"), (("e", 2), "type"),
    }  # fmt: skip
    assert "SECRET" not in repr(violations)
    assert all(violation.message.startswith("must") for violation in violations)


def test_a_pattern_cannot_hang_the_service() -> None:
    schema = check(with_properties(a={"type": "string", "pattern": "^(a+)+$"}))
    violations, _ = schema.violations({"a": "a" * 10_000 + "!"})
    assert len(violations) == 1


def test_violations_are_bounded() -> None:
    schema = check(with_properties(a={"type": "array", "items": {"type": "number"}}))
    violations, _ = schema.violations({"a": ["x"] * 1_000})
    assert len(violations) == 200
