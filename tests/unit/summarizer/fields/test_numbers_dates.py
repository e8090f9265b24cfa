"""How numbers and dates are read: the rules of docs/fields.md."""

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.summarizer.domain.numbers_dates import Customs, customs_of, date_of, dates_in, number_of, numbers_in

NOTHING = Customs()
GERMAN, ENGLISH = Customs(","), Customs(".")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"), ("12", "12"), ("1234.5", "1234.5"), ("1234,5", "1234.5"), ("1.234,56", "1234.56"),
        ("1,234.56", "1234.56"), ("1.234.567", "1234567"), ("1,234,567.8", "1234567.8"), ("1 234 567,80", "1234567.8"),
        ("1\u202f234,5", "1234.5"), ("1'234.50", "1234.5"), ("1\u2019234", "1234"), ("€ 12,50", "12.5"),
        ("12,50 €", "12.5"), ("EUR 12.50", "12.5"), ("$1,234.00", "1234"), ("-5", "-5"), ("\u22125", "-5"),
        ("5-", "-5"), ("EUR -5", "-5"), ("Total - 5", "5"),
        ("(5.00)", "-5"), ("($ 5.00)", "-5"), ("-€ 5", "-5"), ("€ -5", "-5"), ("19 %", "19"), ("30 days", "30"),
        ("0,125", "0.125"), ("0.125", "0.125"), ("1234,567", "1234.567"), ("\uff11\uff12", "12"), ("№ 7", "7"),
        ("Total: 7", "7"),
    ],
)  # fmt: skip
def test_a_number(text: str, value: str) -> None:
    assert number_of(text, NOTHING) == Decimal(value)


@pytest.mark.parametrize(
    "text",
    ["", "none", "1 or 2", "1.2 million", "5k", "3 Mio", "A4", "RE-5", "12.34.5", "1,23,456.7", "1.234,567.8",
     "1.2.3,4",     "3 Mrd.",
     "9" * 41, "1" + "x" * 300, "12 30"],
)  # fmt: skip
def test_no_number_that_can_be_read_in_one_way(text: str) -> None:
    assert number_of(text, NOTHING) is None


def test_a_mark_before_three_digits_is_what_the_document_uses_elsewhere() -> None:
    assert number_of("1.234", NOTHING) == Decimal("1.234")
    assert number_of("1,234", NOTHING) == 1234
    assert number_of("1.234", GERMAN) == 1234
    assert number_of("1,234", GERMAN) == Decimal("1.234")
    assert number_of("1,234", ENGLISH) == 1234
    assert number_of("12,50", ENGLISH) == Decimal("12.5"), "two decimals cannot be thousands"


@pytest.mark.parametrize(
    ("texts", "customs"),
    [
        (["Summe 1.249,50 EUR", "19,00"], Customs(",")),
        (["total 1,249.50", "and 3.00"], Customs(".")),
        (["12,50 and 12.50"], Customs("")),
        (["1.234"], Customs("")),
        (["13/03/2026 and 01/02/2026"], Customs("", day_first=True)),
        (["03/13/2026"], Customs("", day_first=False)),
        (["03/13/2026 13/03/2026"], Customs("")),
        (["13.03.2026"], Customs("")),
    ],
)
def test_what_a_document_tells_of_its_customs(texts: list[str], customs: Customs) -> None:
    assert customs_of(texts) == customs


@pytest.mark.parametrize(
    "text",
    ["2026-03-04", "2026/3/4", "2026.03.04", "4.3.2026", "04.03.26", "4 March 2026", "4th of March 2026",
     "March 4, 2026",
     "Mar. 4th 2026", "4. März 2026", "4 mars 2026", "4 de marzo de 2026", "4 marzo 2026", "4 maart 2026",
     "4 de março de 2026",
     "Wednesday, 4 March 2026", "04-Mar-2026", "2026年3月4日", "2026-03-04T10:00:00Z", "Datum: 4.3.2026"],
)  # fmt: skip
def test_a_date(text: str) -> None:
    assert date_of(text, NOTHING) == "2026-03-04"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "03/04/2026",
        "30.02.2026",
        "32.01.2026",
        "4.3.2026 to 5.3.2026",
        "1.2.3.4",
        "4 Foo 2026",
        "4 jui 2026",
    ],
)
def test_no_date_that_can_be_read_in_one_way(text: str) -> None:
    assert date_of(text, NOTHING) is None


def test_a_date_with_slashes_is_read_as_the_document_writes_them() -> None:
    assert date_of("03/04/2026", Customs(day_first=True)) == "2026-04-03"
    assert date_of("03/04/2026", Customs(day_first=False)) == "2026-03-04"
    assert date_of("13/04/2026", Customs(day_first=False)) == "2026-04-13"
    assert date_of("05/05/2026", NOTHING) == "2026-05-05"
    assert date_of("1.1.70", NOTHING) == "1970-01-01"
    assert date_of("1.1.69", NOTHING) == "2069-01-01"


@given(st.decimals(min_value=0, max_value=10**12, places=2))
def test_every_amount_is_read_back_in_each_of_its_forms(amount: Decimal) -> None:
    english = f"{amount:,.2f}"
    german = english.translate(str.maketrans(",.", ".,"))
    french = german.replace(".", "\u202f")
    for text in (english, german, french, f"{amount:.2f}", f"CHF {english.replace(',', chr(0x2019))}"):
        assert number_of(text, NOTHING) == amount


@given(st.dates(min_value=date(1970, 1, 1), max_value=date(2069, 12, 31)))
def test_every_date_is_read_back(day: date) -> None:
    for text in (f"{day:%d.%m.%Y}", f"{day:%d.%m.%y}", f"{day:%-d %B %Y}", f"{day:%B %-d, %Y}", day.isoformat()):
        assert date_of(text, NOTHING) == day.isoformat()


@given(st.text(max_size=300))
def test_any_text_can_be_looked_at(text: str) -> None:
    customs = customs_of([text])
    number_of(text, customs)
    date_of(text, customs)
    list(numbers_in(text, customs))
    list(dates_in(text, customs))
