"""A field that the contract does not know, or that is there twice, is refused before any service is called."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pagemesh_cli.stack.certificates import CertificateAuthority
from tests.edge.envoy.edge import KEY, Edge
from tests.edge.envoy.refusals import JSON, SUMMARIZE, is_refused, violations
from tests.edge.envoy.upstreams import DOCUMENT, Mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    ("body", "field", "hint"),
    [
        ('{"maxCots":{}}', "maxCots", "did you mean maxCost?"),
        ('{"max_cots":{}}', "max_cots", "did you mean max_cost?"),
        ('{"MaxCost":{}}', "MaxCost", "did you mean maxCost?"),
        ('{"\\u006daxCot\\u0073":{}}', "maxCots", "did you mean maxCost?"),
        ('{"anonymize":true}', "anonymize", "did you mean options.anonymise?"),
        ('{"options":{"anonymize":true}}', "options.anonymize", "did you mean anonymise?"),
        ('{"options":{"maxCost":{}}}', "options.maxCost", "did you mean maxCost of SummarizeRequest?"),
        (' {\n"options" :\t{ "length":"SUMMARY_LENGTH_SHORT" , "x":[{"y":[]}]}\r\n}', "options.x", "no such field"),
        (f'{{"document":"{DOCUMENT}","maxCost":{{"micro":1}}}}', "maxCost.micro", "did you mean micros?"),
        ('{"zzz":null}', "zzz", "SummarizeRequest has no such field"),
        # Near is what has a third of its letters wrong at most.
        ('{"maxest":1}', "maxest", "did you mean maxCost?"),
        ('{"documentId":"x"}', "documentId", "no such field; the path says it already; leave it out here"),
        ('{"id":"x"}', "id", "the path says it already"),
        ('{"name":"x"}', "name", "the path says it already"),
        ('{"options":{"name":"x"}}', "options.name", "no such field"),
        ('{"":1}', "", "no such field"),
        ('{"größe":1}', "größe", "no such field"),
        ('{"a\\n\\"\\\\\\ud83d\\ude00":1}', 'a\n"\\😀', "no such field"),
        ('{"' + "é" * 300 + '":1}', "é" * 99 + "...", "no such field"),
    ],
)
async def test_an_unknown_field_is_named(edge: Edge, clean: Mesh, body: str, field: str, hint: str) -> None:
    answer = await edge.call("POST", SUMMARIZE, body=body.encode(), headers=JSON)
    assert answer.reason == "UNKNOWN_FIELD"
    [(named, said)] = violations(answer)
    assert named == field
    assert hint in said
    assert clean.journal.calls == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"options":{},"options":{}}', "options"),
        ('{"maxCost":{},"max_cost":{}}', "max_cost"),
        ('{"options":{"focus":"a","f\\u006fcus":"b"}}', "options.focus"),
    ],
)
async def test_a_field_that_is_there_twice_is_refused(edge: Edge, clean: Mesh, body: str, field: str) -> None:
    answer = await edge.call("POST", SUMMARIZE, body=body.encode(), headers=JSON)
    assert answer.reason == "DUPLICATE_FIELD"
    assert [named for named, _ in violations(answer)] == [field]
    assert clean.journal.calls == []


@pytest.mark.parametrize("name", ["maxes", "styxx", "maxBudget", "opt", "x", "length1234"])
async def test_what_is_not_near_is_not_guessed_at(edge: Edge, clean: Mesh, name: str) -> None:
    [(_, said)] = violations(await edge.call("POST", SUMMARIZE, body={name: 1}))
    assert said == "SummarizeRequest has no such field"


OTHER = f"documents/{'9' * 32}"


@pytest.mark.parametrize(
    ("line", "body", "reason", "field", "hint"),
    [
        (f"POST {SUMMARIZE}", {"document": OTHER}, "DUPLICATE_FIELD", "document", "the path says it already"),
        (f"POST {SUMMARIZE}", {"document": ""}, "DUPLICATE_FIELD", "document", "leave it out here"),
        (f"POST {SUMMARIZE}?document={OTHER}", {}, "DUPLICATE_FIELD", "document", "the path says it already"),
        (f"POST {SUMMARIZE}?d%6Fcument={DOCUMENT}", {}, "DUPLICATE_FIELD", "document", "the path says it already"),
        (f"GET /v1/{DOCUMENT}?name={OTHER}", None, "DUPLICATE_FIELD", "name", "the path says it already"),
        (f"GET /v1/{DOCUMENT}?document=x", None, "UNKNOWN_FIELD", "document", "the path says it already"),
        (f"GET /v1/{DOCUMENT}", {"name": OTHER}, "DUPLICATE_FIELD", "name", "the path says it already"),
        (f"DELETE /v1/{DOCUMENT}?name={OTHER}", None, "DUPLICATE_FIELD", "name", "the path says it already"),
        (f"PATCH /v1/{DOCUMENT}", {"name": OTHER}, "DUPLICATE_FIELD", "document.name", "the path says it already"),
        (f"PATCH /v1/{DOCUMENT}?name=x", {}, "UNKNOWN_FIELD", "name", "the path says it already"),
        (f"PATCH /v1/{DOCUMENT}?document.name={OTHER}", {}, "DUPLICATE_FIELD", "document.name", "leave it out here"),
        (f"PATCH /v1/{DOCUMENT}", {"document": {}}, "UNKNOWN_FIELD", "document.document", "leave this level out"),
        (f"PATCH /v1/{DOCUMENT}", {"updateMask": ""}, "UNKNOWN_FIELD", "document.updateMask", "as ?updateMask=..."),
        ("POST /v1/apiKeys/0123456789abcdef:revoke", {"apiKey": "x"}, "UNKNOWN_FIELD", "apiKey", "the path says it"),
    ],
)
async def test_what_the_path_says_is_not_said_again(  # noqa: PLR0917  # a table
    edge: Edge, clean: Mesh, line: str, body: object, reason: str, field: str, hint: str
) -> None:
    """The transcoder would take the parameter: another document than the path's would be read, or erased."""
    verb, path = line.split()
    answer = await edge.call(verb, path, body=body)
    assert answer.reason == reason
    [(named, said)] = violations(answer)
    assert named == field
    assert hint in said
    assert clean.journal.calls == []


