"""What counts as running text, where its sentences end, and on which pages they stand."""

import pytest

from services.summarizer.domain.language import possible_languages, speaks
from services.summarizer.domain.layout import Section, lines, paragraphs
from services.summarizer.domain.sentences import prose, split
from services.summarizer.domain.values import Quote
from tests.unit.summarizer.text.papers import chunk

BODY = """\
The garden had been left alone for so many years that nobody remembered who had planted it, and the
paths were hidden under leaves. Every spring the old trees came into flower as if someone was still
looking after them. The children of the village were told not to go there, which of course they did."""


TREES = ("apple", "beech", "cedar", "elm", "fir", "lime", "oak")


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split(text)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One ends. Two begins! Three? Yes.", ["One ends.", "Two begins!", "Three?", "Yes."]),
        ("Shown by Gal et al. (2009) in Fig. 3 and Eq. 4.", ["Shown by Gal et al. (2009) in Fig. 3 and Eq. 4."]),
        ("Mr. A. B. Smith came. He left.", ["Mr. A. B. Smith came.", "He left."]),
        ("Es gilt z. B. Folgendes. Der 3. Satz folgt.", ["Es gilt z. B. Folgendes.", "Der 3. Satz folgt."]),
        ("It costs 1.5 million. Then 2.", ["It costs 1.5 million.", "Then 2."]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("これは文です。次の文です。", ["これは文です。", "次の文です。"]),
        ("¿Es verdad? ¡Claro! Élena vino.", ["¿Es verdad?", "¡Claro!", "Élena vino."]),
        ("no end at all", ["no end at all"]),
        ("", []),
    ],
)
def test_sentences_end_where_they_end(text: str, wanted: list[str]) -> None:
    assert sentences(text) == wanted


def test_headers_footers_and_page_numbers_are_left_out() -> None:
    bodies = ["\n".join(f"Line {line} of this page tells of the {word} tree." for line in range(9)) for word in TREES]
    pages = [f"Journal of Gardens, vol. {n}\n{body}\nSome Publisher\n{n}" for n, body in enumerate(bodies, start=1)]
    kept = " ".join(text for text, _ in lines(chunk(*pages)))
    assert "Journal" not in kept
    assert "Publisher" not in kept
    assert kept == " ".join("\n".join(bodies).splitlines())


def test_a_line_that_looks_like_a_page_number_stays_in_the_middle_of_a_page() -> None:
    ending = "The tree that the children of the village were told of is shown on the picture that is printed on"
    found = list(paragraphs(chunk(f"7\n{BODY}\n\n{ending}\nSeite 6.\n\n{BODY}\nPage 8")))[1]
    assert found.text == f"{ending} Seite 6."
    kept = [text for text, _ in lines(chunk(f"7\n{BODY}\nSeite 6.\n{BODY}\nPage 8"))]
    assert kept == [*BODY.splitlines(), "Seite 6.", *BODY.splitlines()]


@pytest.mark.parametrize(
    "heading",
    ["More Words and what they Mean", "Definition 80", "Lösung zu Aufgabe 7", "4.1 Of Trees"],
)
@pytest.mark.parametrize("before", ["", "o. B. d. A. ohne Beschränkung der Allgemeinheit\nz. z. zu zeigen\n"])
def test_a_heading_is_no_part_of_the_sentence_after_it(heading: str, before: str) -> None:
    assert [s.text for s in prose(chunk(f"{before}{heading}\n{BODY}"))] == [s.text for s in prose(chunk(BODY))]


def test_a_short_line_within_a_sentence_stays_in_it() -> None:
    text = (
        "The garden had been left alone for so many years that nobody remembered who had planted it, and\n"
        "the family\n"
        "Montgomery was not asked about it by anybody in the village, because they had moved long before."
    )
    (found,) = prose(chunk(text))
    assert found.text == text.replace("\n", " ")


@pytest.mark.parametrize(
    "line",
    [
        "." * 1_000_000,
        "?!" * 500_000,
        "x" + "." * 1_000_000 + "x",
        ".)" * 500_000,
        "." + ")" * 1_000_000,
        ". " + "(" * 1_000_000,
        ". (" * 330_000,
        "." + " " * 1_000_000 + "y",
        "\u3002" * 1_000_000,
    ],
    ids=["dots", "marks", "dots between", "closed", "closing", "opening", "opened", "spaces", "full stops"],
)
def test_sentences_of_a_line_of_a_megabyte_are_found_in_one_go(line: str) -> None:
    """What is quadratic does not end within the time-out of a test."""
    ends = [end for _, end in split(line)]
    assert ends == sorted(ends)
    assert ends[-1] >= len(line.rstrip()) - 1
    assert sum(1 for _ in lines(chunk(line))) == 1
    prose(chunk(line))


def test_a_sentence_over_a_page_break_quotes_both_pages() -> None:
    first = BODY + " In winter, when the walls could be seen from the road again and the snow lay"
    second = "on the roof of the house, people said that there was a light in one of the windows.\n" + BODY
    found = [s for s in prose(chunk(first, second)) if s.text.startswith("In winter")]
    assert [s.quotes for s in found] == [
        (
            Quote("In winter, when the walls could be seen from the road again and the snow lay", 1),
            Quote("on the roof of the house, people said that there was a light in one of the windows.", 2),
        )
    ]


