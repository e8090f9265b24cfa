"""Which revision a release needs, read from its migrations without Alembic."""

from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from services.database.schema import revisions

SERVICES = Path(__file__).parents[3] / "services"


@pytest.mark.parametrize("service", ["extractor", "summarizer", "ledger"])
def test_it_is_the_one_that_alembic_migrates_to(service: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(SERVICES / service / "migrations"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    newest, known = revisions(SERVICES / service / "migrations")
    assert newest == script.get_current_head()
    assert known == {revision.revision for revision in script.walk_revisions()}


@pytest.mark.parametrize(
    ("service", "wired"), [("extractor", "__main__"), ("summarizer", "outside"), ("ledger", "__main__")]
)
def test_every_service_asks_for_it(service: str, wired: str) -> None:
    code = (SERVICES / service / f"{wired}.py").read_text()
    assert f'health.add("database", SchemaCheck(pool, service="{service}", directory=' in code


@pytest.mark.parametrize("followed", [[], ["1", "2"]], ids=["none", "two"])
def test_histories_that_do_not_end_in_one_are_refused(tmp_path: Path, followed: list[str]) -> None:
    (tmp_path / "versions").mkdir()
    for revision in followed:
        text = f'revision: str = "{revision}"\ndown_revision: str | None = None\n'
        (tmp_path / "versions" / f"{revision}.py").write_text(text)
    with pytest.raises(ValueError, match=f"has {len(followed)} newest"):
        revisions(tmp_path)
