"""Settings: read from the environment, all faults at once, no values in what is printed."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from services.runtime.config import EX_CONFIG, RuntimeSettings, load_settings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).write_text("x")
    for name, value in {
        "GRPC_LISTEN": "127.0.0.1:7001",
        "HTTP_LISTEN": "[::1]:7101",
        "TLS_DIR": str(tmp_path),
        "PEERS": "edge, summarizer",
        "DATABASE_URL": "postgresql://ledger:hunter2@localhost/pagemesh",
    }.items():
        monkeypatch.setenv(f"PAGEMESH_{name}", value)
    return monkeypatch


def test_a_whole_environment_is_read(environment: pytest.MonkeyPatch) -> None:
    settings = load_settings(RuntimeSettings)
    assert (settings.grpc_listen.host, settings.grpc_listen.port) == ("127.0.0.1", 7001)
    assert str(settings.http_listen) == "[::1]:7101"
    assert settings.peers == ("edge", "summarizer")
    assert isinstance(settings.database_url, SecretStr)
    assert "hunter2" not in repr(settings)


def test_all_faults_are_told_at_once(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    environment.setenv("PAGEMESH_GRPC_LISTEN", "nowhere")
    environment.setenv("PAGEMESH_TLS_DIR", "/nonexistent")
    environment.setenv("PAGEMESH_DRAIN_S", "-1")
    environment.delenv("PAGEMESH_DATABASE_URL")
    with pytest.raises(SystemExit) as stopped:
        load_settings(RuntimeSettings)
    assert stopped.value.code == EX_CONFIG
    told = capsys.readouterr().err
    for wanted in (
        "4 fault(s)",
        "PAGEMESH_GRPC_LISTEN: write it as host:port",
        "PAGEMESH_TLS_DIR: /nonexistent lacks tls.crt, tls.key, ca.crt",
        "PAGEMESH_DRAIN_S: ",
        "PAGEMESH_DATABASE_URL: is not set",
    ):
        assert wanted in told


def test_a_secret_of_the_wrong_kind_is_not_printed(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("PAGEMESH_LOG_LEVEL", "hunter3")
    with pytest.raises(SystemExit):
        load_settings(RuntimeSettings)
    assert "hunter" not in capsys.readouterr().err
