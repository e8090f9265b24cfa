"""What is found in a text, and what is left."""
# ruff: noqa: RUF001  # letters that only look like others are what is tested

import pytest

from services.summarizer.domain.personal_data import Finder
from services.summarizer.domain.personal_kinds import ALL, Kind, Policy
from services.summarizer.domain.personal_names import learn


def found(text: str, *kinds: Kind) -> list[tuple[str, Kind | None]]:
    finder = Finder(kinds or ALL)
    learn(text, finder.names)
    return [(text[one.start : one.end], one.kind) for one in finder.find(text)]


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ("Write to max.mueller+x@mail.example.de.", "max.mueller+x@mail.example.de", Kind.EMAIL),
        ("mailto:müller@exämple.org, now", "müller@exämple.org", Kind.EMAIL),
        ("ｍａｘ＠example.org", "ｍａｘ＠example.org", Kind.EMAIL),
        ("call +49 (0)171 2345678 now", "+49 (0)171 2345678", Kind.PHONE),
        ("call 0049 171 2345678 now", "0049 171 2345678", Kind.PHONE),
        ("030 / 1234567", "030 / 1234567", Kind.PHONE),
        ("٠٣٠ ١٢٣٤٥٦٧", "٠٣٠ ١٢٣٤٥٦٧", Kind.PHONE),
        ("Tel.: 912 345 678", "912 345 678", Kind.PHONE),
        ("(415) 555-2671", "(415) 555-2671", Kind.PHONE),
        ("IBAN DE89 3704 0044 0532 0130 00.", "DE89 3704 0044 0532 0130 00", Kind.IBAN),
        ("gb82west12345698765432", "gb82west12345698765432", Kind.IBAN),
        ("DE89\u00a03704\u00a00044\n0532 0130 00", "DE89\u00a03704\u00a00044\n0532 0130 00", Kind.IBAN),
        ("2024 4111 1111 1111 1111 12/26", "4111 1111 1111 1111", Kind.CARD),
        ("378282246310005", "378282246310005", Kind.CARD),
        ("from 192.168.0.12, port 1", "192.168.0.12", Kind.IP_ADDRESS),
        ("[2001:db8::7]", "2001:db8::7", Kind.IP_ADDRESS),
        ("86095742719", "86095742719", Kind.NATIONAL_ID),
        ("2 55 08 14 168 025 38", "2 55 08 14 168 025 38", Kind.NATIONAL_ID),
        ("DNI 12345678Z", "12345678Z", Kind.NATIONAL_ID),
        ("NIE X1234567L", "X1234567L", Kind.NATIONAL_ID),
        ("RSSMRA85T10A562S", "RSSMRA85T10A562S", Kind.NATIONAL_ID),
        ("44051401359", "44051401359", Kind.NATIONAL_ID),
        ("85.07.30-033 28", "85.07.30-033 28", Kind.NATIONAL_ID),
        ("756.9217.0769.85", "756.9217.0769.85", Kind.NATIONAL_ID),
        ("131052-308T", "131052-308T", Kind.NATIONAL_ID),
        ("811218-9876", "811218-9876", Kind.NATIONAL_ID),
        ("529.982.247-25", "529.982.247-25", Kind.NATIONAL_ID),
        ("BSN: 111222333", "111222333", Kind.NATIONAL_ID),
        ("NHS number 943 476 5919", "943 476 5919", Kind.NATIONAL_ID),
        ("geboren am 4. März 1980 in Kiel", "4. März 1980", Kind.BIRTH_DATE),
        ("Date of birth: 1980-03-04", "1980-03-04", Kind.BIRTH_DATE),
        ("née le 04/03/1980", "04/03/1980", Kind.BIRTH_DATE),
        ("Dear Mr. J. R. O'Neill, thank you", "J. R. O'Neill", Kind.PERSON),
        ("Herrn Dr. med. Max von der Müller-Lüden sagte", "Max von der Müller-Lüden", Kind.PERSON),
        ("Last name: Schmidt", "Schmidt", Kind.PERSON),
        ("Vorname:\nAnna-Lena\nOrt: Kiel", "Anna-Lena", Kind.PERSON),
    ],
)
def test_what_is_announced_or_checks_is_found(text: str, value: str, kind: Kind) -> None:
    assert found(text) == [(value, kind)]


@pytest.mark.parametrize(
    "text",
    [
        "DE89 3704 0044 0532 0130 01",  # wrong check digits
        "4111 1111 1111 1112",
        "12345678A",
        "86095742718",
        "Total 1,234,567.89 EUR in 2024 and 03.04.2024, 12:30:45, std::vector, § 1.2.3",
        "order 1234567890, item 00-11",
        "999.1.1.1",
        "a @ b, user@localhost",
        "File name: Report, company name: Acme",
        "She is a Dr. He said so.",
        "Signed on 4 March 2024 by Max Müller",  # a free name is not found
        "Herr [PERSON_1] and Name: [PERSON_2], Tel: [PHONE_1], geb. [DATE_1] 04.03.2024",
    ],
)
def test_what_does_not_is_left(text: str) -> None:
    assert found(text) == []


def test_a_name_that_was_announced_once_is_found_wherever_it_stands() -> None:
    text = "MÜLLER owes. Müllers house. Herr Max Müller agreed; later Max signed, and Müllerin did not. Paul did."
    assert [value for value, _ in found(text)] == ["MÜLLER", "Müller", "Max Müller", "Max"]


def test_only_the_kinds_that_are_asked_for_are_found() -> None:
    assert found("a@b.org 192.168.0.1", Kind.IP_ADDRESS) == [("192.168.0.1", Kind.IP_ADDRESS)]


def test_what_overlaps_is_one_and_nothing_of_it_is_left() -> None:
    assert found("a@b.org@c.org") == [("a@b.org@c.org", Kind.EMAIL)]


@pytest.mark.parametrize(
    "unit",
    ["@", "a@", "@a-a.", "1", "0 1 ", "1.", "1:", "Herr ", "Herr A", "born 1 ", "+1", "[", "\n", "030 1234567 ",
     "DE89 ", "Name: ", "4111 ", "a-", "tel ", "A ", "+49 ", "(0", "0123456789abcdef:", "Mr. A. "],
)  # fmt: skip
def test_hostile_text_takes_no_longer_than_other_text(unit: str) -> None:
    """What grew faster than the text would run into the test's time-out."""
    text = unit * (60_000 // len(unit)) + "x"
    finder = Finder(ALL)
    learn(text, finder.names)
    finder.find(text)


def test_who_decides_what_is_replaced() -> None:
    policy = Policy(default=(Kind.EMAIL,), always=(Kind.IBAN,))
    assert policy.kinds(None) == (Kind.EMAIL, Kind.IBAN)
    assert policy.kinds(()) == (Kind.IBAN,)
    assert policy.kinds((Kind.PERSON,)) == (Kind.IBAN, Kind.PERSON)
    assert Policy().settled(None) is None
    assert Policy().settled(()) == ()
