"""A browser at the real edge: what it is given, what it has to send, and what a page that forges its requests gets."""

import json
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from pagemesh.ledger.v1.browser_session_service_pb2 import (
    CreateBrowserSessionRequest,
    DeleteBrowserSessionRequest,
    ListBrowserSessionsRequest,
    ListBrowserSessionsResponse,
)
from pagemesh.ledger.v1.browser_session_service_pb2_grpc import BrowserSessionServiceStub
from tests.edge.calling import Outcome
from tests.edge.conftest import CREATE_KEY, REVOKE_KEY, World

COOKIE = "__Host-pagemesh-session"
ATTRIBUTES = ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"]
LIST = "/pagemesh.ledger.v1.BrowserSessionService/ListBrowserSessions"


class Browser:
    """As much of a browser as matters: it keeps the cookie and sends it along."""

    def __init__(self, world: World) -> None:
        self.edge = world.edge
        self.cookie = self.token = self.name = ""

    def send(self, verb: str, path: str, body: Any = None, **headers: str) -> Outcome:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            sent["cookie"] = f"theme=dark; {COOKIE}={self.cookie}"
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.edge.http(verb, path, content, {"content-type": "application/json", **sent})
        if (given := answer.headers.get("set-cookie", "")).startswith(f"{COOKIE}="):
            self.cookie = given.partition("=")[2].partition(";")[0]
        return answer

    def sign_in(self, credential: str, *scopes: str) -> Outcome:
        answer = self.send("POST", "/v1/browserSessions", {"scopes": scopes}, authorization=f"Bearer {credential}")
        if answer.http == 200:
            made = json.loads(answer.body)
            self.token, self.name = made["csrfToken"], made["browserSession"]["name"]
        return answer


@pytest.fixture
def browser(world: World) -> Browser:
    return Browser(world)


