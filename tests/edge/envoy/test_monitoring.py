"""Alerts and dashboards ask for metrics and labels that are really there, and for nothing else."""

import importlib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from services.database.pool import open_pool
from tests.edge.envoy.edge import Edge
from tests.edge.envoy.upstreams import Mesh

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "monitoring"
OF_PROMETHEUS = {"up": frozenset[str]()}
OF_EVERY_SCRAPE = {"job", "instance"}


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def alerts() -> list[dict[str, Any]]:
    return [rule for group in _load(FOLDER / "alerts.yaml")["groups"] for rule in group["rules"]]


def boards() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").glob("*.json"))}


def expressions() -> Iterator[tuple[str, str]]:
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for name, board in boards().items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']} {target['refId']}", target["expr"].replace("$__rate_interval", "5m")


EXPRESSIONS = dict(expressions())


def selectors(node: Any) -> Iterator[tuple[str, set[str]]]:
    """Metric and labels of each selector below `node`; the labels that aggregations around it name are among them."""
    match node:
        case promql_parser.VectorSelector():
            yield node.name or "", {matcher.name for matcher in node.matchers.matchers}
        case promql_parser.MatrixSelector():
            yield from selectors(node.vector_selector)
        case promql_parser.AggregateExpr():
            grouped = set(node.modifier.labels) if node.modifier is not None else set()
            for name, labels in selectors(node.expr):
                yield name, labels | grouped
        case promql_parser.BinaryExpr():
            yield from selectors(node.lhs)
            yield from selectors(node.rhs)
        case promql_parser.Call():
            for argument in node.args:
                yield from selectors(argument)
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr() | promql_parser.SubqueryExpr():
            yield from selectors(node.expr)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            pass
        case _:
            raise AssertionError(f"{type(node).__name__} is not known to this test")


@cache
def declared() -> dict[str, frozenset[str]]:
    """The series of every metric that some service declares, with their labels: also those without a sample yet."""
    for path in sorted((ROOT / "services").rglob("*.py")):
        if "prometheus_client" in path.read_text():
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found: dict[str, frozenset[str]] = {}
    for metric in set(REGISTRY._names_to_collectors.values()):
        if isinstance(metric, MetricWrapperBase):
            name, labels = metric._name, frozenset(metric._labelnames)
            match metric._type:
                case "counter":
                    found[f"{name}_total"] = labels
                case "histogram":
                    found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
                case _:
                    found[name] = labels
    return found


@pytest.fixture
async def pools() -> dict[str, frozenset[str]]:
    """What a pool shows; nothing is declared before there is one."""
    pool = await open_pool("postgresql://localhost:1/nowhere", name="test-metrics", max_size=3)
    shown = {
        sample.name: frozenset(sample.labels)
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith("pagemesh_database_") and sample.labels.get("pool") == "test-metrics"
    }
    assert REGISTRY.get_sample_value("pagemesh_database_connections_max", {"pool": "test-metrics"}) == 3
    await pool.close()
    return shown


@pytest.mark.asyncio(loop_scope="session")
async def test_every_expression_asks_for_what_is_exposed(
    edge: Edge, clean: Mesh, pools: dict[str, frozenset[str]]
) -> None:
    await edge.call("GET", "/v1/whoami")
    answer = edge.plain("/metrics")
    of_envoy: dict[str, frozenset[str]] = {}
    # Not by prometheus_client's own reader: it appends `_total` to counters that are called otherwise.
    for name, labels in re.findall(r"^(envoy_\w+)(?:\{(.*)\})? \S+$", answer.body.decode(), re.MULTILINE):
        of_envoy[name] = of_envoy.get(name, frozenset()) | frozenset(re.findall(r'(\w+)="', labels))
    known = {**declared(), **pools, **of_envoy, **OF_PROMETHEUS}
    asked = 0
    for where, expression in EXPRESSIONS.items():
        for name, labels in selectors(promql_parser.parse(expression)):
            assert name in known, f"{where}: nobody exposes {name}"
            extra = labels - known[name] - OF_EVERY_SCRAPE
            assert not extra, f"{where}: {name} has no {', '.join(sorted(extra))}"
            asked += 1
    assert asked >= len(EXPRESSIONS)


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("up == 0", [("up", set())]),
        ('sum by (a) (rate(m_total{b!="x"}[5m])) / 2', [("m_total", {"a", "b"})]),
        ("histogram_quantile(0.9, sum by (le) (rate(h_bucket[1m])))", [("h_bucket", {"le"})]),
        ("topk(3, max by (t) (g)) > -(k)", [("g", {"t"}), ("k", set())]),
    ],
)
def test_the_reader_of_expressions_finds_what_they_ask_for(expression: str, wanted: list[Any]) -> None:
    assert list(selectors(promql_parser.parse(expression))) == wanted


def test_the_alerts_are_those_that_are_promised() -> None:
    """Thresholds and patience as docs/acceptance.md has them."""
    found = {rule["alert"]: (re.sub(r"\s+", " ", rule["expr"]).strip()[-12:], rule.get("for", "")) for rule in alerts()}
    wanted = {
        "ErrorRate": ("> 0.1", "2m"),
        "SlowDocuments": ("> 300", "5m"),
        "QueueGrows": ("> 50", "5m"),
        "DatabaseConnections": ("> 0.8", "2m"),
        "BudgetAt80Percent": (">= 0.8 < 1", ""),
        "BudgetUsedUp": (">= 1", ""),
        "CostAnomaly": ("> 0", ""),
        "BreakerOpen": ("== 2", "1m"),
        "CertificateExpires": ("< 14", "15m"),
    }
    for name, (end, patience) in wanted.items():
        assert found[name][0].endswith(end)
        assert found[name][1] == patience
    documented = (ROOT / "docs" / "monitoring.md").read_text()
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in documented, "who is woken wants to know what to do"


def test_each_board_is_whole() -> None:
    assert set(boards()) == {"service", "cost", "queue"}
    for board in boards().values():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
        for panel in board["panels"]:
            assert panel["datasource"]["uid"] == _load(FOLDER / "grafana" / "datasource.yaml")["datasources"][0]["uid"]


def test_every_part_is_scraped_and_pages_go_to_pagerduty_with_a_key_from_a_file() -> None:
    scraped = {job["job_name"] for job in _load(FOLDER / "prometheus.yaml")["scrape_configs"]}
    compose = _load(FOLDER.parent / "compose.yaml")["services"]
    assert scraped == {"edge", "ledger", "extractor", "summarizer", "worker"} <= compose.keys()
    told = _load(FOLDER / "alertmanager.yaml")
    receivers = {receiver["name"]: receiver["pagerduty_configs"] for receiver in told["receivers"]}
    routes = {told["route"]["receiver"], *(route["receiver"] for route in told["route"]["routes"])}
    assert routes == receivers.keys()
    for (config,) in receivers.values():
        assert config["routing_key_file"] == "/run/secrets/pagerduty-key"
        assert "routing_key" not in config
    for name in ("prometheus", "alertmanager", "grafana"):
        assert compose[name]["profiles"] == ["monitoring"]
    assert "pagerduty-key" in compose["alertmanager"]["secrets"]
