"""`python -m services.ledger …` as an operator runs it."""

import json
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from pagemesh.ledger.v1 import identity_service_pb2 as pb
from pagemesh.ledger.v1.user_pb2 import ROLE_ADMIN
from pagemesh_cli.stack.certificates import CertificateAuthority
from services.database.pool import open_pool
from services.ledger.adapters.postgres_holds import PostgresHolds
from services.ledger.adapters.postgres_identity import PostgresTenants
from tests.conftest import Databases
from tests.integration.ledger.conftest import Connect, LedgerProcess, environment, run_command
from tests.integration.ledger.test_access import passes
from tests.unit.ledger.samples import NOW, a_hold


async def test_migrate_and_bootstrap_may_be_run_again(postgres_server: Databases) -> None:
    name = postgres_server.create_empty()
    dsn = postgres_server.dsn("ledger", name)
    for _ in range(2):
        assert await run_command(["migrate"], {"PAGEMESH_DATABASE_URL": dsn, "PATH": "/usr/bin:/bin"}) == (0, "")
    arguments = ["bootstrap", "--tenant", "acme", "--display-name", "Acme '; --", "--hard-budget-micros", "5"]
    answers = []
    for _ in range(2):
        code, output = await run_command(arguments, environment(dsn))
        assert (code, output.count("\n")) == (0, 1)
        answers.append(json.loads(output))
    assert [a["tenant"] for a in answers] == ["acme", "acme"]
    assert set(answers[0]) == {"tenant", "api_key", "secret"}
    assert answers[0]["secret"] != answers[1]["secret"]
    with psycopg.connect(dsn) as database:
        database.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        assert database.execute("SELECT id, display_name FROM ledger.tenants").fetchall() == [("acme", "Acme '; --")]
        database.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        budgets = "SELECT tenant, id, hard_micros FROM ledger.budgets"
        assert database.execute(budgets).fetchall() == [("acme", "operator", 5)]
    postgres_server.drop(name)


async def test_a_made_key_works(service: LedgerProcess, connect: Connect, ledger_dsn: str) -> None:
    _, output = await run_command(["bootstrap", "--tenant", "made-by-hand"], environment(ledger_dsn))
    assert await passes(connect(service, "edge", ""), json.loads(output)["secret"])


async def test_bootstrap_makes_the_first_admin_once(service: LedgerProcess, connect: Connect, ledger_dsn: str) -> None:
    arguments = ["bootstrap", "--tenant", "with-an-admin", "--admin-email", "Ada@Acme.Example", "--plan", "standard"]
    answers = []
    for _ in range(2):
        code, output = await run_command(arguments, environment(ledger_dsn))
        assert code == 0, output
        answers.append(json.loads(output))
        assert await passes(connect(service, "edge", ""), answers[-1]["secret"])
    peer = connect(service, "edge", "with-an-admin", actor=answers[0]["api_key"])
    users = (await peer.call(peer.identity.ListUsers, pb.ListUsersRequest())).users
    assert [(user.email, user.role, user.active) for user in users] == [("ada@acme.example", ROLE_ADMIN, True)]
    about = await peer.call(peer.identity.WhoAmI, pb.WhoAmIRequest())
    assert (about.user, about.role, about.plan) == (users[0].name, ROLE_ADMIN, "plans/standard")


@pytest.mark.parametrize("wrong", [["--plan", "golden"], ["--admin-email", "nobody"]], ids=["plan", "email"])
async def test_bootstrap_refuses_what_cannot_be(ledger_dsn: str, wrong: list[str]) -> None:
    code, output = await run_command(["bootstrap", "--tenant", "wrong", *wrong], environment(ledger_dsn))
    assert (code, output.count("\n")) == (1, 1), output


async def test_a_budget_is_changed_without_a_key(database: Callable[[str], str]) -> None:
    dsn = database("ledger")
    for micros in ("5", "7"):
        arguments = ["bootstrap", "--tenant", "acme", "--hard-budget-micros", micros, "--no-key"]
        assert await run_command(arguments, environment(dsn)) == (0, '{"tenant": "acme"}\n')
    with psycopg.connect(dsn) as books:
        books.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        assert books.execute("SELECT tenant, hard_micros FROM ledger.budgets").fetchall() == [("acme", 7)]
        assert books.execute("SELECT count(*) FROM ledger.api_keys").fetchone() == (0,)
        books.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        told = "SELECT actor, action, resource FROM ledger.audit_events"
        by_hand = ("system/operator", "pagemesh.ledger.v1.Operator/bootstrap", "tenants/acme")
        assert books.execute(told).fetchall() == [by_hand, by_hand]


