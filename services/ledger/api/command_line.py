"""The operator's words to values of the domain and back: arguments in, one JSON object a line out."""

import argparse
import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from services.ledger.domain.checks import invalid_field
from services.ledger.domain.keys import ApiKey
from services.ledger.domain.prices import PriceOverride
from services.ledger.domain.pricing import Price
from services.ledger.domain.values import Hold, UsageRecord

_PRICE_FIELDS = ("input_micros_per_million", "output_micros_per_million")
_PAGE_FIELD = "page_micros"


def parser(description: str | None) -> argparse.ArgumentParser:
    """`command` names the command, and `action` that of `holds`."""
    made = argparse.ArgumentParser(prog="services.ledger", description=description)
    commands = made.add_subparsers(dest="command")
    commands.add_parser("serve", help="answer calls until stopped (the default)")
    commands.add_parser("migrate", help="bring the database schema to the newest revision")
    bootstrap = commands.add_parser("bootstrap", help="make a tenant, if absent, set its budget, and make an admin key")
    bootstrap.add_argument("--tenant", required=True, help="id: [0-9a-z-], at most 63 characters")
    bootstrap.add_argument("--display-name", default="", help="what people call the tenant; its id by default")
    bootstrap.add_argument("--hard-budget-micros", type=int, help="limit of all that the tenant may ever spend")
    bootstrap.add_argument("--plan", default="", help="what the tenant may use; a new one has no limits by default")
    bootstrap.add_argument("--admin-email", default="", help="make this user an admin, and the key theirs")
    bootstrap.add_argument("--no-key", action="store_true", help="make no key: only the tenant, and its budget")
    _add_holds(commands.add_parser("holds", help="list and close holds that became UNKNOWN"))
    _add_prices(commands.add_parser("prices", help="load a price list, set what models cost one tenant"))
    return made


def _add_holds(holds: argparse.ArgumentParser) -> None:
    actions = holds.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="print them, oldest first")
    listing.add_argument("--tenant", help="only this tenant's")
    listing.add_argument("--limit", type=int, default=100, help="at most so many, up to 10000 (default: 100)")
    settling = actions.add_parser("settle", help="the call was made: record what it used")
    settling.add_argument("--input-tokens", type=int, required=True, help="tokens that were sent")
    settling.add_argument("--output-tokens", type=int, required=True, help="tokens that came back")
    settling.add_argument("--request-id", default="", help="x-request-id of the request that the call was made for")
    releasing = actions.add_parser("release", help="the call was never sent: free its money")
    for closing in (settling, releasing):
        closing.add_argument("--tenant", required=True)
        closing.add_argument("hold_id", type=UUID)


def _add_prices(prices: argparse.ArgumentParser) -> None:
    actions = prices.add_subparsers(dest="action", required=True)
    loading = actions.add_parser("load", help="add the next version of the price list, for everybody")
    loading.add_argument("file", type=Path, help="TOML: version, currency, and a [[price]] for each model")
    setting = actions.add_parser("override", help="set what a model costs one tenant from a time on")
    setting.add_argument("--tenant", required=True)
    setting.add_argument("--model", required=True, help="{provider}/{model}, or the beginning of such names and *")
    setting.add_argument("--start", type=_time, help="from then on, as in 2026-12-01T00:00Z (default: now)")
    price = setting.add_mutually_exclusive_group(required=True)
    price.add_argument(
        "--micros-per-million",
        dest="price",
        type=_price,
        metavar="INPUT,OUTPUT",
        help="micro-units for a million tokens that are sent, and that come back",
    )
    price.add_argument(
        "--page-micros",
        dest="price",
        type=lambda text: Price(0, 0, int(text)),
        metavar="MICROS",
        help="micro-units for a page, of a model that is priced by page",
    )
    price.add_argument("--list-price", dest="price", action="store_const", const=None, help="what the list says again")
    listing = actions.add_parser("list", help="print every override that a tenant ever got")
    listing.add_argument("--tenant", required=True)


def _price(text: str) -> Price:
    sent, _, received = text.partition(",")
    return Price(int(sent), int(received))


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def price_list(text: str) -> tuple[int, str, dict[str, Price]]:
    """The version, the currency and the prices of a list in TOML. Raises InvalidArgument for what is none."""
    try:
        book = tomllib.loads(text)
        version, currency, lines = book["version"], book["currency"], book["price"]
        prices = {line["model"]: _price_of(line) for line in lines}
        unknown = {name for line in lines for name in line} - {"model", *_PRICE_FIELDS, _PAGE_FIELD}
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as exc:
        raise invalid_field("file", f"is not a price list: {type(exc).__name__}: {exc}") from exc
    if unknown or len(prices) != len(lines):
        raise invalid_field("file", f"names a model twice, or fields that are unknown: {sorted(unknown)}")
    if not isinstance(version, int) or not isinstance(currency, str):
        raise invalid_field("file", "must have a whole number as version and a text as currency")
    return version, currency, prices


def _price_of(line: dict[str, int]) -> Price:
    """By page, or by token; one that names both is found out later."""
    tokens = [line.get(name, 0) if _PAGE_FIELD in line else line[name] for name in _PRICE_FIELDS]
    return Price(tokens[0], tokens[1], line.get(_PAGE_FIELD, 0))


def price_list_line(version: int, models: int) -> str:
    """A list that was loaded."""
    return json.dumps({"version": version, "models": models})


def override_line(override: PriceOverride) -> str:
    """What a model costs one tenant; null where it costs what the list says."""
    price = override.price
    return json.dumps(
        {
            "tenant": override.tenant,
            "number": override.number,
            "model": override.model,
            "start_time": override.start.isoformat(),
            "input_micros_per_million": None if price is None else price.input_micros_per_million,
            "output_micros_per_million": None if price is None else price.output_micros_per_million,
            "page_micros": None if price is None else price.page_micros,
        }
    )


def tenant_line(tenant: str) -> str:
    """A tenant that was let in without a key."""
    return json.dumps({"tenant": tenant})


def key_line(key: ApiKey, credential: str) -> str:
    """A new key and what it is shown as, once."""
    return json.dumps({"tenant": key.tenant, "api_key": key.name, "secret": credential})


def hold_line(hold: Hold) -> str:
    """A hold, with all that tells which call it was made for."""
    return json.dumps(
        {
            "tenant": hold.tenant,
            "hold_id": str(hold.hold_id),
            "state": hold.state.value,
            "model": hold.model,
            "max_input_tokens": hold.most.sent,
            "max_output_tokens": hold.most.received,
            "amount_micros": hold.amount_micros,
            "actor": hold.actor,
            "create_time": hold.create_time.isoformat(),
            "expire_time": hold.expire_time.isoformat(),
        }
    )


def record_line(record: UsageRecord) -> str:
    """The record that settled a hold."""
    return json.dumps(
        {
            "tenant": record.tenant,
            "hold_id": str(record.hold_id),
            "state": "SETTLED",
            "event_id": str(record.event.event_id),
            "input_tokens": record.event.tokens.sent,
            "output_tokens": record.event.tokens.received,
            "cost_micros": record.cost_micros,
        }
    )
