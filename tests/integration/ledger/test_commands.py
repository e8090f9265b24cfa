"""`python -m services.ledger …` as an operator runs it."""

import json
import urllib.request
from pathlib import Path

import psycopg

from pagemesh_cli.stack.certificates import CertificateAuthority
from tests.conftest import Databases
from tests.integration.ledger.conftest import Connect, LedgerProcess, environment, run_command
from tests.integration.ledger.test_access import passes


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
        assert database.execute("SELECT id, display_name FROM ledger.tenants").fetchall() == [("acme", "Acme '; --")]
        assert database.execute("SELECT tenant, hard_micros FROM ledger.budgets").fetchall() == [("acme", 5)]
    postgres_server.drop(name)


async def test_a_made_key_works(service: LedgerProcess, connect: Connect, ledger_dsn: str) -> None:
    _, output = await run_command(["bootstrap", "--tenant", "made-by-hand"], environment(ledger_dsn))
    assert await passes(connect(service, "edge", ""), json.loads(output)["secret"])


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
