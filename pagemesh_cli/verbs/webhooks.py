"""`pagemesh webhooks`: who is told of what happens, and what became of it."""

from collections.abc import Iterator
from typing import Annotated

import typer

from pagemesh.ledger.v1 import ledger_service_pb2
from pagemesh.ledger.v1 import webhook_delivery_pb2 as pb
from pagemesh_cli.client import Client
from pagemesh_cli.counting import counted
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output, message_json, printable
from pagemesh_cli.verbs.options import Access, Json, connected, connecting

webhooks = typer.Typer(no_args_is_help=True, help="Be told of budgets, odd costs and jobs that ended.")
EVENTS = (
    "budget.threshold_reached",
    "cost.anomaly_detected",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "batch.ended",
)
_PAGE = 1000
_MESSAGES = 100
_DEAD = pb.WEBHOOK_DELIVERY_STATE_DEAD


@webhooks.command("create")
@connecting
def create_webhook(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where to post: https://…")],
    *,
    events: Annotated[
        list[str] | None,
        typer.Option("--event", metavar="TYPE", help=f"Of what to be told, again for more: {', '.join(EVENTS)}."),
    ] = None,
    as_json: Json = False,
    access: Access,
) -> None:
    """Make a webhook and print its secret. It cannot be shown again."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = ledger_service_pb2.CreateWebhookRequest(url=address, event_types=events or ())
        made = client.unary(client.ledger.CreateWebhook, request)
        if as_json:
            output.result(message_json(made))
        else:
            output.write(f"{made.secret}\n")
            output.note(f"{made.webhook.name}. Check `webhook-signature` with the secret; it cannot be shown again.")


@webhooks.command("list")
@connecting
def list_webhooks(*, as_json: Json = False, access: Access) -> None:
    """Print the webhooks."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        # A tenant has far fewer than fit into one part.
        page = client.unary(client.ledger.ListWebhooks, ledger_service_pb2.ListWebhooksRequest(page_size=_PAGE))
        for webhook in page.webhooks:
            if as_json:
                output.result(message_json(webhook))
            else:
                output.write(
                    f"{webhook.name} {printable(webhook.url)} {' '.join(map(printable, webhook.event_types))}\n"
                )


@webhooks.command("delete")
@connecting
def delete_webhook(
    name: Annotated[str, typer.Argument(metavar="WEBHOOK", help="`webhooks/{id}`.")],
    *,
    as_json: Json = False,
    access: Access,
) -> None:
    """End a webhook."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        answer = client.unary(client.ledger.DeleteWebhook, ledger_service_pb2.DeleteWebhookRequest(name=name))
        if as_json:
            output.result(message_json(answer))
        else:
            output.write(f"{printable(name)} deleted\n")


@webhooks.command("deliveries")
@connecting
def list_deliveries(
    *,
    dead: Annotated[bool, typer.Option("--dead", help="Only those that were given up.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="So many of the newest.")] = 50,
    as_json: Json = False,
    access: Access,
) -> None:
    """Print messages of the last seven days, newest first, and what became of them."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        for number, delivery in enumerate(_deliveries(client, _DEAD if dead else 0)):
            if number == limit:
                break
            if as_json:
                output.result(message_json(delivery))
            else:
                _tell(output, delivery)


@webhooks.command("retry")
@connecting
def retry_delivery(
    name: Annotated[str, typer.Argument(metavar="DELIVERY", help="`webhookDeliveries/{id}`.")] = "",
    *,
    dead: Annotated[bool, typer.Option("--dead", help="All that were given up.")] = False,
    as_json: Json = False,
    access: Access,
) -> None:
    """Send a message again, or all dead letters. Each keeps its id."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        if bool(name) == dead:
            raise Failure("Name a message, or say --dead.", ExitCode.USAGE, "BAD_ARGUMENTS")
        # Listed first: what is sent again is no dead letter any more, and pages would move.
        names = [delivery.name for delivery in _deliveries(client, _DEAD)] if dead else [name]
        for one in names:
            request = pb.RetryWebhookDeliveryRequest(name=one)
            delivery = client.unary(client.ledger.RetryWebhookDelivery, request).delivery
            if as_json:
                output.result(message_json(delivery))
            else:
                _tell(output, delivery)


def _deliveries(client: Client, state: int) -> Iterator[pb.WebhookDelivery]:
    request = pb.ListWebhookDeliveriesRequest(page_size=_MESSAGES, state=pb.WebhookDeliveryState.ValueType(state))
    while True:
        page = client.unary(client.ledger.ListWebhookDeliveries, request)
        yield from page.deliveries
        request.page_token = page.next_page_token
        if not request.page_token:
            return


def _tell(output: Output, delivery: pb.WebhookDelivery) -> None:
    state = pb.WebhookDeliveryState.Name(delivery.state).removeprefix("WEBHOOK_DELIVERY_STATE_").lower()
    told = (delivery.name, delivery.webhook, delivery.event_type, state, counted(delivery.attempts, "attempt"))
    why = f": {printable(delivery.last_failure)}" if delivery.last_failure else ""
    output.write(f"{' '.join(map(printable, told))}{why}\n")
