"""Values in the schema's form, what supports them, and one answer out of several parts."""

from collections.abc import Sequence
from typing import Any

import pytest

from services.summarizer.domain.citations import Locator
from services.summarizer.domain.field_merge import MAX_ITEMS, Context, json_of, merge, path_of, replaced
from services.summarizer.domain.field_normal import normalise, occurs
from services.summarizer.domain.fields_values import FieldValue, Target
from services.summarizer.domain.found_field import FoundField, Scalar
from services.summarizer.domain.json_schema import check
from services.summarizer.domain.numbers_dates import Customs
from tests.unit.summarizer.flow.parts import page

PAGES = (
    page(1, "Invoice number RE-17 of 3 March 2024\nHoney 2 7,50\nWax 1 3,00\nTotal due 10,50 EUR"),
    page(2, "Invoice number RE-18 is the old one\nHoney 2 7,50\nTags red green"),
)
SCHEMA = {
    "type": "object",
    "properties": {
        "number": {"type": "string"},
        "day": {"type": "string", "format": "date"},
        "total": {"type": "number"},
        "paid": {"type": "boolean"},
        "lines": {
            "type": "array",
            "items": {"type": "object", "properties": {"what": {"type": "string"}, "price": {"type": "number"}}},
        },
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}


@pytest.fixture(scope="module")
def context() -> Context:
    return Context({t.template: t for t in check(SCHEMA).targets}, Locator(PAGES), Customs(","))


def answer(context: Context, *parts: Sequence[tuple[str, Scalar, str, int]]) -> tuple[FieldValue, ...]:
    return merge([context.read([FoundField(*field) for field in part]) for part in parts])


NUMBER = ("/number", "RE-17", "Invoice number RE-17 of 3 March 2024", 1)


class TestConfidence:
    @pytest.mark.parametrize(
        ("field", "confidence"),
        [
            (NUMBER, 1.0),
            (("/number", "RE-17", "invoice  NUMBER re-17 of 3 march 2024", 1), 1.0),
            (("/number", "RE-17", "Invoice number RE-17 of 3 March 2024", 2), 0.9),
            (("/number", "RE-99", "Invoice number RE-17 of 3 March 2024", 1), 0.7),
            (("/number", "RE-17", "Invoice numbers RE-17 of 3 March 2024", 1), 0.85),
            (("/number", "RE-17", "Nothing of the kind stands on any page", 1), 0.1),
            (("/number", "RE-17", "", 1), 0.1),
            (("/total", "10.5", "Total due 10,50 EUR", 1), 1.0),
            (("/day", "2024-03-03", "Invoice number RE-17 of 3 March 2024", 1), 1.0),
            (("/paid", True, "Total due 10,50 EUR", 1), 0.7),
        ],
    )
    def test_it_is_the_sum_of_what_was_checked(
        self, context: Context, field: tuple[str, Scalar, str, int], confidence: float
    ) -> None:
        (found,) = answer(context, [field])
        assert found.confidence == confidence
        assert found.grounded == (confidence > 0.1)

    def test_what_is_disputed_is_less_sure_and_tells_the_other_value(self, context: Context) -> None:
        (found,) = answer(context, [NUMBER], [("/number", "RE-18", "Invoice number RE-18 is the old one", 2)])
        assert (found.value, found.confidence) == ("RE-17", 0.9)
        assert [(other.value, other.citation.page) for other in found.others] == [("RE-18", 2)]

    def test_the_best_supported_value_is_taken_wherever_it_stands(self, context: Context) -> None:
        (found,) = answer(context, [("/number", "RE-99", "nowhere to be found in here", 1)], [NUMBER])
        assert (found.value, found.others, found.confidence) == ("RE-17", (), 1.0)

    def test_what_is_said_more_often_wins_among_equals(self, context: Context) -> None:
        other = ("/number", "RE-18", "Invoice number RE-18 is the old one", 2)
        (found,) = answer(context, [NUMBER], [other], [other])
        assert found.value == "RE-18"


class TestLists:
    def test_they_are_joined_in_the_order_of_the_parts(self, context: Context) -> None:
        fields = answer(
            context,
            [("/lines/7/what", "Honey", "Honey 2 7,50", 1), ("/lines/7/price", "7,50", "Honey 2 7,50", 1),
             ("/lines/9/what", "Wax", "Wax 1 3,00", 1)],
            [("/lines/0/what", "Honey", "Honey 2 7,50", 2)],
        )  # fmt: skip
        lines = [{"price": 7.5, "what": "Honey"}, {"what": "Wax"}, {"what": "Honey"}]
        assert json_of(fields) == {"lines": lines}
        assert [field.path for field in fields][:2] == [("lines", 0, "price"), ("lines", 0, "what")]

    def test_the_same_row_at_the_same_place_is_one_and_at_another_place_is_another(self, context: Context) -> None:
        row = ("/lines/0/what", "Honey", "Honey 2 7,50", 1)
        twice = answer(context, [row, ("/lines/1/what", "Honey", "Honey 2 7,50", 1)], [row])
        assert json_of(twice) == {"lines": [{"what": "Honey"}]}
        both = answer(context, [row], [("/lines/0/what", "Honey", "Honey 2 7,50", 2)])
        assert json_of(both) == {"lines": [{"what": "Honey"}, {"what": "Honey"}]}

    def test_a_text_stands_in_a_list_once(self, context: Context) -> None:
        tags = [(f"/tags/{n}", tag, "Tags red green", 2) for n, tag in enumerate(["red", "green", "Red"])]
        assert json_of(answer(context, tags, tags)) == {"tags": ["red", "green"]}

    def test_they_are_bounded(self, context: Context) -> None:
        many = [(f"/tags/{n}", f"tag {n}", "", 0) for n in range(MAX_ITEMS + 5)]
        tags = json_of(answer(context, many))["tags"]
        assert isinstance(tags, list)
        assert len(tags) == MAX_ITEMS


@pytest.mark.parametrize(
    "pointer",
    ["", "/", "number", "/nobody", "/number/0", "/lines", "/lines/x/what", "/lines/-1/what", "/lines/0", "/tags/0/1",
     "/lines/1234567/what", "/tags/\u0663"],
)  # fmt: skip
def test_what_the_schema_has_no_place_for_is_left_out(context: Context, pointer: str) -> None:
    assert path_of(pointer, context.targets) is None
    assert context.read([FoundField(pointer, "x", "", 0)]) == []


def test_a_name_of_digits_is_a_name() -> None:
    targets = {t.template: t for t in check({"type": "object", "properties": {"0": {}, "a/b": {}}}).targets}
    assert path_of("/0", targets) == ("0",)
    assert path_of("/a~1b", targets) == ("a/b",)


def test_a_correction_takes_the_place_and_brings_no_new_items(context: Context) -> None:
    fields = answer(context, [NUMBER, ("/lines/0/what", "Honey", "Honey 2 7,50", 1)])
    others = [
        FieldValue(("number",), "RE-1", None, 0.1),
        FieldValue(("total",), 5, None, 0.1),
        FieldValue(("lines", 0, "price"), 7, None, 0.1),
        FieldValue(("lines", 1, "price"), 8, None, 0.1),
    ]
    assert json_of(replaced(fields, others)) == {
        "number": "RE-1",
        "total": 5,
        "lines": [{"what": "Honey", "price": 7}],
    }


def target(*kinds: str, name: str = "field", **more: Any) -> Target:
    return Target((name,), frozenset(kinds), **more)


@pytest.mark.parametrize(
    ("value", "wanted", "normal"),
    [
        ("  two\n words ", target("string"), "two words"),
        ("1.234,50 €", target("number"), 1234.5),
        ("7", target("integer"), 7),
        ("7.0", target("integer"), 7),
        (7.0, target("integer"), 7),
        ("7.5", target("integer"), 7.5),
        ("seven", target("integer"), "seven"),
        (17, target("string"), "17"),
        (0.00001, target("string"), "0.00001"),
        (True, target("string"), "true"),
        (True, target("boolean"), True),
        ("Ja", target("boolean"), True),
        ("☐", target("boolean"), False),
        ("perhaps", target("boolean"), "perhaps"),
        ("12", target("string", "number"), "12"),
        (12, target("string", "number"), 12),
        (2**60, target("integer"), str(2**60)),
        ("99999999999999999999", target("integer"), "99999999999999999999"),
        ("NET 30", target("string", options=("net-30", "cash")), "net-30"),
        ("card", target("string", options=("net-30", "cash")), "card"),
        ("€", target("string", name="currency"), "EUR"),
        ("eur", target("string", name="currency"), "EUR"),
        ("$", target("string", title="Währung"), "USD"),
        ("€", target("string"), "€"),
        ("3. März 2024", target("string", format="date"), "2024-03-03"),
        ("some day", target("string", format="date"), "some day"),
        (None, target("null"), None),
    ],
)
def test_normal_forms(value: Scalar, wanted: Target, normal: Scalar) -> None:
    found = normalise(value, wanted, Customs())
    assert (found, type(found)) == (normal, type(normal))


def test_a_value_stands_in_words_in_any_of_its_forms() -> None:
    assert occurs(1234.5, target("number"), "Total: 1.234,50 €", Customs())
    assert occurs(-5, target("number"), "Discount (5.00)", Customs())
    assert not occurs(1234, target("number"), "Total: 1.234,50 €", Customs())
    assert occurs("2024-03-03", target("string", format="date"), "of 3 March 2024", Customs())
    assert occurs("EUR", target("string", name="currency"), "10,50 €", Customs())
    assert occurs("Straße 1", target("string"), "in der STRASSE 1.", Customs())
    assert not occurs(True, target("boolean"), "yes", Customs())
    assert not occurs("…", target("string"), "anything", Customs())
