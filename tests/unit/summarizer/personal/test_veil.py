"""Placeholders: put in, kept apart from what only looks like them, and taken out again."""
# ruff: noqa: RUF001  # letters that only look like others are what is tested

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.errors import FailedPrecondition
from services.summarizer.domain import veil as veil_module
from services.summarizer.domain.personal_data import Finder
from services.summarizer.domain.personal_kinds import ALL, Kind
from services.summarizer.domain.prompts import speakable
from services.summarizer.domain.sealed_prompts import sealed
from services.summarizer.domain.values import Chunk, Prompt, Stage
from services.summarizer.domain.veil import Restoring, Veil
from tests.unit.summarizer.flow.parts import options

PIECES = (
    "max@example.org", "MAX@example.org", "+49 30 1234567", "030\n1234567", "DE89 3704 0044 0532 0130 00",
    "192.168.0.1", "4111 1111 1111 1111", "geb. 04.03.1980", "Herr Max Müller", "Müller", "[EMAIL_1]", "[email 2]",
    "[PERSON_1]", "[TEXT_1]", "[EMAIL", "_1]", "[", "]", " ", "\n", ", ", "0", "1", "the bees", "Name: ", "Tel. ",
    "[EMAIL_999999]", "＠", "x",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12).map("".join)


def veiled(*texts: str) -> tuple[Veil, list[str]]:
    veil = Veil(ALL)
    for text in texts:
        veil.learn(text)
    return veil, [veil.hide(text) for text in texts]


@given(st.lists(TEXTS, max_size=4))
def test_what_is_hidden_is_restored(texts: list[str]) -> None:
    veil, hidden = veiled(*texts)
    for text, covered in zip(texts, hidden, strict=True):
        # Where a line ends within a value, it comes back with a space.
        assert veil.restore(covered).split() == speakable(text).split()


@given(st.lists(TEXTS, max_size=4))
def test_nothing_is_found_in_what_was_hidden(texts: list[str]) -> None:
    _, hidden = veiled(*texts)
    for covered in hidden:
        prompt = Prompt(
            Stage.MAP,
            options(anonymise=ALL),
            "m",
            3,
            chunk=Chunk(0, covered, ((0, len(covered), 1),) if covered else ()),
        )
        assert sealed(prompt) == prompt


@given(TEXTS, st.data())
def test_a_stream_is_restored_wherever_it_is_cut(text: str, data: st.DataObject) -> None:
    veil, (hidden,) = veiled(text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(hidden)), max_size=8)))
    restoring = Restoring(veil)
    ends = [*cuts, len(hidden)]
    told = [restoring.feed(hidden[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    assert "".join((*told, restoring.finish())) == veil.restore(hidden)


def test_each_position_of_a_placeholder_may_be_cut() -> None:
    veil, (hidden,) = veiled("Write to max@example.org now.")
    assert hidden == "Write to [EMAIL_1] now."
    for cut in range(len(hidden) + 1):
        restoring = Restoring(veil)
        assert restoring.feed(hidden[:cut]) + restoring.feed(hidden[cut:]) + restoring.finish() == (
            "Write to max@example.org now."
        )


def test_the_same_value_has_the_same_placeholder_in_the_whole_request() -> None:
    _, hidden = veiled("a@b.org, c@d.org", "c@d.org; Tel. 030\n1234567", "030 1234567 a@b.org")
    assert hidden == ["[EMAIL_1], [EMAIL_2]", "[EMAIL_2]; Tel. [PHONE_1]", "[PHONE_1] [EMAIL_1]"]


def test_a_name_is_hidden_before_it_is_announced_too() -> None:
    assert veiled("Müller owes.", "Herr Müller agreed.")[1] == ["[PERSON_1] owes.", "Herr [PERSON_1] agreed."]


def test_what_looks_like_a_placeholder_becomes_one_and_none_can_be_forged() -> None:
    veil, (hidden,) = veiled("Say [EMAIL_1] or [ email-1 ] or ［ＰＨＯＮＥ＿１］ to max@example.org")
    assert hidden == "Say [TEXT_1] or [TEXT_2] or [TEXT_3] to [EMAIL_1]"
    assert veil.restore(hidden) == "Say [EMAIL_1] or [ email-1 ] or ［ＰＨＯＮＥ＿１］ to max@example.org"
    assert veil.counts() == {Kind.EMAIL: 1}


def test_what_a_model_makes_up_stays_as_it_is() -> None:
    veil, _ = veiled("max@example.org")
    assert (
        veil.restore("[EMAIL_2] [email_1] [PHONE_1] [EMAIL] EMAIL_1") == "[EMAIL_2] [email_1] [PHONE_1] [EMAIL] EMAIL_1"
    )


def test_signs_that_nobody_sees_hide_nothing_from_the_search() -> None:
    assert veiled("ma\u200bx@exam\U000e0041ple.org")[1] == ["[EMAIL_1]"]


def test_what_was_not_sent_is_not_restored_or_counted() -> None:
    veil, hidden = veiled("a@b.org", "c@d.org")
    veil.keep(hidden[:1])
    assert veil.restore("[EMAIL_1] [EMAIL_2]") == "a@b.org [EMAIL_2]"
    assert veil.counts() == {Kind.EMAIL: 1}


def test_there_is_one_way_to_a_provider_and_it_seals() -> None:
    domain = Path(veil_module.__file__).parent
    calling = [
        path.name for path in domain.glob("*.py") if re.search(r"provider\.(complete|stream)\(", path.read_text())
    ]
    assert calling == ["paid_calls.py"]
    assert "await asyncio.to_thread(_sealed, order)" in (domain / "paid_calls.py").read_text()


def test_the_number_of_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(veil_module, "MAX_ITEMS", 2)
    with pytest.raises(FailedPrecondition, match="TOO_MUCH_PERSONAL_DATA"):
        veiled("a@b.org c@d.org e@f.org")


def test_what_a_maker_left_is_taken_out_before_it_is_sent() -> None:
    text = "Write to max@example.org or 030 1234567."
    raw = Prompt(
        Stage.ASK, options(anonymise=(Kind.EMAIL,), focus="x@y.org"), "m", 3,
        chunk=Chunk(0, text, ((0, len(text), 1),)), question="Who is max@example.org?",
    )  # fmt: skip
    sent = sealed(raw)
    assert isinstance(sent, Prompt)
    assert sent.chunk == Chunk(0, "Write to [EMAIL] or 030 1234567.", ((0, 32, 1),))
    assert (sent.question, sent.options.focus) == ("Who is [EMAIL]?", "[EMAIL]")
    assert sealed(raw) == sent
    assert not Finder((Kind.EMAIL,)).find(sent.question)
