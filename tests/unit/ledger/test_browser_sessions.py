"""Browsers that somebody signed in with: whose a cookie is, when it is nobody's, and what a forged request lacks."""

from dataclasses import replace
from datetime import timedelta

import pytest

from pagemesh_cli.stack.edge import descriptor_set
from services.ledger.adapters.memory_browser_sessions import MemoryBrowserSessions
from services.ledger.domain.browser_sessions import (
    COOKIE,
    CSRF_HEADER,
    MOST_OF_ONE_ACTOR,
    BrowserSecrets,
    cookies_in,
)
from services.ledger.domain.gate import Request
from services.ledger.domain.identity import Denial, Principal
from services.ledger.domain.identity_providers import StandingUser
from services.ledger.domain.request_signatures import Message
from services.ledger.domain.roles import Role
from services.ledger.domain.values import Caller
from services.runtime.errors import FailedPrecondition, NotFound, PermissionDenied
from tests.edge.envoy.test_routes import http_verbs, methods
from tests.unit.ledger.credentials import PEPPER, SCOPES, Replica, Shared, open_replica

USER = "u" * 16


async def send(
    replica: Replica, value: str, *, method: str = "GET", credential: str = "", cookie: str = "", **fields: str
) -> Principal | Denial:
    headers = {name.replace("_", "-"): text for name, text in fields.items()}
    headers["cookie"] = cookie or f"theme=dark; {COOKIE}={value}"
    return await replica.gate.admit(Request(credential, Message(method, "localhost", "/v1/whoami", headers)))


@pytest.fixture
async def here() -> Replica:
    return await open_replica(Shared())


async def test_a_cookie_is_its_key_for_a_day(here: Replica) -> None:
    key, caller = await here.made("usage.read", "keys.admin")
    session, value = await here.browsers.sign_in(caller, frozenset({"usage.read"}))
    found = await send(here, value)
    assert isinstance(found, Principal)
    assert (found.tenant, found.actor, found.scopes) == ("acme", key.name, frozenset({"usage.read"}))
    assert (found.session, found.key_id) == (session.name, key.key_id)
    assert session.expire_time - session.create_time == timedelta(days=1)
    here.pass_time(days=1, seconds=-1)
    assert isinstance(await send(here, value), Principal)
    here.pass_time(seconds=1)
    assert await send(here, value) is Denial.EXPIRED


async def test_it_never_outlives_its_key(here: Replica) -> None:
    _, caller = await here.made("usage.read", expires_s=60)
    session, value = await here.browsers.sign_in(caller, frozenset())
    assert session.expire_time - session.create_time == timedelta(seconds=60)
    here.pass_time(seconds=59.5)
    with pytest.raises(FailedPrecondition, match="KEY_ENDING"):
        await here.browsers.sign_in(caller, frozenset())
    here.pass_time(seconds=1)
    assert await send(here, value) is Denial.EXPIRED


@pytest.mark.parametrize(
    ("verb", "answer"),
    [("GET", None), ("HEAD", None)]
    + [(verb, Denial.CSRF_TOKEN_WRONG) for verb in ("POST", "PATCH", "DELETE", "PUT", "OPTIONS", "get", "")],
)
async def test_what_may_change_something_needs_the_sessions_token(
    here: Replica, verb: str, answer: Denial | None
) -> None:
    _, caller = await here.made("usage.read")
    session, value = await here.browsers.sign_in(caller, frozenset())
    other, _ = await here.browsers.sign_in(caller, frozenset())
    for token in ("", here.browsers.csrf_token(other), here.browsers.csrf_token(session)[:-1], "ü", value):
        found = await send(here, value, method=verb, **{CSRF_HEADER: token})
        assert found is answer if answer else isinstance(found, Principal)
    found = await send(here, value, method=verb, **{CSRF_HEADER: here.browsers.csrf_token(session)})
    assert isinstance(found, Principal)


def test_no_contract_binds_a_change_to_a_get() -> None:
    """What the rule above rests on."""
    assert descriptor_set().file
    changing = [m.full_name for m in methods() if "get" in http_verbs(m) and m.GetOptions().idempotency_level != 1]
    assert changing == []


