"""`pagemesh ledger` gives the ledger's commands the settings of the stack that runs."""

from pathlib import Path

import pytest

from pagemesh_cli.demo import document_path
from tests.conftest import RunningStack
from tests.stack.running import Command


@pytest.fixture(scope="module")
def pagemesh(stack: RunningStack) -> Command:
    return Command.on(stack.data.root)


def test_a_budget_is_set_and_held_against(pagemesh: Command, stack: RunningStack) -> None:
    key = pagemesh("ledger", "--", "bootstrap", "--tenant", "thrifty").json["secret"]
    answer = pagemesh("ledger", "--", "bootstrap", "--tenant", "thrifty", "--hard-budget-micros", "0", "--no-key")
    assert (answer.code, answer.json) == (0, {"tenant": "thrifty"}), answer.err
    refused = Command.on(stack.data.root, PAGEMESH_API_KEY=key)("summarize", str(document_path()), "--json")
    assert refused.code == 6
    assert refused.error["reason"] == "BUDGET_EXCEEDED"


def test_holds_are_listed(pagemesh: Command) -> None:
    answer = pagemesh("ledger", "--", "holds", "list", "--tenant", "thrifty")
    assert (answer.code, answer.out) == (0, ""), answer.err


def test_refusals_and_wrong_words_keep_their_exit_codes(pagemesh: Command) -> None:
    nothing = "00000000-0000-4000-8000-000000000000"
    refused = pagemesh("ledger", "--", "holds", "release", "--tenant", "thrifty", nothing)
    assert refused.code == 1
    assert "HOLD_NOT_FOUND" in refused.err
    assert pagemesh("ledger", "--", "nonsense").code == 2


def test_without_a_stack_there_is_no_ledger(tmp_path: Path) -> None:
    answer = Command.on(tmp_path)("ledger", "--", "holds", "list")
    assert answer.code == 3
    assert "No stack is running" in answer.err