async def test_a_resource_may_be_sent_back_as_it_came(edge: Edge, clean: Mesh) -> None:
    same = DOCUMENT.replace("/", "\\/").replace("d", "\\u0064", 1)
    for body in (f'{{"document":"{DOCUMENT}"}}', f'{{"document":"{same}"}}', '{"document":null}'):
        answer = await edge.call("POST", SUMMARIZE, body=body.encode(), headers=JSON)
        assert answer.status == 200, answer


@pytest.mark.parametrize("body", [b'"x"', b"null", b"5", b"[]"])
async def test_a_body_is_an_object(edge: Edge, clean: Mesh, body: bytes) -> None:
    answer = await edge.call("POST", SUMMARIZE, body=body, headers=JSON)
    assert (answer.status, answer.reason) == (400, "INVALID_REQUEST")
    assert answer.json["message"] == "The body is not a JSON object: see byte 1, it has to begin with {."


async def test_all_is_told_at_once_and_not_too_much(edge: Edge, clean: Mesh) -> None:
    body = {"maxCots": 1, "options": {"lenght": 1, "style": 1}, **{f"x{number}": 1 for number in range(50)}}
    found = violations(await edge.call("POST", SUMMARIZE, body=body))
    assert [field for field, _ in found[:3]] == ["maxCots", "options.lenght", "x0"]
    assert len(found) == 10


