"""Every case in cases/*.yaml, over gRPC and over JSON, through the real edge to the real services.

A case names an rpc, a key (`admin` where it names none) and a request, in which `$NAME` stands for what the session's
world has under that name. `want` has both statuses and, where they matter, the machine reason, the field that is at
fault, the events of a stream, and what the answer contains.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.descriptor import MethodDescriptor

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
        assert outcome.messages[0][name] == value


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


def _is_public(method: MethodDescriptor) -> bool:
    access = method.GetOptions().Extensions[access_pb2.access]
    return bool(access.scope) or access.any_scope
