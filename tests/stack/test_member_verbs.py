"""`pagemesh keys`, `projects`, `users` and `tenants` on a real stack."""

import functools
import uuid
from pathlib import Path

import pytest

from pagemesh_cli.stack.process import wait_until
from tests.conftest import RunningStack
from tests.stack.running import Command


@pytest.fixture(scope="module")
def operator(stack: RunningStack) -> Command:
    return Command.on(stack.data.root)


@pytest.fixture
def admin(operator: Command, stack: RunningStack) -> Command:
    """The first admin of a new tenant."""
    made = operator("tenants", "create", f"t-{uuid.uuid4().hex}", "--plan", "unlimited", "--json").json
    return Command.on(stack.data.root, PAGEMESH_API_KEY=made["secret"])


def key_of(stack: RunningStack, secret: str) -> Command:
    return Command.on(stack.data.root, PAGEMESH_API_KEY=secret)


def is_out(command: Command) -> bool:
    return command("whoami").code == 4


def test_a_key_of_a_user_in_a_project(admin: Command, stack: RunningStack) -> None:
    project = admin("projects", "create", "red", "--name", "Red").out
    assert project == "projects/red (Red): on\n"
    user = admin("users", "create", "Ada@Acme.Example", "--role", "member", "--json").json
    assert (user["email"], user["role"]) == ("ada@acme.example", "ROLE_MEMBER")
    scope = ("--scope", "usage.read")
    secret = admin("keys", "create", "ada", *scope, "--project", "red", "--user", user["name"]).out.strip()
    adas = key_of(stack, secret)
    assert f", projects/red, {user['name']} (member): usage.read" in adas("whoami").out
    refused = admin("keys", "create", "more", "--scope", "keys.admin", "--user", user["name"], "--json")
    assert (refused.code, refused.error["reason"]) == (4, "SCOPE_NOT_GRANTABLE")
    for words in (("projects", "{}", "red"), ("users", "{}", user["name"])):
        assert admin(*(word.format("off") for word in words)).out.endswith("off\n")
        assert wait_until(lambda: adas("whoami").code == 4, timeout_s=60, poll_s=0.2)
        assert admin(*(word.format("on") for word in words)).out.endswith("on\n")
        assert wait_until(lambda: adas("whoami").code == 0, timeout_s=60, poll_s=0.2)
    assert "auditor, on" in admin("users", "update", user["name"], "--role", "auditor", "--name", "Ada").out


def test_lists(admin: Command) -> None:
    for project in ("b", "a", "c"):
        assert admin("projects", "create", project).code == 0
    assert [p["name"] for p in admin("projects", "list", "--json").json["projects"]] == [
        "projects/a",
        "projects/b",
        "projects/c",
    ]
    limited = admin("projects", "list", "--limit", "2")
    assert limited.out.splitlines()[0].split() == ["project", "name", "switched", "made"]
    assert len(limited.out.splitlines()) == 3
    assert "there are more" in limited.err
    assert "there are none" in admin("users", "list").err
    assert len(admin("keys", "list", "--json").json["apiKeys"]) == 1
    assert "documents.read" in admin("keys", "list").out
    assert admin("projects", "rename", "a", "Alpha").out == "projects/a (Alpha): on\n"


def test_a_rotated_key(admin: Command, stack: RunningStack) -> None:
    made = admin("keys", "create", "robot", "--scope", "usage.read", "--json").json
    name = made["apiKey"]["name"]
    rotated = admin("keys", "rotate", name, "--overlap", "30m")
    assert rotated.code == 0, rotated.err
    assert "works until" in rotated.err
    for secret in (made["secret"], rotated.out.strip()):
        assert name in key_of(stack, secret)("whoami").out
    last = admin("keys", "rotate", name, "--overlap", "0").out.strip()
    for secret in (made["secret"], rotated.out.strip()):
        old = key_of(stack, secret)
        assert wait_until(functools.partial(is_out, old), timeout_s=60, poll_s=0.2)
    assert key_of(stack, last)("whoami").code == 0
    assert admin("keys", "rotate", name, "--overlap", "soon", "--json").error["reason"] == "BAD_DURATION"


def test_the_operator_switches_tenants_and_plans(operator: Command, stack: RunningStack) -> None:
    tenant = f"t-{uuid.uuid4().hex}"
    made = operator("tenants", "create", tenant, "--admin-email", "eve@acme.example")
    assert made.code == 0, made.err
    assert f"tenants/{tenant} on plans/free" in made.err
    eve = key_of(stack, made.out.strip())
    assert "(admin)" in eve("whoami").out
    assert "plans/free" in eve("whoami").err
    assert operator("tenants", "plan", tenant, "standard").out.endswith("plans/standard, on\n")
    assert operator("tenants", "suspend", tenant).out.endswith("off\n")
    assert wait_until(lambda: eve("whoami").code == 4, timeout_s=60, poll_s=0.2)
    assert operator("tenants", "activate", tenant).out.endswith("on\n")
    assert wait_until(lambda: eve("whoami").code == 0, timeout_s=60, poll_s=0.2)
    listed = operator("tenants", "list", "--limit", "10000", "--json").json["tenants"]
    assert {"tenants/local", f"tenants/{tenant}"} <= {found["name"] for found in listed}
    assert "no limit" in operator("tenants", "plans").out


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["tenants", "create", "local"], 1, "TENANT_EXISTS"),
        (["tenants", "create", "UPPER"], 2, "INVALID_FIELD"),
        (["tenants", "plan", "local", "golden"], 5, "PLAN_NOT_FOUND"),
        (["tenants", "suspend", "nobody-here"], 5, "TENANT_NOT_FOUND"),
        (["tenants", "list", "--ledger", "localhost:1"], 2, "USAGE"),
        (["tenants", "list", "--ledger", "localhost:1", "--tls-dir", "/nowhere"], 2, "BAD_TLS_DIR"),
        (["users", "update", "users/0000000000000000"], 2, "USAGE"),
        (["users", "create", "nobody", "--role", "member"], 2, "INVALID_FIELD"),
        (["projects", "off", "nothing-here"], 5, "PROJECT_NOT_FOUND"),
        (["keys", "rotate", "apiKeys/0000000000000000"], 5, "KEY_NOT_FOUND"),
    ],
    ids=lambda value: "-".join(value).replace("/", ":") if isinstance(value, list) else None,
)
def test_exit_codes(operator: Command, arguments: list[str], code: int, reason: str) -> None:
    answer = operator(*arguments, "--json")
    assert (answer.code, answer.error["reason"]) == (code, reason)


def test_only_the_operators_certificate_will_do(operator: Command, stack: RunningStack) -> None:
    tls_dir = stack.data.root / "pki" / "tls" / "summarizer"
    ledger = f"localhost:{stack.state.ports['ledger']}"
    answer = operator("tenants", "list", "--ledger", ledger, "--tls-dir", str(tls_dir), "--json")
    assert (answer.code, answer.error["reason"]) == (4, "METHOD_NOT_ALLOWED")


def test_without_a_stack_there_are_no_tenants(tmp_path: Path) -> None:
    answer = Command.on(tmp_path)("tenants", "list", "--json")
    assert (answer.code, answer.error["reason"]) == (3, "NO_STACK")
