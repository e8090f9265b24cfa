"""`pagemesh models` against the whole stack, through its real edge."""

import pytest

from tests.conftest import RunningStack
from tests.stack.running import Command


@pytest.fixture(scope="module")
def pagemesh(stack: RunningStack) -> Command:
    return Command.on(stack.data.root)


def test_a_policy_is_set_shown_and_taken_back(pagemesh: Command) -> None:
    made = pagemesh("models", "set", "--default", "offline/lexrank", "--allow", "offline/*", "--json").json
    assert (made["defaultModel"], made["allowedModels"]) == ("offline/lexrank", ["offline/*"])
    assert made["fallbackModels"] == []
    shown = pagemesh("models", "show")
    assert "default   offline/lexrank\n" in shown.out
    assert "allowed   offline/*\n" in shown.out
    cleared = pagemesh("models", "set", "--default", "", "--allow-all", "--no-fallback")
    assert "allowed   (all)\n" in cleared.out
    assert "fallback  (that of the deployment)\n" in cleared.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "BAD_OPTIONS"),
        (("--allow", "offline/*", "--allow-all"), "BAD_OPTIONS"),
        (("--allow", "ofline/*"), "MODEL_UNKNOWN"),
        (("--default", "no model"), "INVALID_FIELD"),
    ],
)
def test_what_cannot_be_set_is_told(pagemesh: Command, arguments: tuple[str, ...], reason: str) -> None:
    refused = pagemesh("models", "set", *arguments, "--json")
    assert (refused.code, refused.error["reason"]) == (2, reason)