async def test_a_page_of_another_site_reads_nothing_either(here: Replica) -> None:
    _, caller = await here.made("usage.read")
    _, value = await here.browsers.sign_in(caller, frozenset())
    assert await send(here, value, sec_fetch_site="cross-site") is Denial.CROSS_SITE
    for site in ("same-origin", "same-site", "none"):
        assert isinstance(await send(here, value, sec_fetch_site=site), Principal)


async def test_one_credential_at_a_time(here: Replica) -> None:
    _, caller = await here.made("usage.read")
    _, value = await here.browsers.sign_in(caller, frozenset())
    assert await send(here, value, credential="pm_x") is Denial.CREDENTIAL_TWICE
    assert await send(here, "nonsense", credential="pm_x") is Denial.CREDENTIAL_TWICE
    assert await send(here, "", cookie=f"{COOKIE}={value}; {COOKIE}={value}") is Denial.MALFORMED
    assert await send(here, "", cookie="theme=dark", credential="") is Denial.MISSING


@pytest.mark.parametrize("header", [f"x{COOKIE}=1", f"{COOKIE}x=1", COOKIE.lower() + "=1", "a=" + COOKIE, "", ";;="])
def test_other_cookies_are_none_of_ours(header: str) -> None:
    assert cookies_in(header) == []


async def test_a_value_that_is_not_exactly_right_is_nobodys(here: Replica) -> None:
    _, caller = await here.made("usage.read")
    session, value = await here.browsers.sign_in(caller, frozenset())
    _, another = await here.browsers.sign_in(caller, frozenset())
    secret, theirs = value.partition(".")[2], another.partition(".")[2]
    assert isinstance(await send(here, value), Principal), "known from here on, also to the cache"
    for wrong in (f"{session.session_id}.{theirs}", f"{session.session_id}.{secret[::-1]}", "0" * 26 + f".{secret}"):
        assert await send(here, wrong) is Denial.UNKNOWN
    for wrong in ("", "x", session.session_id, f"{value}=", value.upper(), f'"{value}"', value + "\0", secret):
        assert await send(here, wrong) is Denial.MALFORMED
    stored = await here.shared.browsers.find(session.session_id)
    assert stored is not None
    assert secret.encode() not in stored.secret_hash
    assert secret not in repr(stored)
    assert BrowserSecrets("q" * 32).hash(value) != BrowserSecrets(PEPPER).hash(value) == stored.secret_hash


async def test_signing_in_makes_a_new_value_each_time(here: Replica) -> None:
    """Nobody fixes the session of somebody else: no value that a browser brings is ever taken over."""
    _, caller = await here.made("usage.read")
    made = [await here.browsers.sign_in(caller, frozenset()) for _ in range(3)]
    assert len({value for _, value in made}) == len({session.session_id for session, _ in made}) == 3


async def test_after_signing_out_it_is_over_on_every_replica(here: Replica) -> None:
    there = await open_replica(here.shared)
    _, caller = await here.made("usage.read")
    session, value = await here.browsers.sign_in(caller, frozenset())
    assert isinstance(await send(there, value), Principal)
    await here.browsers.sign_out(caller, session.session_id)
    assert isinstance(await send(there, value), Principal), "it has not heard yet"
    there.cookies.changed("browserSessions", session.session_id)
    assert await send(there, value) is Denial.UNKNOWN
    with pytest.raises(NotFound, match="BROWSER_SESSION_NOT_FOUND"):
        await here.browsers.sign_out(caller, session.session_id)


async def test_the_end_of_the_key_is_the_end_of_its_browsers(here: Replica) -> None:
    key, caller = await here.made("usage.read")
    _, value = await here.browsers.sign_in(caller, frozenset())
    assert isinstance(await send(here, value), Principal)
    await here.ring.revoke(Caller("acme", "apiKeys/admin", SCOPES), key.key_id)
    here.cache.drop_key(key.key_id)
    assert await send(here, value) is Denial.REVOKED


