"""deploy/ against what it deploys: no engine is needed to see that files, settings, ports and limits fit."""

import datetime as dt
import importlib
import os
import re
import shlex
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.edge import command
from services.extractor import __main__ as extractor_main
from services.extractor.adapters import ocr_pool, parser_pool
from services.ledger.config import LedgerSettings
from services.runtime.config import load_settings

ROOT = Path(__file__).parents[3]
SERVICES = ("extractor", "summarizer", "ledger")
SHARED = ("admission", "audit", "database", "readiness", "runtime", "telemetry", "waiting", "webhooks")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]


def instructions() -> Iterator[tuple[str, str, list[str]]]:
    """Stage, instruction and words of every line of the Dockerfile."""
    stage = ""
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "FROM":
            stage = words[3]
        yield stage, words[0], words[1:]


DOCKERFILE = list(instructions())
BASES = {stage: words[0] for stage, instruction, words in DOCKERFILE if instruction == "FROM"}


def lineage(stage: str) -> list[str]:
    """The stage and what it is built on, oldest first."""
    base = BASES.get(stage)
    return [*(lineage(base) if base in BASES else []), stage]


def copies(stage: str) -> list[tuple[str, str]]:
    """What a stage takes from the checkout, and where to."""
    found = []
    for name, instruction, words in DOCKERFILE:
        if name in lineage(stage) and instruction == "COPY" and not words[0].startswith("--from"):
            found += [(source, words[-1]) for source in words[:-1]]
    return found


def image_tree(stage: str, directory: Path) -> Path:
    """The files of the checkout that are in the stage's /app."""
    for source, target in copies(stage):
        if source.startswith("locks/"):
            continue
        place = directory / target
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, place)
    return directory