def test_words_that_were_hyphenated_are_joined_and_compounds_stay() -> None:
    text = (
        "A well-known gardener had cut the branches of the old trees with great pati-\n"
        "ence, and the well-\nknown gardener was proud of what he had done with them."
    )
    (found,) = prose(chunk(text))
    assert "great patience, and the well-known gardener was" in found.text


@pytest.mark.parametrize(
    "junk",
    [
        "Jane Doe1, John Smith2, Maria Garcia3, and Wei Zhang1 Department of Gardens, University of Somewhere.",
        "Correspondence should be addressed to the first author at jane@example.org in the usual way.",
        "[12] J. Doe, K. Smith, and A. Jones. On the growth of trees. Journal of Trees, vol. 7, pp. 1-9, 2001.",
        "f(x1, x2) = 3x1 + 4x2 - 7, g(y) = 2y + 1, h(z) = z2 - 4, where 0 < x < 10 and 20 < y < 30 and z = 8.",
        "12 34 56 78 90 11 12 13 14 15 16 17 18 19 20 21 22 23.",
        "Introduction . . . . . . . . . . . . . . . . . . . . . . . . 4 Methods . . . . . . . . . . 7.",
        "func main() { return the value of the first of all the fields in the struct; }.",
        "and so it goes on without a beginning of its own, which is a part of what was said before.",
        "A line that does not end because the rest of it is missing and was never there at all",
        "Figure 7: The garden as it was seen from the road in the winter of the year before.",
    ],
)
def test_junk_is_no_prose(junk: str) -> None:
    kept = [s.text for s in prose(chunk(f"{BODY}\n\n{junk}\n\n{BODY}"))]
    assert all("garden had been" in t or "old trees came" in t or "children of" in t for t in kept), kept
    assert len(kept) == 6


def test_references_are_left_out_but_their_entry_in_the_contents_hides_nothing() -> None:
    contents = "Contents\n1 Trees\n2 References\n\nOf Trees\n\n"
    references = "\n\nReferences\n" + "\n".join(
        f"[{n}] Doe, J.: The things that a tree is told by those who sit under it. Garden Press ({1990 + n})."
        for n in range(12)
    )
    found = list(paragraphs(chunk(contents + "\n\n".join([BODY] * 12) + references)))
    assert [p.section for p in found] == [Section.BODY] * 12
    assert found[0].text.startswith("The garden had been left")


def test_abstract_and_conclusion_are_known_in_any_form() -> None:
    for heading in ("Abstract\n", "ABSTRACT\n\n", "Abstract—", "Zusammenfassung\n", "Abstract. "):
        found = prose(chunk(f"A Title\n\n{heading}{BODY}\n\n1. Introduction\n\n{BODY}\n\nV. CONCLUSIONS\n{BODY}"))
        sections = [s.section for s in found]
        assert sections == [Section.ABSTRACT] * 3 + [Section.BODY] * 3 + [Section.CONCLUSION] * 3, heading


def test_an_abstract_without_an_end_does_not_swallow_the_document() -> None:
    found = prose(chunk("Abstract\n" + "\n\n".join([BODY] * 40)))
    assert sum(s.section is Section.ABSTRACT for s in found) < 60
    assert found[-1].section is Section.BODY


TEXTS = {
    "en": BODY,
    "de": "Der Garten war so viele Jahre sich selbst überlassen, dass niemand mehr wusste, wer ihn angelegt hatte, und "
    "die Wege waren unter dem Laub nicht mehr zu sehen.",
    "fr": "Le jardin était laissé à lui-même depuis tant d'années que personne ne savait plus qui l'avait planté, et "
    "les chemins étaient cachés sous les feuilles dans la cour.",
    "es": "El jardín llevaba tantos años abandonado que nadie recordaba quién lo había plantado, y los caminos estaban "
    "ocultos bajo las hojas que caían de los árboles.",
    "it": "Il giardino era abbandonato da così tanti anni che nessuno ricordava chi lo avesse piantato, e i sentieri "
    "erano nascosti sotto le foglie che cadevano dagli alberi.",
    "pt": "O jardim estava abandonado há tantos anos que ninguém se lembrava de quem o tinha plantado, e os caminhos "
    "estavam escondidos sob as folhas que caíam das árvores.",
    "nl": "De tuin was al zo veel jaren aan zichzelf overgelaten dat niemand meer wist wie hem had aangelegd, en de "
    "paden waren onder de bladeren niet meer te zien.",
    "ja": "庭は長い年月の間放置されていたので、誰が植えたのか誰も覚えていなかった。",
    "zh": "花园多年无人照管、没有人记得是谁种下的。小路都被落叶覆盖了。",
    "ru": "Сад был заброшен так много лет, что никто не помнил, кто его посадил.",  # noqa: RUF001 - it is Russian
}


@pytest.mark.parametrize("language", sorted(TEXTS))
def test_languages_are_told_apart(language: str) -> None:
    text = TEXTS[language]
    assert language in possible_languages(text)
    assert speaks(text, language)
    for other in TEXTS:
        if other != language and {language, other} != {"ja", "zh"}:
            assert not speaks(text, other), other


def test_what_cannot_be_told_is_not_refused() -> None:
    for text in ("", "Potato", "1 2 3", "Lorem ipsum dolor sit amet"):
        assert possible_languages(text) == frozenset()
        assert speaks(text, "de")
    assert speaks(TEXTS["pt"], "pt-BR")
    assert speaks(TEXTS["de"], "deu")
