"""A session as a web client uses it: JSON over HTTP alone, with nothing of Pagemesh but its addresses."""

import json
import time

import jwt

from tests.edge.conftest import World


def post(world: World, path: str, body: object, credential: str) -> tuple[int, dict[str, object]]:
    headers = {"authorization": f"Bearer {credential}", "content-type": "application/json"}
    answer = world.edge.http("POST", path, json.dumps(body).encode(), headers)
    return answer.http, json.loads(answer.body)


def get(world: World, path: str, credential: str = "") -> tuple[int, dict[str, object]]:
    headers = {"authorization": f"Bearer {credential}"} if credential else {}
    answer = world.edge.http("GET", path, None, headers)
    return answer.http, json.loads(answer.body)


def test_from_the_key_to_the_log_out(world: World) -> None:
    status, made = post(world, "/v1/sessions:exchange", {"scopes": ["usage.read"]}, world.keys["admin"])
    assert status == 200
    token, session = str(made["accessToken"]), made["session"]
    assert isinstance(session, dict)

    status, keys = get(world, "/v1/.well-known/jwks.json")
    assert status == 200
    public = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, public, algorithms=["EdDSA"], audience="pagemesh", issuer="pagemesh")
    assert f"sessions/{claims['jti']}" == session["name"]
    assert claims["exp"] - claims["iat"] == 1800

    status, who = get(world, "/v1/whoami", token)
    assert (status, who["scopes"], who["actor"]) == (200, ["usage.read"], session["apiKey"])
    assert get(world, "/v1/usage", token)[0] == 200
    status, refused = post(world, "/v1/sessions:exchange", {}, token)
    assert (status, refused["details"][0]["reason"]) == (400, "KEY_NEEDED")  # type: ignore[index]

    assert post(world, f"/v1/{session['name']}:revoke", {}, token) == (200, {})
    deadline = time.monotonic() + 60
    while (answer := get(world, "/v1/whoami", token))[0] != 401:
        assert time.monotonic() < deadline
    assert answer[1]["details"][0]["reason"] == "UNAUTHENTICATED"  # type: ignore[index]