def python(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python that sees the tree and the installed packages, but not this checkout."""
    packages = site.getsitepackages()
    path = os.pathsep.join([str(tree), str(tree / "gen"), *packages])
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=tree,
        env={"PATH": os.defpath, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def variables(stage: str, instruction: str) -> dict[str, str]:
    pairs = [w.partition("=") for s, i, words in DOCKERFILE if s in lineage(stage) and i == instruction for w in words]
    return {name: value for name, _, value in pairs if name.startswith("PAGEMESH_")}


@pytest.mark.parametrize("stage", BASES)
def test_what_is_copied_exists_and_is_let_through(stage: str) -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source, _ in copies(stage):
        assert (ROOT / source).exists(), source
        assert any(source.rstrip("/") == name or source.startswith(f"{name}/") for name in let_through), source


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_holds_all_that_its_service_imports_and_no_other_service(service: str, tmp_path: Path) -> None:
    tree = image_tree(service, tmp_path)
    assert {part.name for part in (tree / "services").iterdir()} == {*SHARED, service}
    imported = python(tree, "-c", f"import services.{service}.__main__ as m; print(m.__file__)")
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.strip().startswith(str(tree))


@pytest.mark.parametrize("stage", [*SERVICES, "edge"])
def test_nothing_runs_as_root(stage: str) -> None:
    users = [words[0] for name, instruction, words in DOCKERFILE if name == stage and instruction == "USER"]
    assert len(users) == 1
    assert int(users[0].partition(":")[0]) > 0


def test_the_edges_image_renders_the_configuration(tmp_path: Path) -> None:
    tree = image_tree("edge-config", tmp_path / "app")
    authority = CertificateAuthority(tmp_path / "pki")
    authority.ensure(now=dt.datetime.now(dt.UTC))
    arguments = variables("edge-config", "ARG")
    assert arguments.keys() >= {"PAGEMESH_EDGE_LISTEN", "PAGEMESH_EDGE_LEDGER"}
    arguments |= {
        "PAGEMESH_EDGE_TLS_DIR": str(authority.tls_dir("edge")),
        "PAGEMESH_EDGE_KEY": "100+50/0.5s",
        "PAGEMESH_EDGE_ALLOWED_ORIGINS": "https://a.example.org, https://b.example.org",
    }
    rendered = python(tree, "-m", "pagemesh_cli.stack.render_edge", str(tmp_path / "etc"), **arguments)
    assert rendered.returncode == 0, rendered.stderr
    config = Path(rendered.stdout.strip())
    assert '"max_tokens": 100, "tokens_per_fill": 50, "fill_interval": "0.5s"' in config.read_text()
    assert '[{"exact": "https://a.example.org"}, {"exact": "https://b.example.org"}]' in config.read_text()
    validated = subprocess.run(
        [*command(config), "--mode", "validate"], capture_output=True, text=True, timeout=60, check=False
    )
    assert validated.returncode == 0, validated.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {}, "DIRECTORY"),
        (("out",), {}, "Not set: PAGEMESH_EDGE_LISTEN, PAGEMESH_EDGE_METRICS_LISTEN"),
        (("out",), {"PAGEMESH_EDGE_KEY": "fast"}, "'fast' is not a limit"),
        (("out",), {"PAGEMESH_EDGE_BODY_BYTES": "1MB"}, "PAGEMESH_EDGE_BODY_BYTES is not a whole number"),
    ],
)
def test_wrong_settings_of_the_edge_are_told(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    given = variables("edge-config", "ARG") if environment else {}
    tree = image_tree("edge-config", tmp_path)
    told = python(tree, "-m", "pagemesh_cli.stack.render_edge", *arguments, **given | environment)
    assert told.returncode == 2
    assert message in told.stderr


def settings(service: str) -> dict[str, bool]:
    """Every variable that a service reads, and whether serving needs it."""
    module = importlib.import_module(f"services.{service}.config")
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, BaseSettings)]
    found: dict[str, bool] = {}
    for cls in classes:
        for name, field in cls.model_fields.items():
            serving = cls.__name__ == f"{service.capitalize()}Settings"
            found[f"PAGEMESH_{name.upper()}"] = found.get(f"PAGEMESH_{name.upper()}", False) or (
                serving and field.is_required()
            )
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_the_settings_given_are_the_settings_read(service: str) -> None:
    given = variables(service, "ENV").keys() | COMPOSE[service]["environment"].keys()
    read = settings(service)
    assert given <= read.keys()
    assert {name for name, required in read.items() if required} <= given


def test_the_ledger_starts_with_what_an_untouched_example_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = dict(
        re.findall(r"^(PAGEMESH_[A-Z_]+)=(.*)$", (ROOT / "deploy" / "example.env").read_text(), re.MULTILINE)
    )
    example |= {"PAGEMESH_KEY_PEPPER": "p" * 32, "PAGEMESH_LEDGER_PASSWORD": "secret"}
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).touch()
    given = variables("ledger", "ENV") | {"PAGEMESH_TLS_DIR": str(tmp_path)}
    for name, text in {**COMPOSE["ledger"]["environment"], **given}.items():
        # As Compose does: what is empty is what comes after the colon.
        resolved = re.sub(r"\$\{(\w+):[-?](.*?)\}", lambda found: example[found[1]] or found[2], text)
        monkeypatch.setenv(name, resolved)
    settings = load_settings(LedgerSettings)
    unset = (settings.oidc_ca_file, settings.reports_database_url, settings.audit_client_secret)
    assert unset == (None, None, None)
    assert (settings.webhook_attempts, settings.audit_retention_months) == (12, 24)
    assert "outside" in COMPOSE["ledger"]["networks"], "webhooks and identity providers are there"


def test_what_compose_asks_of_the_environment_is_in_the_example() -> None:
    asked = set(re.findall(r"\$\{(PAGEMESH_[A-Z_]+)", (ROOT / "deploy" / "compose.yaml").read_text()))
    example = (ROOT / "deploy" / "example.env").read_text()
    assert asked == set(re.findall(r"^(PAGEMESH_[A-Z_]+)=", example, re.MULTILINE))


def test_only_the_edge_has_a_port_outside() -> None:
    assert {name for name, service in COMPOSE.items() if "ports" in service} == {"edge", "grafana"}
    assert [port.partition(":")[0] for port in COMPOSE["grafana"]["ports"]] == ["127.0.0.1"], "on the host itself alone"
    assert [str(port).rpartition(":")[2] for port in COMPOSE["edge"]["ports"]] == ["8443"]


@pytest.mark.parametrize("name", COMPOSE)
def test_every_container_is_bounded_and_cannot_write_where_it_need_not(name: str) -> None:
    service = COMPOSE[name]
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= limits.keys()
    assert service["read_only"] is True
    assert "no-new-privileges:true" in service["security_opt"]
    if name != "objects-owner":
        assert service["deploy"]["restart_policy"] == {"condition": "on-failure", "delay": "5s", "max_attempts": 3}


def test_parsers_fit_into_the_memory_of_their_container_and_uploads_are_not_in_it() -> None:
    extractor = COMPOSE["extractor"]
    assert extractor["deploy"]["resources"]["limits"]["memory"] == "3584m"
    given = extractor["environment"]
    parser_bytes = int(given["PAGEMESH_PARSER_MEMORY_BYTES"])
    busy_bytes = int(given["PAGEMESH_PARSER_PROCESSES"]) * (parser_bytes + parser_pool._ADDRESS_SPACE_SLACK_BYTES)
    (tmp,) = (re.fullmatch(r"/tmp:size=(\d+)m", mount) for mount in extractor["tmpfs"])
    assert tmp is not None
    reader_bytes = extractor_main._OCR_MEMORY_BYTES + ocr_pool._ADDRESS_SPACE_SLACK_BYTES
    readers_bytes = int(given["PAGEMESH_OCR_PROCESSES"]) * reader_bytes + 160 * 2**20
    others_bytes = parser_bytes // 2 + (64 + 120 + 32 + int(tmp[1])) * 2**20
    assert busy_bytes + readers_bytes + others_bytes < 3584 * 2**20
    (spool,) = (volume for volume in extractor["volumes"] if volume["target"] == given["PAGEMESH_SPOOL_DIR"])
    assert spool == {"type": "volume", "target": "/spool"}, "a named one would be shared by all replicas"
    made = [words for stage, name, words in DOCKERFILE if (stage, name) == ("extractor", "RUN") and "/spool" in words]
    (user,) = (words[0] for stage, name, words in DOCKERFILE if (stage, name) == ("extractor", "USER"))
    assert [f"--owner={user.partition(':')[0]}" in words for words in made] == [True]


def test_targets_are_stages_and_waits_can_be_met() -> None:
    checked = {stage for stage, instruction, _ in DOCKERFILE if instruction == "HEALTHCHECK"}
    for service in COMPOSE.values():
        if "build" in service:
            assert service["build"]["target"] in BASES
        for other, wait in service.get("depends_on", {}).items():
            stages = lineage(COMPOSE[other].get("build", {}).get("target", ""))
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in COMPOSE[other] or checked & set(stages), other


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files to other users takes root, as the container has")
def test_each_user_reads_its_own_certificate_only(tmp_path: Path) -> None:
    tree = image_tree("certificates", tmp_path / "app")
    pki = tmp_path / "pki"
    code = f"from deploy.certificates import main; from pathlib import Path; main(Path({str(pki)!r}))"
    for expected in ("edge, extractor, summarizer, ledger, operator", "none needed"):
        made = python(tree, "-c", code)
        assert made.returncode == 0, made.stderr
        assert expected in made.stdout
    users = {}
    for stage, instruction, words in DOCKERFILE:
        if instruction == "USER":
            users[stage] = int(words[0].partition(":")[0])
    for identity, user in users.items():
        folder = pki / "tls" / identity
        assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (user, 0o700)
        key = folder / "tls.key"
        assert (key.stat().st_uid, key.stat().st_mode & 0o777) == (user, 0o600)
    assert (pki / "ca" / "ca.key").stat().st_uid == 0
