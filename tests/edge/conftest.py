"""The whole stack with two tenants, their keys, and documents of every kind, for all cases of a session."""

from dataclasses import dataclass
from typing import Any

import pytest
from google.api import httpbody_pb2

from pagemesh.extractor.v1 import extractor_service_pb2
from tests.conftest import RunningStack
from tests.edge import files
from tests.edge.calling import Edge

UPLOAD = "pagemesh.extractor.v1.ExtractorService/UploadDocument"
CREATE_KEY = "pagemesh.ledger.v1.IdentityService/CreateApiKey"
REVOKE_KEY = "pagemesh.ledger.v1.IdentityService/RevokeApiKey"
CREATE_PROJECT = "pagemesh.ledger.v1.IdentityService/CreateProject"
CREATE_USER = "pagemesh.ledger.v1.IdentityService/CreateUser"
CREATE_SCHEMA = "pagemesh.summarizer.v1.SchemaService/CreateSchema"
EXCHANGE = "pagemesh.ledger.v1.CredentialService/ExchangeToken"
REVOKE_SESSION = "pagemesh.ledger.v1.CredentialService/RevokeSession"


@dataclass(frozen=True)
class World:
    """What the cases speak of: `keys` by role, and the names behind `$NAME` in their requests."""

    edge: Edge
    keys: dict[str, str]
    names: dict[str, str]


def chunks(content: bytes, display_name: str = "") -> list[extractor_service_pb2.UploadDocumentRequest]:
    """A file as the messages of an upload, 256 KiB each."""
    size = 256 * 1024
    pieces = [content[start : start + size] for start in range(0, len(content), size)] or [b""]
    return [
        extractor_service_pb2.UploadDocumentRequest(
            content=httpbody_pb2.HttpBody(data=piece), display_name=display_name if index == 0 else ""
        )
        for index, piece in enumerate(pieces)
    ]


def _session(edge: Edge, key: str) -> tuple[str, str]:
    """The name of a new session of that key, and its token."""
    made = edge.grpc(EXCHANGE, {}, key)
    assert made.code == "OK", made
    return made.messages[0]["session"]["name"], made.messages[0]["accessToken"]


def _schema(edge: Edge, key: str) -> str:
    """The name of a version of `schemas/world`."""
    wanted = {"schema_id": "world", "json_schema": {"type": "object", "properties": {"title": {"type": "string"}}}}
    kept = edge.grpc(CREATE_SCHEMA, wanted, key)
    assert kept.code == "OK", kept
    return str(kept.messages[0]["schema"]["name"])


def _project(edge: Edge, key: str, project_id: str) -> str:
    made = edge.grpc(CREATE_PROJECT, {"project_id": project_id, "display_name": project_id}, key)
    assert made.code == "OK", made
    return str(made.messages[0]["project"]["name"])


def _user(edge: Edge, key: str, email: str, role: str) -> str:
    made = edge.grpc(CREATE_USER, {"email": email, "display_name": "Ada", "role": role}, key)
    assert made.code == "OK", made
    return str(made.messages[0]["user"]["name"])


def _uploaded(edge: Edge, key: str, content: bytes) -> str:
    stored = edge.grpc(UPLOAD, chunks(content), key)
    assert stored.code == "OK", stored
    return str(stored.messages[0]["document"]["name"])


def _batch(edge: Edge, key: str) -> str:
    """The name of a new batch of that key, of one job on a document that is not there."""
    request = {"documents": [f"documents/{'0' * 32}"], "work": {"extract": {}}}
    made = edge.grpc("pagemesh.summarizer.v1.JobService/BatchCreateJobs", request, key)
    return str(made.messages[0]["batch"]["name"])


def _job(edge: Edge, key: str, batch: str) -> str:
    """The name of its job."""
    listed = edge.grpc("pagemesh.summarizer.v1.JobService/ListJobs", {"batch": batch}, key)
    return str(listed.messages[0]["jobs"][0]["name"])


def _budget(edge: Edge, key: str) -> str:
    """The name of a new budget of that key's tenant."""
    limit = {"period": "BUDGET_PERIOD_TOTAL", "hard_limit": {"currency": "USD", "micros": 10**12}}
    made = edge.grpc("pagemesh.ledger.v1.LedgerService/CreateBudget", {"budget_id": "theirs", "budget": limit}, key)
    return str(made.messages[0]["budget"]["name"])