async def test_holds_that_nobody_answers_for_are_listed_and_closed(database: Callable[[str], str]) -> None:
    dsn = database("ledger")
    variables = {"PAGEMESH_DATABASE_URL": dsn, "PATH": "/usr/bin:/bin"}
    made, sent, young = a_hold(), a_hold(), a_hold(ttl_s=3600)
    pool = await open_pool(dsn, name="test")
    await PostgresTenants(pool).ensure("acme", "acme", NOW)
    for hold in (made, sent, young):
        await PostgresHolds(pool).reserve(hold)
    await PostgresHolds(pool).expire(NOW + timedelta(seconds=60), 10)
    await pool.close()

    async def holds(*arguments: str) -> tuple[int, list[dict[str, object]] | str]:
        code, output = await run_command(["holds", *arguments], variables)
        return code, output if code else [json.loads(line) for line in output.splitlines()]

    code, listed = await holds("list")
    assert code == 0
    assert isinstance(listed, list)
    assert {line["hold_id"] for line in listed} == {str(made.hold_id), str(sent.hold_id)}
    assert all(line["state"] == "UNKNOWN" and line["amount_micros"] == 1000 for line in listed)
    code, released = await holds("release", "--tenant", "acme", str(made.hold_id))
    assert (code, released) == (0, [{**listed[0], "hold_id": str(made.hold_id), "state": "RELEASED"}])
    settle = ("settle", "--tenant", "acme", str(sent.hold_id), "--input-tokens", "50000", "--output-tokens", "3")
    for _ in range(2):
        code, settled = await holds(*settle)
        assert code == 0
        assert isinstance(settled, list)
        assert (settled[0]["state"], settled[0]["cost_micros"]) == ("SETTLED", 1000)
    assert await holds("list", "--tenant", "acme") == (0, [])
    code, told = await holds("release", "--tenant", "acme", str(young.hold_id))
    assert code == 1
    assert str(told).startswith("services.ledger: HOLD_NOT_UNKNOWN: ")
    assert (await holds("release", "--tenant", "acme", "no-uuid"))[0] == 2
    assert (await holds())[0] == 2


async def test_wrong_arguments_are_told(ledger_dsn: str) -> None:
    code, output = await run_command(["bootstrap", "--tenant", "Not A Tenant"], environment(ledger_dsn))
    assert code == 1
    assert output.startswith("services.ledger: INVALID_FIELD: tenant: ")
    assert (await run_command(["unknown"], environment(ledger_dsn)))[0] == 2


async def test_all_faults_of_the_settings_are_told_at_once(ledger_dsn: str) -> None:
    variables = {"PAGEMESH_DATABASE_URL": ledger_dsn, "PAGEMESH_KEY_PEPPER": "short", "PATH": "/usr/bin:/bin"}
    code, output = await run_command([], variables)
    assert code == 78
    for name in ("PAGEMESH_GRPC_LISTEN", "PAGEMESH_HTTP_LISTEN", "PAGEMESH_TLS_DIR", "PAGEMESH_KEY_PEPPER"):
        assert name in output
    assert "short" not in output.replace("too short", "")
    assert (await run_command(["bootstrap", "--tenant", "a"], variables))[0] == 78


async def test_a_port_in_use_is_told(service: LedgerProcess, ledger_dsn: str, mesh_pki: CertificateAuthority) -> None:
    taken = environment(
        ledger_dsn,
        PAGEMESH_GRPC_LISTEN=service.target,
        PAGEMESH_HTTP_LISTEN="127.0.0.1:0",
        PAGEMESH_TLS_DIR=str(mesh_pki.tls_dir("ledger")),
    )
    code, output = await run_command([], taken)
    assert code == 1
    assert f"cannot listen on {service.target}" in output
    assert "Traceback" not in output


def test_it_stops_when_told(ledger_dsn: str, mesh_pki: CertificateAuthority, session_dir: Path) -> None:
    log = session_dir / "ledger-stopped.log"
    process = LedgerProcess(ledger_dsn, mesh_pki, log)
    process.start()
    assert process.stop() == 0
    assert "Traceback" not in log.read_text()


def test_health_and_metrics(service: LedgerProcess) -> None:
    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{service.http_port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    report = json.loads(get("/readyz"))
    assert report["ready"]
    assert {name: c["up"] for name, c in report["components"].items()} == {"database": True, "key_changes": True}
    metrics = get("/metrics")
    for name in ("checks", "reserves", "expired_holds", "held_micros"):
        assert f"# HELP pagemesh_ledger_{name}" in metrics


def test_the_log_is_json(service: LedgerProcess, session_dir: Path) -> None:
    for line in (session_dir / "ledger.log").read_text().splitlines():
        json.loads(line)
