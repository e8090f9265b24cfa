"""grpcurl as an operator or a developer uses it: no proto files, through the edge, and straight at a service."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import RunningStack
from tests.edge.conftest import World

_INSTALLED = Path(__file__).parents[2] / ".tools" / "grpcurl"
GRPCURL = str(_INSTALLED) if _INSTALLED.exists() else shutil.which("grpcurl")

pytestmark = pytest.mark.skipif(GRPCURL is None, reason="grpcurl is not installed: `make tools` does it where Go is")


def grpcurl(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert GRPCURL is not None
    return subprocess.run([GRPCURL, *arguments], capture_output=True, text=True, timeout=60, check=False)


def through_edge(world: World, *arguments: str, key: str = "admin", data: object = None) -> tuple[int, str]:
    options = ["-cacert", str(world.edge.ca_file), "-H", f"authorization: Bearer {world.keys[key]}"]
    if data is not None:
        options += ["-d", json.dumps(data)]
    done = grpcurl(*options, f"{world.edge.host}:{world.edge.port}", *arguments)
    return done.returncode, done.stdout + done.stderr


def test_it_lists_the_public_services(world: World) -> None:
    code, told = through_edge(world, "list")
    assert code == 0, told
    for service in (
        "pagemesh.extractor.v1.ExtractorService",
        "pagemesh.summarizer.v1.SummarizerService",
        "pagemesh.ledger.v1.LedgerService",
        "pagemesh.ledger.v1.IdentityService",
        "grpc.health.v1.Health",
    ):
        assert service in told


def test_it_describes_a_message_with_its_bounds(world: World) -> None:
    code, told = through_edge(world, "describe", "pagemesh.summarizer.v1.SummaryOptions")
    assert code == 0, told
    assert "max_len: 500" in told


def test_it_calls_and_streams(world: World) -> None:
    code, told = through_edge(world, "pagemesh.ledger.v1.IdentityService/WhoAmI")
    assert code == 0, told
    assert json.loads(told)["tenant"] == "tenants/local"
    code, told = through_edge(
        world, "pagemesh.extractor.v1.ExtractorService/ExtractPages", data={"name": world.names["GOOD"]}
    )
    assert code == 0, told
    assert told.count('"pages_sent": 3') == 1
    code, told = through_edge(world, "grpc.health.v1.Health/Check")
    assert code == 0, told
    assert "SERVING" in told


def test_it_shows_what_is_wrong(world: World) -> None:
    code, told = through_edge(world, "pagemesh.extractor.v1.ExtractorService/ListDocuments", data={"pageSize": 5000})
    assert code != 0
    for wanted in ("InvalidArgument", "INVALID_FIELD", "page_size"):
        assert wanted in told


def test_without_a_key_there_is_not_even_a_list(world: World) -> None:
    code, told = through_edge(world, "list", key="none")
    assert code != 0
    assert "Unauthenticated" in told


@pytest.mark.parametrize("method", ["Reserve", "Settle", "Release", "RecordUsage"])
def test_internal_methods_cannot_be_reached(world: World, method: str) -> None:
    code, told = through_edge(world, f"pagemesh.ledger.v1.LedgerService/{method}", data={})
    assert code != 0
    assert "Unimplemented" in told, told


@pytest.mark.parametrize("service", ["ledger", "extractor", "summarizer"])
def test_an_operator_looks_into_a_service(stack: RunningStack, service: str) -> None:
    folder = stack.tls_dir("operator")
    options = ["-cacert", f"{folder}/ca.crt", "-cert", f"{folder}/tls.crt", "-key", f"{folder}/tls.key"]
    options += ["-authority", f"{service}.pagemesh.local"]
    target = f"127.0.0.1:{stack.state.ports[service]}"
    listed = grpcurl(*options, target, "list")
    assert f"pagemesh.{service}.v1" in listed.stdout, listed.stderr
    assert "SERVING" in grpcurl(*options, target, "grpc.health.v1.Health/Check").stdout
    method = {
        "ledger": "ledger.v1.IdentityService/WhoAmI",
        "extractor": "extractor.v1.ExtractorService/ListDocuments",
        "summarizer": "summarizer.v1.SummarizerService/Summarize",
    }[service]
    refused = grpcurl(*options, "-H", "x-pagemesh-tenant: local", target, f"pagemesh.{method}")
    assert "PermissionDenied" in refused.stderr, "a certificate alone is nobody's key"
