"""A client certificate in the place of a key, through the real edge."""

import http.client
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunningStack
from tests.edge.conftest import CREATE_KEY, REVOKE_KEY, World

Call = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def call(stack: RunningStack) -> Call:
    """`call("GET", "/v1/whoami", shows="operator")`: over a connection that shows that certificate."""

    def send(verb: str, path: str, *, shows: str = "", key: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
        context = ssl.create_default_context(cafile=str(stack.ca_file))
        if shows:
            folder: Path = stack.tls_dir(shows)
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        connection = http.client.HTTPSConnection(stack.host, stack.port, context=context, timeout=60)
        try:
            if key:
                headers["authorization"] = f"Bearer {key}"
            connection.request(verb, path, "{}" if verb == "POST" else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    return send


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_certificate_stands_for_the_key_that_registered_it(call: Call, world: World) -> None:
    admin = world.keys["admin"]
    made = world.edge.grpc(CREATE_KEY, {"display_name": "with certificate", "scopes": ["usage.read"]}, admin)
    key, name = made.messages[0]["secret"], made.messages[0]["apiKey"]["name"]
    assert call("GET", "/v1/whoami", shows="operator")[0] == 401
    status, refused = call("POST", "/v1/clientCertificates:register", key=key)
    assert (status, refused["details"][0]["reason"]) == (400, "CERTIFICATE_NEEDED")
    forged = {"x-pagemesh-certificate": "a" * 64}
    assert call("POST", "/v1/clientCertificates:register", key=key, **forged)[0] == 400

    status, registered = call("POST", "/v1/clientCertificates:register", shows="operator", key=key)
    assert (status, registered["clientCertificate"]["apiKey"]) == (200, name)
    status, who = call("GET", "/v1/whoami", shows="operator")
    assert (status, who["actor"], who["scopes"]) == (200, name, ["usage.read"])
    assert call("GET", "/v1/usage", shows="operator")[0] == 200
    assert call("GET", "/v1/whoami", shows="summarizer")[0] == 401
    assert call("GET", "/v1/whoami")[0] == 401
    assert call("GET", "/v1/whoami", shows="operator", origin="https://evil.example.org")[0] == 401
    assert call("GET", "/v1/whoami", shows="operator", key="nonsense")[0] == 401
    status, other = call("POST", "/v1/clientCertificates:register", shows="operator", key=world.keys["other"])
    assert (status, other["details"][0]["reason"]) == (409, "CERTIFICATE_IN_USE")
    status, session = call("POST", "/v1/sessions:exchange", shows="operator")
    assert (status, session["session"]["apiKey"]) == (200, name)
    status, refused = call("POST", "/v1/clientCertificates:register", shows="summarizer", key=session["accessToken"])
    assert (status, refused["details"][0]["reason"]) == (400, "KEY_NEEDED")

    certificate = registered["clientCertificate"]["name"]
    listed = call("GET", "/v1/clientCertificates", key=admin)[1]["clientCertificates"]
    assert [each["name"] for each in listed] == [certificate]
    assert call("DELETE", f"/v1/{certificate}", key=world.keys["other"])[0] == 404
    assert call("DELETE", f"/v1/{certificate}", shows="operator")[0] == 200
    until(lambda: call("GET", "/v1/whoami", shows="operator")[0] == 401)

    assert call("POST", "/v1/clientCertificates:register", shows="operator", key=key)[0] == 200
    assert call("GET", "/v1/whoami", shows="operator")[0] == 200
    assert world.edge.grpc(REVOKE_KEY, {"name": name}, admin).code == "OK"
    until(lambda: call("GET", "/v1/whoami", shows="operator")[0] == 401)
