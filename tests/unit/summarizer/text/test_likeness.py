"""Two texts share an answer where they are nearly the same, in all that counts the same, and it fits both."""

import random

import pytest

from services.summarizer.domain.likeness import LEAST_ALIKE, LEAST_WORDS, Text, likeness, moved
from services.summarizer.domain.values import Answer, Chunk, Claim, Quote, TokenCount

QUESTION = b"question"


def words(seed: int, count: int = 400) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choice("abdefgiklmoprstu") for _ in range(chance.randrange(4, 9))) for _ in range(count)]


PROSE = words(1)
AMOUNT = ["The", "tenant", "Alice", "pays", "1,250.00", "euros", "a", "month", "to", "Bob."]
CONTRACT = [*PROSE[:200], *AMOUNT, *PROSE[200:]]
QUOTE = Quote(" ".join(AMOUNT), 7)
ANSWER = Answer((Claim("Alice pays 1,250.00 euros to Bob.", (QUOTE,)),), TokenCount(500, 20))


def text(of: list[str]) -> Text:
    joined = " ".join(of)
    return Text(Chunk(0, joined, ((0, len(joined), 1),)))


def serves(bought: list[str], asked: list[str], answer: Answer = ANSWER) -> bool:
    """As it is decided: a band in common, much alike, and nothing said that does not stand there."""
    earlier, now = text(bought), text(asked)
    one, other = earlier.draw(QUESTION), now.draw(QUESTION)
    assert one is not None
    assert other is not None
    if not set(one.bands) & set(other.bands) or likeness(one.sketch, other.sketch) < LEAST_ALIKE:
        return False
    return now.may_say(answer, earlier.marks(answer))


def swapped(of: list[str], at: str, by: str) -> list[str]:
    assert at in of
    return [by if word == at else word for word in of]


def test_the_same_words_set_otherwise_are_the_same() -> None:
    again = [word.replace("fi", "\ufb01").replace("Bob.", "\u201cBob\u201d.") for word in CONTRACT]
    again[3:4] = [PROSE[3][:3] + "-\n", PROSE[3][3:]]
    assert serves(CONTRACT, again)


def test_words_beside_what_is_said_may_differ() -> None:
    again = list(CONTRACT)
    again[20], again[300] = "misread", "otherwise"
    assert serves(CONTRACT, again)
    assert serves(CONTRACT, [*CONTRACT[:150], "inserted", *CONTRACT[150:]])


@pytest.mark.parametrize(
    "asked",
    [
        swapped(CONTRACT, "1,250.00", "1,251.00"),
        swapped(CONTRACT, "1,250.00", "1.250,00"),
        [*CONTRACT, "12"],
        [*CONTRACT[:40], "\u20ac", *CONTRACT[40:]],
        [*CONTRACT[:40], "not", *CONTRACT[40:]],
        [*CONTRACT[:40], "kein", *CONTRACT[40:]],
    ],
    ids=["amount", "separators", "one more number", "a sign", "a negation", "a German one"],
)
def test_another_number_sign_or_negation_anywhere_makes_another_text(asked: list[str]) -> None:
    assert not set(text(CONTRACT).draw(QUESTION).bands) & set(text(asked).draw(QUESTION).bands)  # type: ignore[union-attr]


def test_numbers_in_another_order_make_another_text() -> None:
    one, other = [*CONTRACT, "1", "2"], [*CONTRACT, "2", "1"]
    assert not serves(one, other)


@pytest.mark.parametrize(("was", "is_now"), [("Alice", "Carol"), ("tenant", "landlord"), ("month", "year")])
def test_what_the_answer_says_or_quotes_must_stand_there(was: str, is_now: str) -> None:
    assert not serves(CONTRACT, swapped(CONTRACT, was, is_now))


def test_a_name_that_is_said_and_not_quoted_must_stand_there_too() -> None:
    answer = Answer(
        (Claim(f"Alice mentions {PROSE[5]}.", (Quote("pays 1,250.00 euros a month", 7),)),), TokenCount(1, 1)
    )
    assert serves(CONTRACT, CONTRACT, answer)
    assert not serves(CONTRACT, swapped(CONTRACT, PROSE[5], "elsewhere"), answer)


def test_who_does_it_to_whom_is_not_exchanged() -> None:
    other = [{"Alice": "Bob.", "Bob.": "Alice"}.get(word, word) for word in CONTRACT]
    assert not serves(CONTRACT, other)


def test_what_stood_in_neither_is_no_reason_against_it() -> None:
    """Words of the model's own, in another language perhaps, and a quote that it made up."""
    answer = Answer((Claim("Monatliche Miete: 1,250.00.", (QUOTE, Quote("made up by a model", 1))),), TokenCount(1, 1))
    assert serves(CONTRACT, CONTRACT, answer)


def test_a_quote_with_words_left_out_is_found_in_its_order() -> None:
    def quoting(quote: str) -> Answer:
        return Answer((Claim("Rent.", (Quote(quote, 7),)),), TokenCount(1, 1))

    assert text(CONTRACT).marks(quoting("The tenant \u2026 a month to Bob")).stood == b"\1"
    assert text(CONTRACT).marks(quoting("a month to Bob \u2026 The tenant")).stood == b"\0"


def test_another_question_is_another_text() -> None:
    one, other = text(CONTRACT).draw(b"short"), text(CONTRACT).draw(b"long")
    assert one is not None
    assert other is not None
    assert not set(one.bands) & set(other.bands)


def test_a_short_text_is_like_none() -> None:
    assert text(words(2, LEAST_WORDS - 1)).draw(QUESTION) is None
    assert text(words(2, LEAST_WORDS)).draw(QUESTION) is not None


def test_likeness_tells_the_share_of_what_both_have() -> None:
    one, other = text(words(1)).draw(QUESTION), text(words(2)).draw(QUESTION)
    half = text([*words(1)[:200], *words(3)[:200]]).draw(QUESTION)
    assert one is not None
    assert other is not None
    assert half is not None
    assert likeness(one.sketch, one.sketch) == 1.0
    assert likeness(one.sketch, other.sketch) < 0.1
    assert 0.15 < likeness(one.sketch, half.sketch) < 0.55


def test_what_is_said_again_and_again_makes_another_text_too() -> None:
    assert not serves(CONTRACT, [*CONTRACT, *["and", "so", "on"] * 25])


def test_pages_move_along() -> None:
    answer = moved(ANSWER, 3)
    assert answer.claims[0].quotes[0].page == 10
    assert moved(ANSWER, -9).claims[0].quotes[0].page == 0
    assert moved(Answer((Claim("a", (Quote("b", 0),)),), TokenCount(1, 1)), 5).claims[0].quotes[0].page == 0


def test_broken_characters_are_drawn_like_others() -> None:
    assert text(["\ud800broken"] * 5 + words(4)).draw(QUESTION) is not None
