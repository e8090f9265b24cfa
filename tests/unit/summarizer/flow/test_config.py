"""Settings: what is required, what is refused, and all faults at once."""

from pathlib import Path

import pytest

from services.runtime.config import load_settings
from services.summarizer.config import SummarizerSettings
from services.summarizer.domain.rates import Rate


@pytest.fixture
def tls_dir(tmp_path: Path) -> Path:
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tls_dir: Path) -> pytest.MonkeyPatch:
    """The least that the service needs; a test changes one of it."""
    needed = {
        "TLS_DIR": str(tls_dir),
        "DATABASE_URL": "postgresql://summarizer:pw@localhost/pagemesh",
        "REDIS_URL": "redis://:pw@localhost:6379/0",
        "EXTRACTOR_TARGET": "localhost:7002",
        "LEDGER_TARGET": "dns:///ledger.internal:7001",
    }
    for name, value in needed.items():
        monkeypatch.setenv(f"PAGEMESH_{name}", value)
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_the_defaults_need_no_provider_and_no_money() -> None:
    settings = load_settings(SummarizerSettings)
    assert settings.default_model == "offline/lexrank"
    assert settings.mistral_api_key is None
    assert settings.summary_ttl_s == 3600
    assert (str(settings.grpc_listen), str(settings.http_listen)) == ("127.0.0.1:7003", "127.0.0.1:7103")
    assert "edge" in settings.peers


def test_an_empty_key_is_none(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PAGEMESH_MISTRAL_API_KEY", "")
    assert load_settings(SummarizerSettings).mistral_api_key is None


@pytest.mark.usefixtures("environment")
def test_secrets_are_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PAGEMESH_MISTRAL_API_KEY", "very secret")
    shown = repr(load_settings(SummarizerSettings))
    assert "very secret" not in shown
    assert ":pw@" not in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "localhost:6379"),
        ("EXTRACTOR_TARGET", "http://localhost/"),
        ("LEDGER_TARGET", "localhost"),
        ("DEFAULT_MODEL", "lexrank"),
        ("MISTRAL_URL", "not a url"),
        ("SUMMARY_TTL_S", "0"),
        ("PROVIDER_KEYS", "just-a-key"),
        ("PROVIDER_KEYS", "openai="),
        ("PROVIDER_URLS", "openai=nowhere"),
    ],
)
def test_a_wrong_value_is_named_without_being_shown(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    environment.setenv(f"PAGEMESH_{name}", value)
    with pytest.raises(SystemExit) as ended:
        load_settings(SummarizerSettings)
    assert ended.value.code == 78
    assert f"PAGEMESH_{name}:" in capsys.readouterr().err


def test_all_that_is_missing_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("TLS_DIR", "DATABASE_URL", "REDIS_URL", "EXTRACTOR_TARGET", "LEDGER_TARGET"):
        monkeypatch.delenv(f"PAGEMESH_{name}", raising=False)
    with pytest.raises(SystemExit):
        load_settings(SummarizerSettings)
    told = capsys.readouterr().err
    for name in ("TLS_DIR", "DATABASE_URL", "REDIS_URL", "EXTRACTOR_TARGET", "LEDGER_TARGET"):
        assert f"PAGEMESH_{name}: is not set" in told


def test_keys_of_providers_are_named_and_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PAGEMESH_PROVIDER_KEYS", "openai=sk-very-secret, groq=gsk=2")
    settings = load_settings(SummarizerSettings)
    assert {name: key.get_secret_value() for name, key in settings.provider_keys.items()} == {
        "openai": "sk-very-secret",
        "groq": "gsk=2",
    }
    assert "secret" not in repr(settings)
    environment.setenv("PAGEMESH_PROVIDER_KEYS", "")
    assert load_settings(SummarizerSettings).provider_keys == {}


def test_limits_by_the_minute(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PAGEMESH_MODEL_RATES", "openrouter/openai/gpt-4.1=30000:500, mistral/*=0:60,openai/x=7")
    assert load_settings(SummarizerSettings).model_rates == {
        "openrouter/openai/gpt-4.1": Rate(30_000, 500),
        "mistral/*": Rate(0, 60),
        "openai/x": Rate(7, 0),
    }


@pytest.mark.parametrize(
    "text", ["openai/x", "openai/x=", "openai/x=-1", "openai/x=1:2:3", "openai/x=1e3", "*=1", "openai=1"]
)
def test_limits_that_cannot_be_read(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    environment.setenv("PAGEMESH_MODEL_RATES", text)
    with pytest.raises(SystemExit):
        load_settings(SummarizerSettings)
    assert "PAGEMESH_MODEL_RATES" in capsys.readouterr().err
