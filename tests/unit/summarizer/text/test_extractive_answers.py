"""The offline model answers with the documents' own sentences, or not at all."""

import pytest

from services.summarizer.domain.extractive_answers import MAX_SENTENCES, answer
from services.summarizer.domain.values import Claim, Prompt, Stage
from tests.unit.summarizer.flow.parts import options
from tests.unit.summarizer.text.papers import chunk

CONTRACT = (
    "This agreement is made between Acme and the supplier of the machines.\n"
    "The notice period of this agreement is three months to the end of a quarter.\n"
    "The supplier delivers the machines within two weeks of each order.",
    "Payment is due within thirty days of the date of the invoice.\n\nTotal amount due: 1,234.00 EUR\nInvoice no. 4711",
    "The courts of Vienna have jurisdiction over all disputes under this agreement.",
)


def asked(question: str, *pages: str, most: int = 8) -> tuple[Claim, ...]:
    return answer(Prompt(Stage.ASK, options(), "lexrank", most, chunk=chunk(*(pages or CONTRACT)), question=question))


@pytest.mark.parametrize(
    ("question", "said", "page"),
    [
        ("What is the notice period?", "three months", 1),
        ("How soon are machines delivered?", "two weeks", 1),
        ("When is the payment of invoices due?", "thirty days", 2),
        ("What is the total amount?", "1,234.00", 2),
        ("Which courts have jurisdiction?", "Vienna", 3),
    ],
)
def test_the_sentence_that_answers_comes_first_and_quotes_itself(question: str, said: str, page: int) -> None:
    first = asked(question)[0]
    assert said in first.text
    assert first.quotes[0].page == page
    assert first.quotes[0].text in " ".join(CONTRACT[page - 1].split())


@pytest.mark.parametrize(
    "question",
    [
        "What is the population of Mars?",
        "Who won the election?",
        "What does the warranty of the software cover?",
        "Quelle est la capitale de la France ?",
    ],
)
def test_what_the_documents_do_not_speak_of_is_not_answered(question: str) -> None:
    assert asked(question) == ()


def test_a_few_sentences_at_most_and_none_twice() -> None:
    pages = [f"The notice period of contract number {n} is for all of us {n} months." for n in range(9)]
    claims = asked("What is the notice period?", *pages, *pages)
    assert len(claims) == len({claim.text for claim in claims}) == MAX_SENTENCES
    assert len(asked("What is the notice period?", *pages, most=1)) == 1


def test_sentences_do_not_run_on_into_another_passage() -> None:
    claims = asked(
        "Which notice period?", "It says that the notice period of the contract ends with", "the moon of June."
    )
    assert all("moon" not in claim.text for claim in claims)


def test_a_prompt_without_pages_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="chunk"):
        answer(Prompt(Stage.ASK, options(), "lexrank", 3, question="x"))
