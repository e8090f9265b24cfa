"""The embedded servers, run for real."""

import os
import shutil
from pathlib import Path

import psycopg
import pytest

from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.postgres import PostgresServer
from pagemesh_cli.stack.process import Process
from pagemesh_cli.stack.valkey import ValkeyServer, check_valkey, command_valkey
from tests.conftest import Databases


def test_each_role_sees_only_its_own_schema(postgres_server: Databases) -> None:
    name = postgres_server.create_empty()
    with psycopg.connect(postgres_server.dsn("ledger", name)) as ledger:
        ledger.execute("CREATE TABLE secret_numbers (n int)")
    with psycopg.connect(postgres_server.dsn("extractor", name)) as extractor:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            extractor.execute("SELECT * FROM ledger.secret_numbers")
        extractor.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            extractor.execute("CREATE TABLE public.stray (n int)")
    postgres_server.drop(name)


def test_cluster_is_checked_and_the_same_everywhere(postgres_server: Databases) -> None:
    with psycopg.connect(postgres_server.superuser_dsn) as connection:
        for setting, wanted in {
            "data_checksums": "on",
            "password_encryption": "scram-sha-256",
            "listen_addresses": "127.0.0.1",
            "server_encoding": "UTF8",
        }.items():
            assert connection.execute(f"SHOW {setting}").fetchone() == (wanted,)
        row = connection.execute(
            "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'postgres'"
        ).fetchone()
        assert row == ("b", "C.UTF-8")


def test_wrong_password_is_refused(postgres_server: Databases) -> None:
    server = postgres_server.server
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.dsn("ledger", "wrong", database="postgres"))


def test_refused_statement_is_named(postgres_server: Databases) -> None:
    with pytest.raises(StackError, match="already exists"):
        postgres_server.server.execute("CREATE DATABASE postgres")


def test_roles_script_needs_every_password(postgres_server: Databases) -> None:
    from tests.conftest import _ROLES

    postgres_server.server.apply_roles(_ROLES, postgres_server.passwords, database="with_roles")
    with pytest.raises(KeyError):
        postgres_server.server.apply_roles(_ROLES, {"ledger": "x"}, database="with_roles")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give its rights up")
def test_root_starts_it_unprivileged_from_where_only_root_can_go(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data lie below a directory that is root's alone, and so do the programs, of which a copy must be made."""
    hidden, shared = short_dir / "hidden", short_dir / "shared"
    package = PostgresServer._package()
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), hidden / name, symlinks=True)
    hidden.chmod(0o700)
    short_dir.chmod(0o711)
    monkeypatch.setattr(PostgresServer, "_package", staticmethod(lambda: hidden / package.name))
    monkeypatch.setattr("pagemesh_cli.stack.postgres._SHARED_PROGRAMS", shared)
    server = PostgresServer(
        directory=hidden / "data", port=pick_free_port(), password="secret", log=short_dir / "postgres.log"
    )
    assert server.initialise()
    process = Process(server.spec())
    try:
        process.wait_ready(server.check, timeout_s=30)
        assert Path(f"/proc/{process.pid}").stat().st_uid != 0
        assert Path(f"/proc/{process.pid}/exe").readlink().is_relative_to(shared)
        assert hidden.stat().st_mode & 0o777 == 0o700, "nothing may be opened to others on the way"
    finally:
        process.stop()
        server.close()


def test_valkey_wants_its_password(valkey_server: ValkeyServer) -> None:
    check_valkey(valkey_server.port, valkey_server.password)
    with pytest.raises(OSError, match="WRONGPASS"):
        check_valkey(valkey_server.port, "wrong")


def test_valkey_url_is_empty(valkey_url: str, valkey_server: ValkeyServer) -> None:
    assert valkey_url.startswith("redis://:")
    assert command_valkey(valkey_server.port, valkey_server.password, "SET", "a", "b") == "OK"