async def test_a_user_of_an_issuer_signs_in_as_what_the_user_is_now(here: Replica) -> None:
    users = here.shared.users.users
    users["acme", "ann@example.org"] = StandingUser(USER, Role.ADMIN, True, True)
    caller = Caller("acme", f"users/{USER}", SCOPES)
    session, value = await here.browsers.sign_in(caller, frozenset({"usage.read", "keys.admin"}), provider="p" * 16)
    assert session.provider == "p" * 16
    found = await send(here, value)
    assert isinstance(found, Principal)
    assert (found.actor, found.user, found.key_id) == (f"users/{USER}", f"users/{USER}", "")
    assert found.scopes == {"usage.read", "keys.admin"}
    for user, wanted in (
        (StandingUser(USER, Role.AUDITOR, True, True), {"usage.read"}),
        (StandingUser(USER, Role.ADMIN, False, True), Denial.USER_INACTIVE),
        (StandingUser(USER, Role.ADMIN, True, False), Denial.TENANT_INACTIVE),
    ):
        users["acme", "ann@example.org"] = user
        here.issuers.changed("tenants", "acme")
        now = await send(here, value)
        assert (now.scopes if isinstance(now, Principal) else now) == wanted


async def test_no_session_makes_another_one(here: Replica) -> None:
    _, caller = await here.made("usage.read")
    for within in ("sessions/x", "browserSessions/x"):
        with pytest.raises(FailedPrecondition, match="KEY_NEEDED"):
            await here.browsers.sign_in(caller, frozenset(), within=within)
    with pytest.raises(FailedPrecondition, match="KEY_NEEDED"):
        await here.browsers.sign_in(replace(caller, tenant="other"), frozenset())
    with pytest.raises(FailedPrecondition, match="KEY_NEEDED"):
        await here.browsers.sign_in(Caller("acme", "bootstrap", SCOPES), frozenset())
    with pytest.raises(PermissionDenied, match="SCOPE_NOT_GRANTABLE"):
        await here.browsers.sign_in(caller, frozenset({"keys.admin"}))


async def test_everybody_sees_and_ends_their_own_and_admins_all_of_their_tenant(here: Replica) -> None:
    _, ann = await here.made("usage.read")
    _, bob = await here.made("usage.read")
    _, admin = await here.made("keys.admin")
    _, stranger = await here.made("keys.admin", tenant="other")
    mine, _ = await here.browsers.sign_in(ann, frozenset())
    his, _ = await here.browsers.sign_in(bob, frozenset())
    assert [s.name for s in (await here.browsers.list(ann, 0, ""))[0]] == [mine.name]
    both = sorted([mine.name, his.name])
    first, token = await here.browsers.list(admin, 1, "")
    rest, end = await here.browsers.list(admin, 1, token)
    assert ([s.name for s in (*first, *rest)], end) == (both, "")
    assert await here.browsers.list(stranger, 0, "") == ([], "")
    for caller in (bob, stranger):
        with pytest.raises(NotFound, match="BROWSER_SESSION_NOT_FOUND"):
            await here.browsers.sign_out(caller, mine.session_id)
    await here.browsers.sign_out(admin, his.session_id)
    assert await here.browsers.current(ann, mine.name) == mine
    for caller, within in ((stranger, mine.name), (bob, his.name), (ann, "sessions/x"), (ann, "")):
        with pytest.raises(FailedPrecondition, match="BROWSER_SESSION_NEEDED"):
            await here.browsers.current(caller, within)


async def test_one_browser_too_many_ends_the_oldest(here: Replica) -> None:
    _, caller = await here.made("usage.read")
    made = []
    for _ in range(MOST_OF_ONE_ACTOR + 1):
        made.append(await here.browsers.sign_in(caller, frozenset()))
        here.pass_time(seconds=1)
    kept = {s.session_id for s in (await here.browsers.list(caller, 100, ""))[0]}
    assert kept == {session.session_id for session, _ in made[1:]}
    store = here.shared.browsers
    assert isinstance(store, MemoryBrowserSessions)
    here.pass_time(days=2)
    assert (await store.forget(5), await store.forget(100)) == (5, MOST_OF_ONE_ACTOR - 5)