def fresh_key(world: World, *scopes: str) -> tuple[str, str]:
    """A key of its own, with its own limits, and its name."""
    made = world.edge.grpc(CREATE_KEY, {"display_name": "person", "scopes": scopes}, world.keys["admin"])
    return made.messages[0]["secret"], made.messages[0]["apiKey"]["name"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_from_signing_in_to_signing_out(world: World, browser: Browser) -> None:
    key, name = fresh_key(world, "usage.read", "keys.admin")
    answer = browser.sign_in(key, "usage.read")
    assert answer.http == 200
    given = answer.headers["set-cookie"].split("; ")
    assert given[0] == f"{COOKIE}={browser.cookie}"
    assert given[1:] == [*ATTRIBUTES, "Max-Age=86400"]
    assert answer.headers["cache-control"] == "no-store"
    assert browser.cookie.encode() not in answer.body, "no script is to read it"

    who = json.loads(browser.send("GET", "/v1/whoami").body)
    assert (who["actor"], who["scopes"]) == (name, ["usage.read"])
    again = json.loads(browser.send("GET", "/v1/browserSessions:current").body)
    assert (again["csrfToken"], again["browserSession"]["name"]) == (browser.token, browser.name)
    listed = json.loads(browser.send("GET", "/v1/browserSessions").body)["browserSessions"]
    assert [session["name"] for session in listed] == [browser.name]

    stolen = browser.cookie
    assert browser.send("DELETE", f"/v1/{browser.name}").http == 403
    gone = browser.send("DELETE", f"/v1/{browser.name}", x_csrf_token=browser.token)
    assert (gone.http, browser.cookie) == (200, "")
    assert gone.headers["set-cookie"].split("; ") == [f"{COOKIE}=", *ATTRIBUTES, "Max-Age=0"]
    browser.cookie = stolen
    until(lambda: browser.send("GET", "/v1/whoami").http == 401)
    assert browser.cookie == "", "the answer has the browser forget what lets nobody in"
    assert browser.sign_in(key).http == 200, "and so it can sign in anew"
    assert browser.cookie != stolen


def test_a_forged_request_changes_nothing_by_whatever_way(world: World, browser: Browser) -> None:
    key, _ = fresh_key(world, "usage.read", "keys.admin")
    assert browser.sign_in(key).http == 200
    mine, other = browser.token, Browser(world)
    assert other.sign_in(key).http == 200
    cases: list[tuple[str, str, Any]] = [
        ("POST", "/v1/sessions:exchange", {}),
        ("PATCH", "/v1/projects/red", {"displayName": "x"}),
        ("DELETE", f"/v1/{browser.name}", None),
        ("POST", LIST, b"\0\0\0\0\0"),
    ]
    for verb, path, body in cases:
        for token in ("", other.token, mine[::-1]):
            for kind in ("application/json", "text/plain", "application/grpc-web+proto"):
                answer = browser.send(verb, path, body, x_csrf_token=token, content_type=kind)
                assert answer.headers.get("grpc-status", "7") == "7"
                assert answer.http == 403 or "grpc" in kind
    read = browser.send("GET", "/v1/whoami", sec_fetch_site="cross-site")
    assert (read.http, read.reason) == (403, "PERMISSION_DENIED")
    assert browser.send("GET", "/v1/whoami", sec_fetch_site="same-origin").http == 200
    assert browser.cookie, "a forged request signs nobody out"

    frame = b"\0" + len(ListBrowserSessionsRequest().SerializeToString()).to_bytes(4, "big")
    web = {"content-type": "application/grpc-web+proto", "x-csrf-token": mine, "cookie": f"{COOKIE}={browser.cookie}"}
    answer = world.edge.http("POST", LIST, frame, web)
    size = int.from_bytes(answer.body[1:5], "big")
    assert len(ListBrowserSessionsResponse.FromString(answer.body[5 : 5 + size]).browser_sessions) >= 2


def test_the_same_rule_over_native_grpc(world: World, browser: Browser) -> None:
    key, name = fresh_key(world, "usage.read")
    credentials = grpc.ssl_channel_credentials(world.edge.ca_file.read_bytes())
    with grpc.secure_channel(f"{world.edge.host}:{world.edge.port}", credentials) as channel:
        stub = BrowserSessionServiceStub(channel)
        made, call = stub.CreateBrowserSession.with_call(
            CreateBrowserSessionRequest(), metadata=(("authorization", f"Bearer {key}"),), timeout=60
        )
        cookie = str(dict(call.initial_metadata())["set-cookie"]).partition(";")[0]
        request = DeleteBrowserSessionRequest(name=made.browser_session.name)
        with pytest.raises(grpc.RpcError) as refused:
            stub.DeleteBrowserSession(request, metadata=(("cookie", cookie),), timeout=60)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        pairs = (("cookie", cookie), ("x-csrf-token", made.csrf_token))
        stub.DeleteBrowserSession(request, metadata=pairs, timeout=60)
    assert made.browser_session.actor == name


def test_one_credential_at_a_time(world: World, browser: Browser) -> None:
    key, _ = fresh_key(world, "usage.read")
    assert browser.sign_in(key).http == 200
    for header in ({"authorization": f"Bearer {key}"}, {"x_api_key": key}):
        answer = browser.send("GET", "/v1/whoami", **header)
        assert (answer.http, answer.reason) == (403, "PERMISSION_DENIED")
        assert "another credential" in answer.message
    assert browser.sign_in(key).http == 403
    assert browser.cookie
    fixed = Browser(world)
    fixed.cookie = f"{'0' * 26}.{'x' * 43}"
    assert fixed.sign_in(key).http == 403, "no value that a browser brings becomes a session"
    assert fixed.send("GET", "/v1/whoami").http == 401
    assert fixed.cookie == ""


def test_other_tenants_forged_values_and_a_revoked_key(world: World, browser: Browser) -> None:
    key, name = fresh_key(world, "usage.read")
    assert browser.sign_in(key).http == 200
    stranger = Browser(world)
    assert stranger.sign_in(world.keys["other"]).http == 200
    answer = stranger.send("DELETE", f"/v1/{browser.name}", x_csrf_token=stranger.token)
    assert (answer.http, answer.reason) == (404, "BROWSER_SESSION_NOT_FOUND")
    listed = json.loads(stranger.send("GET", "/v1/browserSessions?pageSize=100").body)["browserSessions"]
    assert browser.name not in [session["name"] for session in listed]
    ident, _, secret = browser.cookie.partition(".")
    for wrong in (f"{ident}.{secret[::-1]}", f"{ident}.{stranger.cookie.partition('.')[2]}", "x"):
        forger = Browser(world)
        forger.cookie = wrong
        assert (forger.send("GET", "/v1/whoami").http, forger.cookie) == (401, "")
    assert world.edge.grpc(REVOKE_KEY, {"name": name}, world.keys["admin"]).code == "OK"
    until(lambda: browser.send("GET", "/v1/whoami").http == 401)
    assert stranger.send("DELETE", f"/v1/{stranger.name}", x_csrf_token=stranger.token).http == 200
