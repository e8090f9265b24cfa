"""Which names the edge answers for."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from pagemesh.ledger.v1.identity_service_pb2 import WhoAmIRequest
from pagemesh.ledger.v1.identity_service_pb2_grpc import IdentityServiceStub
from pagemesh_cli.stack.edge import render
from pagemesh_cli.stack.errors import StackError
from tests.edge.envoy.edge import KEY, Edge, grpc_error, metadata
from tests.edge.envoy.test_routes import addresses
from tests.edge.envoy.upstreams import Mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def status(edge: Edge, host: str, path: str = "/v1/whoami", method: str = "GET") -> int:
    return (await edge.call(method, path, headers={**KEY, "host": host})).status


@pytest.mark.parametrize("host", ["localhost", "LocalHost:8443", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8443"])
async def test_it_answers_on_the_own_machine(edge: Edge, clean: Mesh, host: str) -> None:
    assert await status(edge, host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example.org", "localhost.evil.example.org", "localhost.", "127.0.0.2", "[::2]", "ledger", "xlocalhost"],
)
async def test_for_other_names_nothing_is_there_and_nobody_is_asked(edge: Edge, clean: Mesh, host: str) -> None:
    for method, path in (
        ("GET", "/v1/whoami"),
        ("POST", "/v1/documents:upload"),
        ("OPTIONS", "/v1/whoami"),
        ("GET", "/"),
    ):
        answer = await edge.call(method, path, headers={**KEY, "host": host, "origin": f"https://{host}"})
        assert (answer.status, answer.json["code"], answer.reason) == (421, 5, "HOST_UNKNOWN")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
    assert clean.authorizer.asked == []
    assert clean.journal.calls == []


async def test_an_open_path_is_as_shut_and_a_probe_knows_no_names(edge: Edge, clean: Mesh) -> None:
    assert await status(edge, "evil.example.org", "/v1/.well-known/jwks.json") == 421
    assert await status(edge, "10.0.0.7", "/healthz") == 200


async def test_over_grpc_the_authority_counts(edge: Edge, clean: Mesh) -> None:
    credentials = grpc.ssl_channel_credentials(edge.ca_file.read_bytes())
    options = [("grpc.default_authority", "evil.example.org"), ("grpc.ssl_target_name_override", "localhost")]
    async with grpc.aio.secure_channel(edge.target, credentials, options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await IdentityServiceStub(channel).WhoAmI(WhoAmIRequest(), metadata=metadata(), timeout=20)
    assert grpc_error(refused.value) == ("NOT_FOUND", "HOST_UNKNOWN")
    assert clean.authorizer.asked == []


async def test_an_operator_names_them(clean: Mesh, new_edge: Callable[..., Awaitable[Edge]]) -> None:
    edge = await new_edge(clean, hosts=("api.example.org", "*.apps.example.org", "2001:db8::1"))
    wanted = {
        "api.example.org": 200,
        "API.example.org:443": 200,
        "a.apps.example.org": 200,
        "a.b.apps.example.org": 200,
        "[2001:db8::1]:8443": 200,
        "apps.example.org": 421,
        "evilapps.example.org": 421,
        "localhost": 421,
    }
    assert {host: await status(edge, host) for host in wanted} == wanted


@pytest.mark.parametrize(
    "wrong", ["*", "a b", "https://a.example.org", "a.example.org:443", "a*.example.org", "*.", ""]
)
async def test_what_is_no_host_is_not_rendered(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(StackError, match="no host"):
        render(tmp_path, addresses=addresses(tmp_path), hosts=(wrong,))
