"""Sessions, identity providers and signed calls on the command line, against a real stack."""

from pathlib import Path

import pytest

from pagemesh_cli.stack.process import wait_until
from tests.conftest import RunningStack
from tests.stack.running import Command


@pytest.fixture(scope="module")
def pagemesh(stack: RunningStack) -> Command:
    return Command.on(stack.data.root)


def having(command: Command, **settings: str) -> Command:
    return Command(command.root, {**command.environment, **settings})


def test_a_session_stands_for_the_key_until_it_is_revoked(pagemesh: Command, tmp_path: Path) -> None:
    made = pagemesh("session", "create", "--scope", "usage.read", "--json").json
    session = having(pagemesh, PAGEMESH_API_KEY=made["accessToken"])
    assert session("whoami", "--json").json["scopes"] == ["usage.read"]
    assert session("usage").code == 0
    assert session("session", "create").code == 1
    assert pagemesh("session", "revoke", made["session"]["name"]).code == 0
    assert wait_until(lambda: session("whoami").code == 4, timeout_s=60, poll_s=0.5)

    file = tmp_path / "token"
    told = pagemesh("session", "create", "--output", str(file))
    assert (told.code, told.out) == (0, "")
    assert file.stat().st_mode & 0o777 == 0o600
    kept = having(pagemesh, PAGEMESH_API_KEY=file.read_text().strip())
    assert kept("whoami").code == 0
    assert pagemesh("session", "create", "--output", str(file)).code == 2


def test_a_key_that_demands_signatures_takes_them_from_the_command(pagemesh: Command, tmp_path: Path) -> None:
    made = pagemesh("keys", "create", "signed", "--scope", "usage.read", "--json").json
    name, file = made["apiKey"]["name"], tmp_path / "signing.pem"
    robot = having(pagemesh, PAGEMESH_API_KEY=made["secret"])
    assert robot("whoami").code == 0
    assert pagemesh("keys", "demand-signatures", name, str(file)).code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert wait_until(lambda: robot("whoami").code != 0, timeout_s=60, poll_s=0.5)
    refused = robot("whoami")
    assert refused.code == 4
    assert "demands signed requests" in refused.err

    signing = having(robot, PAGEMESH_SIGNING_KEY_FILE=str(file))
    assert signing("whoami", "--json").json["actor"] == name
    assert signing("usage").code == 0
    assert robot("whoami", "--signing-key", str(file)).code == 0
    token = signing("session", "create").out.strip()
    session = having(pagemesh, PAGEMESH_API_KEY=token)
    assert session("whoami").code == 4
    assert having(session, PAGEMESH_SIGNING_KEY_FILE=str(file))("whoami").code == 0

    other = tmp_path / "other.pem"
    second = pagemesh("keys", "create", "other", "--scope", "usage.read", "--json").json["apiKey"]["name"]
    assert pagemesh("keys", "demand-signatures", second, str(other)).code == 0
    wrong = robot("whoami", "--signing-key", str(other))
    assert wrong.code == 4
    assert "not that of the key's signing key" in wrong.err
    assert pagemesh("keys", "demand-signatures", name, str(file)).code == 0
    assert pagemesh("keys", "demand-signatures", name, "--off").code == 0
    assert wait_until(lambda: robot("whoami").code == 0, timeout_s=60, poll_s=0.5)


def test_identity_providers(pagemesh: Command) -> None:
    assert pagemesh("idp", "list", "--json").json["identityProviders"] == []
    refused = pagemesh("idp", "add", "https://127.0.0.1:1", "app")
    assert (refused.code, "private network" in refused.err) == (1, True)
    assert pagemesh("idp", "add", "http://issuer.example.org", "app").code == 2
    assert pagemesh("idp", "remove", "identityProviders/0000000000000000").code == 5


@pytest.mark.parametrize(
    ("content", "code"), [("nothing", 2), ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 2)]
)
def test_what_is_no_signing_key(pagemesh: Command, tmp_path: Path, content: str, code: int) -> None:
    file = tmp_path / "key.pem"
    file.write_text(content)
    told = pagemesh("whoami", "--signing-key", str(file), "--json")
    assert told.code == code
    assert pagemesh("whoami", "--signing-key", str(tmp_path / "absent")).code == 2
    assert pagemesh("keys", "demand-signatures", "apiKeys/0000000000000000").code == 2
