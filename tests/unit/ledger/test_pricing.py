"""Costs are integers, rounded up once for each call."""

import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.domain.pricing import Price, PriceBook, cost_micros, costs_micros
from services.ledger.domain.values import Tokens
from services.runtime.errors import FailedPrecondition

PRICES = Path(__file__).parents[3] / "services" / "ledger" / "migrations" / "prices"

prices = st.builds(Price, st.integers(0, 10**9), st.integers(0, 10**9))
tokens = st.builds(Tokens, st.integers(0, 10**9), st.integers(0, 10**9))


def exact(price: Price, used: Tokens) -> Fraction:
    total = used.sent * price.input_micros_per_million + used.received * price.output_micros_per_million
    return Fraction(total, 10**6)


@given(prices, tokens)
def test_the_cost_is_the_exact_one_rounded_up(price: Price, used: Tokens) -> None:
    cost = cost_micros(price, used)
    assert 0 <= cost - exact(price, used) < 1


@given(prices, tokens)
def test_only_what_is_free_costs_nothing(price: Price, used: Tokens) -> None:
    assert (cost_micros(price, used) == 0) == (exact(price, used) == 0)


@given(prices, tokens, tokens)
def test_using_less_never_costs_more(price: Price, first: Tokens, second: Tokens) -> None:
    """A call that stays within what was reserved stays within the reservation."""
    most = Tokens(max(first.sent, second.sent), max(first.received, second.received))
    assert cost_micros(price, first) <= cost_micros(price, most)


@given(prices, tokens, tokens)
def test_rounding_adds_less_than_one_micro_to_a_call(price: Price, first: Tokens, second: Tokens) -> None:
    together = cost_micros(price, Tokens(first.sent + second.sent, first.received + second.received))
    assert together <= cost_micros(price, first) + cost_micros(price, second) <= together + 1


@given(prices, tokens)
def test_a_cost_fits_into_the_contract(price: Price, used: Tokens) -> None:
    assert cost_micros(price, used) <= 10**15


@pytest.mark.parametrize(
    ("used", "cost"),
    [(Tokens(0, 0), 0), (Tokens(1, 0), 2), (Tokens(0, 1), 6), (Tokens(1_000_000, 1_000_000), 8_000_000)],
)
def test_known_costs(used: Tokens, cost: int) -> None:
    assert cost_micros(Price(2_000_000, 6_000_000), used) == cost


def test_a_fraction_is_rounded_once_for_both_parts() -> None:
    assert cost_micros(Price(400_000, 600_000), Tokens(1, 1)) == 1


def test_the_own_price_goes_before_the_longest_pattern() -> None:
    own, longer, shorter = Price(1, 1), Price(2, 2), Price(3, 3)
    book = PriceBook(7, {"p/model-x": own, "p/model-*": longer, "p/*": shorter})
    assert book.price("p/model-x") == own
    assert book.price("p/model-y") == longer
    assert book.price("p/other") == shorter


@pytest.mark.parametrize("model", ["q/model", "p", "p/mode", "p/model-*", "*", "'; --"])
def test_what_has_no_price_is_refused(model: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        PriceBook(7, {"p/model-x": Price(1, 1)}).price(model)
    assert refused.value.reason == "MODEL_UNPRICED"
    assert refused.value.metadata["price_book_version"] == "7"


@pytest.mark.parametrize("path", sorted(PRICES.glob("*.toml")), ids=lambda p: p.name)
def test_price_files_are_whole(path: Path) -> None:
    book = tomllib.loads(path.read_text())
    assert book["currency"] == "USD"
    # A list that adds to the newest one, whichever that is, has no number of its own.
    assert "version" not in book or f"{book['version']:04}.toml" == path.name
    models = [row["model"] for row in book["price"]]
    assert len(set(models)) == len(models)
    for row in book["price"]:
        assert "/" in row["model"]
        if "page_micros" in row:
            assert set(row) == {"model", "page_micros"}
            assert row["page_micros"] > 0
            continue
        # Vectors are no output.
        tokens = {"output_micros_per_million": 0, **row}
        assert set(tokens) == {"model", "input_micros_per_million", "output_micros_per_million"}
        assert type(tokens["input_micros_per_million"]) is type(tokens["output_micros_per_million"]) is int
        assert tokens["input_micros_per_million"] + tokens["output_micros_per_million"] > 0


def test_a_page_costs_what_its_price_says() -> None:
    price = Price(0, 0, page_micros=4_000)
    assert cost_micros(price, Tokens(1, 0)) == 4_000
    assert costs_micros([price, price], [0, 25], [0, 0]) == [0, 100_000]


def test_a_pattern_with_a_price_for_tokens_says_nothing_about_pages() -> None:
    listed = {"m/ocr": Price(0, 0, page_micros=4_000), "m/chat": Price(5, 5)}
    book = PriceBook(1, listed, {"m/*": Price(1, 1)})
    assert book.price("m/chat") == Price(1, 1)
    assert book.price("m/ocr") == listed["m/ocr"]
    assert book.price("m/other") == Price(1, 1)
    by_name = PriceBook(1, listed, {"m/ocr": Price(0, 0, page_micros=1), "m/*": Price(1, 1)})
    assert by_name.price("m/ocr") == Price(0, 0, page_micros=1)
