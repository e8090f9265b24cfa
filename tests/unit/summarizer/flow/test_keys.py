"""Whatever may change an answer changes its key, and nothing else does."""

from dataclasses import replace

import pytest

from services.summarizer.domain.keys import content_key, summary_key
from services.summarizer.domain.personal_kinds import Kind
from services.summarizer.domain.values import Chunk, Claim, Length, Options, Prompt, Quote, Stage, Style
from tests.unit.summarizer.flow.parts import DOCUMENT, MODEL, options

CHUNK = Chunk(0, "Some words.", ((0, 11, 1),))
MAP = Prompt(Stage.MAP, options(), "writer", 3, chunk=CHUNK)
REDUCE = Prompt(Stage.REDUCE, options(), "writer", 3, claims=(Claim("Bees fly.", (Quote("fly", 1),)),))


def answer(prompt: Prompt, *, model: str = MODEL, version: str = "1") -> bytes:
    return content_key(prompt, model=model, provider_version=version)


ASK = replace(MAP, stage=Stage.ASK, question="Do bees fly?")
OTHER_PROMPTS = [
    ASK,
    replace(ASK, question="Do cats fly?"),
    replace(ASK, options=options(language="de")),
    replace(ASK, chunk=replace(CHUNK, text="Other words")),
    replace(MAP, max_sentences=4),
    replace(MAP, options=options(length=Length.LONG)),
    replace(MAP, options=options(style=Style.BULLETS)),
    replace(MAP, options=options(language="de")),
    replace(MAP, options=options(focus="bees")),
    replace(MAP, options=options(audience="bees")),
    replace(MAP, chunk=replace(CHUNK, text="Other words")),
    replace(MAP, chunk=replace(CHUNK, spans=((0, 11, 2),))),
    REDUCE,
    replace(REDUCE, claims=(Claim("Bees fly.", (Quote("fly", 2),)),)),
    replace(REDUCE, claims=(Claim("Bees fly.", ()), Claim("fly", ()))),
]


def test_what_changes_an_answer_changes_its_key() -> None:
    keys = [answer(MAP), answer(MAP, model="other/model"), answer(MAP, version="2")]
    keys += [answer(prompt) for prompt in OTHER_PROMPTS]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}


def test_the_same_question_has_the_same_key_wherever_it_stands() -> None:
    assert answer(MAP) == answer(replace(MAP, chunk=replace(CHUNK, index=7)))


def test_text_of_broken_documents_has_a_key() -> None:
    assert len(answer(replace(MAP, chunk=replace(CHUNK, text="\x00\ud800")))) == 32


@pytest.mark.parametrize(
    "changed",
    [
        options(length=Length.LONG),
        options(style=Style.BULLETS),
        options(language="de"),
        options(focus="bees"),
        options(audience="bees"),
        options(model="other/model"),
    ],
    ids=str,
)
def test_other_options_are_another_summary(changed: Options) -> None:
    first = summary_key("acme", DOCUMENT, options(), provider_version="1")
    assert summary_key("acme", DOCUMENT, changed, provider_version="1") != first


def test_tenant_document_and_version_are_part_of_a_summarys_key() -> None:
    keys = {
        summary_key(tenant, document, options(), provider_version=version)
        for tenant in ("acme", "globex")
        for document in (DOCUMENT, DOCUMENT[:-1] + "1")
        for version in ("1", "2")
    }
    assert len(keys) == 8


def test_borders_between_fields_cannot_be_moved() -> None:
    one = summary_key("acme", DOCUMENT, options(language="de", focus=""), provider_version="1")
    two = summary_key("acme", DOCUMENT, options(language="", focus="de"), provider_version="1")
    assert one != two


def test_what_is_replaced_is_part_of_each_key() -> None:
    plain, other = options(), options(anonymise=(Kind.EMAIL,))
    assert summary_key("t", "d", plain, provider_version="1") == summary_key(
        "t", "d", options(anonymise=()), provider_version="1"
    )
    assert summary_key("t", "d", plain, provider_version="1") != summary_key("t", "d", other, provider_version="1")
