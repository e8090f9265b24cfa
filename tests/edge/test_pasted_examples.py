"""What the pages on money show of curl, sent as curl sends it."""

import re
from pathlib import Path

import pytest

from tests.edge.conftest import World

DOCS = Path(__file__).parents[2] / "docs"
_CURL = re.compile(
    r'^curl --cacert \$CA -H "authorization: Bearer \$KEY" (?:-o \S+ )?(?:\\\n *)?"\$URL(?P<path>[^"]+)"'
    r"(?: -d '(?P<body>[^']+)')?$",
    re.MULTILINE,
)


@pytest.mark.parametrize(("page", "examples"), [("budgets.md", 2), ("usage.md", 2)])
def test_an_example_can_be_pasted(world: World, page: str, examples: int) -> None:
    found = list(_CURL.finditer((DOCS / page).read_text()))
    assert len(found) == examples == (DOCS / page).read_text().count("\ncurl ")
    for example in found:
        headers = {"authorization": f"Bearer {world.keys['admin']}"}
        body = example["body"]
        if body is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        answer = world.edge.http("POST" if body else "GET", example["path"], body.encode() if body else None, headers)
        assert answer.http == 200, (example[0], answer.body)
    if page == "budgets.md":
        made = world.edge.http("GET", "/v1/budgets/team-red", None, {"authorization": f"Bearer {world.keys['admin']}"})
        assert b'"BUDGET_PERIOD_DAY"' in made.body
