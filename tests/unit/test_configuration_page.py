"""docs/configuration.md against the code: every setting, by its name and its default, and no other."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from pagemesh_cli.stack.edge import LOCAL_HOSTS, EdgeAddresses, EdgeLimits, TokenBucket
from pagemesh_cli.stack.edge_tracing import EdgeTracing
from pagemesh_cli.stack.settings import CLIENT_SETTINGS
from services.extractor.config import ExtractorSettings
from services.ledger.config import LedgerSettings
from services.runtime.config import RuntimeSettings
from services.summarizer.config import SummarizerSettings, WorkerSettings

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| `(PAGEMESH_[A-Z0-9_]+)` \| (.*?) ?\| (.+) \|$", re.MULTILINE)


def documented(section: str) -> dict[str, str]:
    """The settings of a section and their defaults."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    rows = _ROW.findall(body)
    assert len({name for name, _, _ in rows}) == len(rows)
    return {name: default.strip("`") for name, default, _ in rows}


def written(default: Any) -> str:
    """A default as the page shows it."""
    match default:
        case _ if default is PydanticUndefined:
            return ""
        case None:
            return "none"
        case tuple():
            return ",".join(default)
        case float():
            return f"{default:g}"
        case TokenBucket():
            return f"{default.burst}+{default.refill}/{default.every_s:g}s"
        case _:
            return str(default).rstrip("/")


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("Every service", RuntimeSettings),
        ("Extractor", ExtractorSettings),
        ("Summarizer", SummarizerSettings),
        ("Worker", WorkerSettings),
        ("Ledger", LedgerSettings),
    ],
)
def test_every_setting_of_a_service_is_there_with_its_default(section: str, settings: type[BaseSettings]) -> None:
    # What every service has stands in its own section, and the database's URL with it.
    above = SummarizerSettings if settings is WorkerSettings else RuntimeSettings
    known = {} if settings is RuntimeSettings else above.model_fields
    redefined = settings.__annotations__
    own = {name: f for name, f in settings.model_fields.items() if name not in known or name in redefined}
    expected = {f"PAGEMESH_{name.upper()}": written(field.default) for name, field in own.items()}
    if settings is ExtractorSettings:
        for name in ("PAGEMESH_PARSER_PROCESSES", "PAGEMESH_OCR_PROCESSES"):
            assert expected[name] == str(os.cpu_count())
            expected[name] = "the machine's cores"
    assert documented(section) == expected


def test_every_setting_of_the_edge_is_there_with_its_default() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    arguments = dict(re.findall(r"^ARG (PAGEMESH_EDGE_[A-Z_]+)=(.*)$", dockerfile, re.MULTILINE))
    limits = {f"PAGEMESH_EDGE_{name.upper()}": value for name, value in vars(EdgeLimits()).items()}
    addresses = [f"PAGEMESH_EDGE_{field.name.upper()}" for field in dataclasses.fields(EdgeAddresses)]
    expected = {name: written(value) for name, value in limits.items()}
    expected |= {name: arguments[name] for name in addresses}
    tracing = {f"PAGEMESH_EDGE_{name.upper()}": value for name, value in vars(EdgeTracing()).items()}
    expected |= {name: written(value) for name, value in tracing.items()}
    assert documented("Edge") == expected | {
        "PAGEMESH_EDGE_ALLOWED_ORIGINS": "none",
        "PAGEMESH_EDGE_HOSTS": ",".join(LOCAL_HOSTS),
    }
    assert arguments.keys() == documented("Edge").keys(), "what the image is built with"
    assert {arguments[name] for name in (*limits, *tracing)} == {""}


def test_every_setting_of_the_command_is_there() -> None:
    for_tests_only = {"PAGEMESH_CORPUS"}
    assert documented("Embedded stack").keys() == CLIENT_SETTINGS - for_tests_only
