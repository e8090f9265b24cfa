"""The operator's words to values of the domain and back: arguments in, one JSON object a line out."""

import argparse
import json
from uuid import UUID

from services.ledger.domain.keys import ApiKey
from services.ledger.domain.values import Hold, UsageRecord


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