@pytest.mark.parametrize(
    "body",
    [
        b"{broken",
        b"{'maxCots':1}",
        b"{maxCots:1}",
        b'{"maxCots":1',
        b'{"maxCots',
        b'{"maxCots"',
        b'{"maxCots\\',
        b'{"maxCots":1,}',
        b'{"maxCots":1} {}',
        b'{"maxCots" 1}',
        b'{"\\x":1}',
        b'{"\\ud800":1}',
        b'{"\\udc00":1}',
        b'{,"maxCots":1}',
        b'{"maxCots":1]',
        b'{/**/"maxCots":1}',
        b"\xef\xbb\xbf{}",
        b'{"options":{"focus":"\xff"}}',
        b'{"options":{"focus":\xff}}',
        b"]",
        b" ",
        b"[" * 200_000,
        b'{"options":' * 50_000,
        b"[]",
        b'[{"options":{}}]',
    ],
)
async def test_what_is_no_json_or_no_message_is_refused_as_ever(edge: Edge, clean: Mesh, body: bytes) -> None:
    answer = await edge.call("POST", SUMMARIZE, body=body, headers=JSON)
    assert (answer.status, answer.json["code"], answer.reason) == (400, 3, "INVALID_REQUEST")
    assert answer.json["message"]
    assert clean.journal.calls == []


MOST = 20_000
"""Of names, objects and lists."""