def _webhook(edge: Edge, key: str) -> str:
    """The name of a new webhook of that key's tenant."""
    made = edge.grpc("pagemesh.ledger.v1.LedgerService/CreateWebhook", {"url": "https://example.com/theirs"}, key)
    return str(made.messages[0]["webhook"]["name"])


@pytest.fixture(scope="session")
def world(stack: RunningStack) -> World:
    edge = Edge(stack.host, stack.port, stack.ca_file)
    admin, other = stack.admin_key, stack.new_tenant("second")
    keys = {
        "admin": admin,
        "other": other,
        "none": "",
        "nonsense": "not-a-key",
        "wrong": f"pm_{'0' * 16}_{'x' * 43}",
    }

    def create(display_name: str, scopes: list[str], key: str = admin) -> dict[str, Any]:
        made = edge.grpc(CREATE_KEY, {"display_name": display_name, "scopes": scopes}, key)
        assert made.code == "OK", made
        return made.messages[0]

    single = {"reader": "documents.read", "summarist": "summaries.create", "asker": "answers.create"}
    for name, scope in {**single, "fielder": "fields.create", "jobber": "jobs.create"}.items():
        keys[name] = create(name, [scope])["secret"]
    revoked, doomed = create("revoked", ["documents.read"]), create("doomed", ["documents.read"])
    keys["revoked"] = revoked["secret"]
    assert edge.grpc(REVOKE_KEY, {"name": revoked["apiKey"]["name"]}, admin).code == "OK"

    keys["people"] = create("people", ["keys.admin", "users.admin"])["secret"]
    sessions = {name: _session(edge, keys["reader"]) for name in ("session", "ended_session")}
    sessions["orphaned_session"] = _session(edge, doomed["secret"])
    sessions["other_session"] = _session(edge, other)
    assert edge.grpc(REVOKE_SESSION, {"name": sessions["ended_session"][0]}, admin).code == "OK"
    assert edge.grpc(REVOKE_KEY, {"name": doomed["apiKey"]["name"]}, admin).code == "OK"
    keys |= {name: token for name, (_, token) in sessions.items()}
    signed, _, signature = keys["session"].rpartition(".")
    keys["forged_session"] = f"{signed}.{signature[::-1]}"
    keys["unsigned_session"] = f"{signed}."

    batch = _batch(edge, other)
    names = {
        "SCHEMA": "schemas/world",
        "SCHEMA_VERSION": _schema(edge, admin),
        "GOOD": _uploaded(edge, admin, files.good()),
        "ENCRYPTED": _uploaded(edge, admin, files.encrypted()),
        "WITHOUT_PAGES": _uploaded(edge, admin, files.without_pages()),
        "HEADER_ONLY": _uploaded(edge, admin, files.header_only()),
        "TRUNCATED": _uploaded(edge, admin, files.truncated()),
        "OTHER": _uploaded(edge, other, files.good(2)),
        "OTHER_KEY": create("theirs", ["documents.read"], other)["apiKey"]["name"],
        "KEY": create("mine", ["documents.read"])["apiKey"]["name"],
        "PROJECT": _project(edge, admin, "red"),
        "OTHER_PROJECT": _project(edge, other, "theirs"),
        "USER": _user(edge, admin, "ada@acme.example", "ROLE_MEMBER"),
        "LAST_ADMIN": _user(edge, admin, "eve@acme.example", "ROLE_ADMIN"),
        "OTHER_USER": _user(edge, other, "ada@acme.example", "ROLE_ADMIN"),
        "OTHER_SESSION": sessions["other_session"][0],
        "ENDED_SESSION": sessions["ended_session"][0],
        "OTHER_BATCH": batch,
        "OTHER_JOB": _job(edge, other, batch),
        "OTHER_BUDGET": _budget(edge, other),
        "OTHER_WEBHOOK": _webhook(edge, other),
        "UNKNOWN": f"documents/{'0' * 32}",
        "LONG_TEXT": "x" * 501,
        "VERY_LONG_TEXT": "x" * 1001,
    }
    return World(edge, keys, names)
