"""Every case in cases/*.yaml, over gRPC and over JSON, through the real edge to the real services.

A case names an rpc, a key (`admin` where it names none) and a request, in which `$NAME` stands for what the session's
world has under that name. `want` has both statuses and, where they matter, the machine reason, the field that is at
fault, the events of a stream, what the answer contains, and what is empty in it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.api import resource_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from buf.validate import validate_pb2
from pagemesh.common.v1 import access_pb2
from tests.edge.calling import METHODS, Outcome
from tests.edge.conftest import World


def load() -> list[Any]:
    found = []
    for path in sorted((Path(__file__).parent / "cases").glob("*.yaml")):
        for case in yaml.safe_load(path.read_text()):
            found.append(pytest.param(case, id=f"{path.stem}: {case['name']}"))
    return found


def filled(value: Any, names: dict[str, str]) -> Any:
    """The value with each `$NAME` replaced."""
    if isinstance(value, dict):
        return {key: filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, names) for item in value]
    if isinstance(value, str) and value.startswith("$"):
        return names[value[1:]]
    return value


def check(outcome: Outcome, want: dict[str, Any]) -> None:
    assert outcome.code == want["grpc"], outcome
    if want["grpc"] != "OK":
        assert outcome.message, "an error says what to do"
        # Envoy speaks for the ledger where a key is refused: a code and a message, no details over gRPC.
        assert outcome.reason == want.get("reason", outcome.reason), outcome
        assert want.get("field", "") in ("", *outcome.fields), outcome
    if "events" in want:
        assert [next(iter(message)) for message in outcome.messages] == [_camel(name) for name in want["events"]]
    for name, value in want.get("contains", {}).items():
        assert _holds(outcome.messages[0][name], value), outcome
    for name in want.get("absent", ()):
        assert not outcome.messages[0].get(name), outcome


def _holds(got: Any, wanted: Any) -> bool:
    """Whether objects have at least what is wanted of them, and everything else is the same."""
    if isinstance(wanted, dict):
        return isinstance(got, dict) and all(name in got and _holds(got[name], value) for name, value in wanted.items())
    return bool(got == wanted)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


@pytest.mark.parametrize("case", load())
def test_over_grpc(case: dict[str, Any], world: World) -> None:
    request = filled(case.get("request", {}), world.names)
    check(world.edge.grpc(case["rpc"], request, world.keys[case.get("key", "admin")]), case["want"])


@pytest.mark.parametrize("case", load())
def test_over_json(case: dict[str, Any], world: World) -> None:
    request = filled(case.get("request", {}), world.names)
    outcome = world.edge.json(case["rpc"], request, world.keys[case.get("key", "admin")])
    wanted = case["want"]["http"]
    assert outcome.http in (wanted if isinstance(wanted, list) else [wanted]), outcome
    if outcome.http == 404 and wanted != 404:
        return  # the path itself does not fit: there is no method to complain about a field
    check(outcome, case["want"])
    assert outcome.headers.get("x-request-id")


def test_every_public_method_has_a_case() -> None:
    covered = {param.values[0]["rpc"] for param in load()}
    public = {name for name, method in METHODS.items() if _is_public(method)}
    # Uploads and streams of events have tests of their own beside this file.
    assert public - covered <= {
        "pagemesh.extractor.v1.ExtractorService/UploadDocument",
    }


ELSEWHERE = {
    # What is there has to be made by a browser, an issuer or an event: the stores are asked for another tenant's.
    "pagemesh.ledger.v1.BrowserSessionService/DeleteBrowserSession": "contract/test_ledger_browser_sessions.py",
    "pagemesh.ledger.v1.CredentialService/DeleteClientCertificate": "contract/test_ledger_certificates.py",
    "pagemesh.ledger.v1.CredentialService/DeleteIdentityProvider": "contract/test_ledger_providers.py",
    "pagemesh.ledger.v1.LedgerService/RetryWebhookDelivery": "contract/test_ledger_webhooks.py",
    # Documents are read in the tenant's name when the work is done, by the same way as those of the other methods.
    "pagemesh.summarizer.v1.JobService/BatchCreateJobs": "contract/test_extractor_documents.py",
    "pagemesh.summarizer.v1.SummarizerService/EmbedDocument": "integration/summarizer/test_embeddings.py",
    # Each tenant has one, whose name holds no id.
    "pagemesh.summarizer.v1.ModelPolicyService/UpdateModelPolicy": "contract/test_summarizer_policies.py",
    # The same condition on the same rows as QueryUsage.
    "pagemesh.ledger.v1.LedgerService/ExportUsage": "integration/ledger/test_usage.py",
}
"""Where another tenant's ids are tried at methods that have no case of it here."""


def test_every_method_that_takes_an_id_is_tried_with_another_tenants() -> None:
    tried = {
        case["rpc"]
        for case in (param.values[0] for param in load())
        if "$OTHER" in str(case.get("request")) or case.get("key") == "other" or "another tenant" in case["name"]
    }
    takes = {name for name, method in METHODS.items() if _is_public(method) and any(_ids(method.input_type))}
    assert takes - tried - ELSEWHERE.keys() == set()
    assert all((Path(__file__).parents[1] / path).exists() for path in ELSEWHERE.values())


def _ids(message: Descriptor, depth: int = 0) -> Iterator[str]:
    """The fields that name a resource, by what the contract says of them or by the form that it asks for."""
    for field in message.fields:
        options = field.GetOptions()
        if field.message_type is not None:
            if depth < _DEEPEST and field.message_type.full_name.startswith("pagemesh."):
                yield from _ids(field.message_type, depth + 1)
            continue
        form = options.Extensions[validate_pb2.field].string.pattern
        if options.Extensions[resource_pb2.resource_reference].type or (field.name == "name" and form):
            yield field.full_name


_DEEPEST = 3


def _is_public(method: MethodDescriptor) -> bool:
    access = method.GetOptions().Extensions[access_pb2.access]
    return bool(access.scope) or access.any_scope