@pytest.mark.parametrize(
    ("one", "around"),
    [
        ('"{}":1', '{{"jsonSchema":{{{}}}}}'),
        ("[]", '{{"jsonSchema":{{"a":[{}]}}}}'),
        ('{{"{}":1}}', '{{"jsonSchema":{{"a":[{}]}}}}'),
    ],
    ids=["names", "lists", "objects with a name"],
)
async def test_a_body_has_no_more_parts_than_a_method_needs(edge: Edge, clean: Mesh, one: str, around: str) -> None:
    """Each costs the worker that others use as well."""
    each, others = (text.count('"') // 2 + text.count("{{") + text.count("[") for text in (one, around))
    room = (MOST - others) // each
    for count, refused in ((room, False), (room + 1, True)):
        body = around.format(",".join(one.format(f"k{number}") for number in range(count)))
        answer = await edge.call("POST", "/v1/schemas", body=body.encode(), headers=JSON)
        assert ("it has more than 20000 names, objects and lists" in answer.body.decode()) is refused
        assert answer.status == (400 if refused else 501), answer  # who answers has no such method
    assert clean.journal.calls == []


async def test_the_largest_batch_is_not_too_much(edge: Edge, clean: Mesh) -> None:
    body = {"documents": [f"documents/{number:032x}" for number in range(10_000)]}
    answer = await edge.call("POST", "/v1/jobs:batchCreate", body=body, headers=JSON)
    assert answer.status not in (400, 413), answer


async def test_a_name_that_is_no_utf8_is_told_in_json(edge: Edge, clean: Mesh) -> None:
    answer = await edge.call("POST", SUMMARIZE, body=b'{"k\xff\xc3":1}', headers=JSON)
    assert [field for field, _ in violations(answer)] == ["k??"]
    # Half a surrogate pair, a form that is too long, beyond the last character.
    for name in (b"\xed\xb0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80"):
        answer = await edge.call("POST", SUMMARIZE, body=b'{"k' + name + b'":1}', headers=JSON)
        assert [field for field, _ in violations(answer)] == ["k" + "?" * len(name)]


async def test_chunks_and_content_types_make_no_difference(edge: Edge, clean: Mesh) -> None:
    def pieces(*texts: bytes) -> Iterator[bytes]:
        yield from texts

    long = b"x" * 300_000
    chunked = pieces(b'{"options":{"focus":"', long, long, b'"},"maxC', b'ots":1}')
    assert violations(await edge.call("POST", SUMMARIZE, body=chunked, headers=JSON))[0][0] == "maxCots"
    chunked = pieces(b'{"options":{"focus":"', long, long, long, b'"}}')
    assert (await edge.call("POST", SUMMARIZE, body=chunked, headers=JSON)).status == 200
    chunked = pieces(b'{"options":{"focus":"', long, long, long, long, b'"}}')
    assert (await edge.call("POST", SUMMARIZE, body=chunked, headers=JSON)).status == 413
    for kind in ("text/plain", "application/grpcx", "application/grpc;x", ""):
        headers = {**KEY, "content-type": kind}
        assert is_refused(await edge.call("POST", SUMMARIZE, body=b'{"maxCots":1}', headers=headers)), kind


@pytest.mark.parametrize(
    "path",
    [
        f"/{SUMMARIZE}",
        f"/v1/.{SUMMARIZE[3:]}",
        f"/v1//{DOCUMENT}:summarize",
        f"/v1/{DOCUMENT}:%73ummarize",
        f"/v1/{DOCUMENT}:x:summarize",
        f"/v1/{DOCUMENT}:summarize?",
        f"/v1/{DOCUMENT}:summarize?options.focus=%3A/:x",
        f"/v1/{DOCUMENT}:summarize/",
        f"/v1/{DOCUMENT}/summarize",
        f"/v1/{DOCUMENT}%3Asummarize",
        f"/v1/{DOCUMENT}:summarize;x",
        f"/v1/{DOCUMENT}:SUMMARIZE",
    ],
)
async def test_no_spelling_of_a_path_goes_round_it(edge: Edge, clean: Mesh, path: str) -> None:
    """What reaches a service with good fields is refused with others."""
    reached = (await edge.call("POST", path, body=b"{}", headers=JSON)).status == 200
    answer = await edge.call("POST", path, body=b'{"maxCots":1}', headers=JSON)
    assert is_refused(answer) or not reached
    assert answer.status in {400, 404}


async def test_parameters_and_bodies_of_reads_too(edge: Edge, clean: Mesh) -> None:
    async def refused(line: str, body: bytes | None = None) -> list[str]:
        verb, path = line.split()
        return [field for field, _ in violations(await edge.call(verb, path, body=body, headers=JSON))]

    assert await refused("GET /v1/usage?pageSize=1&page%53izes=2") == ["pageSizes"]
    assert await refused("GET /v1/usage?colour") == ["colour"]
    assert await refused("GET /v1/usage", b'{"pageSizes":1}') == ["pageSizes"]
    assert await refused(f"POST {SUMMARIZE}?options.maxCots=1", b"{}") == ["options.maxCots"]
    assert await refused("POST /v1/documents:upload?display_nam=x", b"file") == ["display_nam"]
    assert clean.journal.calls == []
    taken = await edge.call("POST", "/v1/documents:upload?display_name=x", body=b'{"a":1,"a":2', headers=JSON)
    assert taken.status == 200  # a file may be JSON, or begin like it
    answer = await edge.call("GET", "/v1/usage?page%53ize=3&start_time.seconds=1", headers=KEY)
    assert (answer.status, answer.json["totalRecords"]) == (200, "3")


async def test_strangers_are_not_read(edge: Edge, clean: Mesh) -> None:
    answer = await edge.call("POST", SUMMARIZE, body=b'{"maxCots":1}', headers={"content-type": "application/json"})
    assert answer.status == 401
    rendered = yaml.safe_load(edge.config.read_text())
    manager = rendered["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    names = [entry["name"].rpartition(".")[2] for entry in manager["http_filters"]]
    ordered = ["limit_by_address", "ext_authz", "limit_by_caller", "body_limit", "strict_json", "grpc_json_transcoder"]
    assert [name for name in names if name in ordered] == ordered


async def test_a_script_that_fails_lets_nothing_pass(
    clean: Mesh, short_dir: Path, mesh_pki: CertificateAuthority
) -> None:
    edge = Edge(short_dir / "broken", clean, tls_dir=mesh_pki.tls_dir("edge"), ca_file=mesh_pki.ca_file)
    script = edge.directory / "strict_json.lua"
    script.write_text(
        script.read_text().replace(
            "local function check(", 'local function check() error("ouch") end\nlocal function was('
        )
    )
    await edge.start()
    try:
        await edge.wait_all_healthy()
        answer = await edge.call("POST", SUMMARIZE, body=b"{}", headers=JSON)
        assert (answer.status, answer.reason) == (500, "EDGE_ERROR")
        assert clean.journal.calls == []
    finally:
        edge.stop()
    assert "ouch" in (edge.directory / "envoy.log").read_text()
