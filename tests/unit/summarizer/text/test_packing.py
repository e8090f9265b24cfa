"""Pages of several documents become one text, and quotes of it find their way back."""

import pytest

from services.runtime.errors import FailedPrecondition
from services.summarizer.domain.matching import Terms
from services.summarizer.domain.models import Models
from services.summarizer.domain.packing import Packed, pack
from services.summarizer.domain.ports_questions import PageAt
from services.summarizer.domain.values import Chunk, Page, Prompt, Quote, Stage
from tests.unit.summarizer.flow.asking import FIRST, SECOND
from tests.unit.summarizer.flow.parts import MODEL, ScriptedProvider, options, page

BEES = page(7, "Bees make honey from the nectar of flowers.")
DOGS = page(7, "Dogs are kind to those who are kind.")
HONEY = Terms(("honey",))
CATS = page(2, "Cats sleep all day and hunt at night.")


def packed(*pages: tuple[PageAt, Page], context_tokens: int = 2_000) -> Packed:
    model = Models({"scripted": ScriptedProvider(context_tokens=context_tokens)}, default=MODEL).resolve("")
    prompt = Prompt(Stage.ASK, options(), "writer", 8, chunk=Chunk(0, "", ()), question="honey?")
    return pack(pages, HONEY, model, prompt)


def test_passages_are_numbered_through_in_the_order_of_documents_and_pages() -> None:
    result = packed((PageAt(SECOND, 7), DOGS), (PageAt(FIRST, 7), BEES), (PageAt(FIRST, 2), CATS))
    assert result.sources == (PageAt(FIRST, 2), PageAt(FIRST, 7), PageAt(SECOND, 7))
    texts = [result.chunk.text[start:end].strip() for start, end, _ in result.chunk.spans]
    assert texts == [CATS.text, BEES.text, DOGS.text]
    assert [number for _, _, number in result.chunk.spans] == [1, 2, 3]
    assert result.chunk.spans[-1][1] == len(result.chunk.text)


def test_a_quote_is_found_in_the_passage_it_is_from_whatever_its_page_was() -> None:
    result = packed((PageAt(SECOND, 7), DOGS), (PageAt(FIRST, 7), BEES))
    for number, text in ((2, DOGS.text), (1, BEES.text)):
        for hint in (number, 3 - number, 7, 0):
            citation = result.locator.locate(Quote(text, hint))
            assert citation is not None
            assert citation.page == number


def test_the_order_in_which_pages_were_found_makes_no_difference() -> None:
    pages = [(PageAt(FIRST, 7), BEES), (PageAt(SECOND, 7), DOGS)]
    assert packed(*pages).chunk == packed(*reversed(pages)).chunk


def test_the_best_pages_that_fit_are_taken() -> None:
    long = [(PageAt(FIRST, n), page(n, f"{n} " + "word " * 59)) for n in range(1, 6)]
    result = packed(*long, context_tokens=350)
    assert result.sources == tuple(at for at, _ in long[:3])


def test_of_a_page_that_does_not_fit_the_part_that_matches_is_taken() -> None:
    text = "\n\n".join([*["Filler says nothing at all here."] * 60, BEES.text, *["More of it comes after that."] * 60])
    result = packed((PageAt(FIRST, 1), page(1, text)), context_tokens=500)
    assert BEES.text in result.chunk.text
    assert len(result.chunk.text) < len(text) / 2


def test_a_model_without_room_is_too_small() -> None:
    with pytest.raises(FailedPrecondition, match="too small"):
        packed((PageAt(FIRST, 7), BEES), context_tokens=150)


def test_nothing_is_packed_of_nothing() -> None:
    assert packed((PageAt(FIRST, 1), page(1, " \n "))).sources == ()
