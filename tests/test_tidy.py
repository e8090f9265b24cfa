"""The house rules that a machine can check: who may import whom, how long things may be, what is nowhere said."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.runtime import errors

ROOT = Path(__file__).parent.parent
ERROR_KINDS = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.PagemeshError)
} | {"Reply"}
SERVICES = ("extractor", "summarizer", "ledger")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70
MAX_RUNTIME_LINES = 1200

# The domain knows no transport, storage or library of the outside world.
OUTSIDE = re.compile(
    r"^(grpc|google|buf|xdsapi|pagemesh|psycopg|psycopg_pool|redis|obstore|pymupdf|fitz|mistralai|mistral_common|httpx2?|"
    r"cv2|rapidocr|onnxruntime|structlog|prometheus_client|opentelemetry|sentry_sdk|pydantic|pydantic_settings|alembic|sqlalchemy)(\.|$)"
)


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


SOURCES = [p for p in tracked("*.py") if p.relative_to(ROOT).parts[0] != "gen"]
OWN_CODE = [p for p in SOURCES if p.relative_to(ROOT).parts[0] in ("services", "pagemesh_cli", "bench", "tests")]


def names(paths: list[Path]) -> list[str]:
    return [str(p.relative_to(ROOT)) for p in paths]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the full name"
            yield node.module or ""


def code_lines(path: Path) -> int:
    """Lines that are neither blank, comment nor docstring."""
    source = path.read_text()
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documentation |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in nothing:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - documentation)


@pytest.mark.parametrize("path", OWN_CODE, ids=names(OWN_CODE))
def test_files_and_functions_are_short(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, f"{node.name} is long"


def test_the_runtime_stays_small() -> None:
    assert sum(code_lines(p) for p in (ROOT / "services" / "runtime").glob("*.py")) < MAX_RUNTIME_LINES


@pytest.mark.parametrize("service", SERVICES)
def test_the_domain_imports_nothing_of_the_outside(service: str) -> None:
    files = sorted((ROOT / "services" / service / "domain").glob("**/*.py"))
    assert files
    for path in files:
        for name in imports(path):
            assert not OUTSIDE.match(name), f"{path}: {name}"
            if name.startswith("services."):
                allowed = (f"services.{service}.domain", "services.runtime.errors")
                assert name.startswith(allowed), f"{path}: {name}"


@pytest.mark.parametrize("service", SERVICES)
def test_services_know_each_other_by_contract_alone(service: str) -> None:
    others = tuple(f"services.{other}" for other in SERVICES if other != service)
    for path in (ROOT / "services" / service).glob("**/*.py"):
        for name in imports(path):
            assert not name.startswith((*others, "pagemesh_cli", "tests")), f"{path}: {name}"


@pytest.mark.parametrize("service", SERVICES)
def test_only_the_main_module_wires(service: str) -> None:
    for room in ("api", "domain"):
        for path in (ROOT / "services" / service / room).glob("**/*.py"):
            for name in imports(path):
                assert not name.startswith(f"services.{service}.adapters"), f"{path}: {name}"


def test_mupdf_stays_in_its_adapters() -> None:
    for path in (ROOT / "services").glob("**/*.py"):
        if path.match("services/extractor/adapters/mupdf*.py"):
            continue
        assert not any(name.split(".")[0] in ("pymupdf", "fitz") for name in imports(path)), path


def test_the_models_that_read_pictures_stay_in_their_process() -> None:
    """What the service itself imports must not load them: 0.2 GB, and threads of their own."""
    for path in (ROOT / "services" / "extractor").glob("**/*.py"):
        if path.match("adapters/ocr_models.py") or path.match("adapters/ocr_worker.py"):
            continue
        for name in imports(path):
            assert name.split(".")[0] not in ("cv2", "rapidocr", "onnxruntime"), path
            assert not name.startswith("services.extractor.adapters.ocr_models"), path


def test_the_runtime_knows_no_service() -> None:
    for path in (ROOT / "services" / "runtime").glob("*.py"):
        assert not any(name.startswith(tuple(f"services.{s}" for s in SERVICES)) for name in imports(path)), path


def test_the_envoy_folder_does_not_shadow_the_package_of_that_name() -> None:
    assert not (ROOT / "envoy" / "__init__.py").exists()


def test_every_reason_is_explained() -> None:
    explained = (ROOT / "docs" / "errors.md").read_text()
    reasons = set()
    for path in [*(ROOT / "services").glob("**/*.py"), ROOT / "pagemesh_cli" / "stack" / "edge_replies.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute) and node.args:
                kind = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                first = node.args[0]
                if kind in ERROR_KINDS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                    reasons.add(first.value)
    assert len(reasons) > 40
    assert [reason for reason in sorted(reasons) if not re.search(rf"\b{reason}\b", explained)] == []


PAGES = tracked("*.md")


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_and_named_tests_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    for target in re.findall(r"`((?:tests|bench)/[\w./]+)", text):
        assert (ROOT / target).exists(), target


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    for path in SOURCES:
        if path != Path(__file__):
            assert not marks.search(path.read_text()), path


def test_no_package_registry_is_named() -> None:
    hosts = re.compile(r"pypi\.org|pythonhosted\.org|registry\.npmjs|proxy\.golang\.org")
    for path in tracked("locks/*", "Makefile", "deploy/*", "*.md", "*.toml", "*.yaml"):
        assert not hosts.search(path.read_text()), path
