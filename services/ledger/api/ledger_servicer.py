"""pagemesh.ledger.v1.LedgerService."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import grpc
from google.api.httpbody_pb2 import HttpBody
from prometheus_client import Counter

from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh.ledger.v1 import webhook_delivery_pb2 as delivery_pb
from pagemesh.ledger.v1.ledger_service_pb2_grpc import LedgerServiceServicer
from services.ledger.api import budget_mapping, mapping, usage_mapping, webhook_mapping
from services.ledger.api.event_batch import batch_of
from services.ledger.domain import usage_export
from services.ledger.domain.books import Books
from services.ledger.domain.budgeting import Budgets
from services.ledger.domain.prices import PriceLists
from services.ledger.domain.usage_reports import Reports
from services.ledger.domain.values import Tokens
from services.ledger.domain.webhook_messages import WebhookMessages
from services.ledger.domain.webhooks import Webhooks
from services.runtime.errors import PagemeshError
from services.webhooks.signature import secret_text

Context = grpc.aio.ServicerContext[Any, Any]

_RESERVES = Counter("pagemesh_ledger_reserves", "Reservations, by `held` or the reason of the refusal.", ["outcome"])


class LedgerServicer(LedgerServiceServicer):
    """Translates between the contract, the books and what is told of them."""

    def __init__(
        self,
        books: Books,
        reports: Reports,
        budgets: Budgets,
        prices: PriceLists,
        webhooks: Webhooks,
        *,
        messages: WebhookMessages,
    ) -> None:
        self._books = books
        self._reports = reports
        self._budgets = budgets
        self._prices = prices
        self._webhooks = webhooks
        self._messages = messages

    async def Reserve(self, request: pb.ReserveRequest, context: Context) -> pb.ReserveResponse:
        """Sets money aside."""
        try:
            hold = await self._books.reserve(
                mapping.caller(),
                UUID(request.hold_id),
                request.model,
                Tokens(request.max_input_tokens, request.max_output_tokens),
                mapping.ttl_of(request.ttl),
                job=request.job,
            )
        except PagemeshError as exc:
            _RESERVES.labels(exc.reason.lower()).inc()
            raise
        _RESERVES.labels("held").inc()
        return pb.ReserveResponse(hold=mapping.hold_message(hold))

    async def Settle(self, request: pb.SettleRequest, context: Context) -> pb.SettleResponse:
        """Records a call and closes its hold."""
        event = mapping.event_of(request.event, "event")
        hold, record = await self._books.settle(mapping.caller(), UUID(request.hold_id), event)
        return pb.SettleResponse(hold=mapping.hold_message(hold), record=mapping.record_message(record))

    async def Release(self, request: pb.ReleaseRequest, context: Context) -> pb.ReleaseResponse:
        """Frees a hold."""
        hold = await self._books.release(mapping.caller(), UUID(request.hold_id))
        return pb.ReleaseResponse(hold=mapping.hold_message(hold))

    async def RecordUsage(self, request: pb.RecordUsageRequest, context: Context) -> pb.RecordUsageResponse:
        """Records events without holds."""
        result = await self._books.record(mapping.caller(), batch_of(request.events))
        return pb.RecordUsageResponse(recorded=result.recorded, already_known=result.already_known)

    async def QueryUsage(self, request: pb.QueryUsageRequest, context: Context) -> pb.QueryUsageResponse:
        """Lists records with their sums."""
        selection = usage_mapping.selection_of(request, mapping.caller().tenant)
        grouping = usage_mapping.grouping_of(request)
        report, token = await self._reports.report(selection, grouping, request.page_size, request.page_token)
        return pb.QueryUsageResponse(
            records=[mapping.record_message(record) for record in report.records],
            next_page_token=token,
            total_cost=mapping.money(report.total_cost_micros),
            total_records=report.total_records,
            held=mapping.money(report.held_micros),
            groups=[usage_mapping.group_message(group, grouping) for group in report.groups],
            more_groups=report.more_groups,
        )

    async def ForecastUsage(self, request: pb.ForecastUsageRequest, context: Context) -> pb.ForecastUsageResponse:
        """Says what the month will have cost."""
        return usage_mapping.forecast_message(await self._reports.forecast(mapping.caller().tenant))

    async def ExportUsage(
        self, request: pb.ExportUsageRequest, context: Context
    ) -> AsyncIterator[pb.ExportUsageResponse]:
        """Answers records as a file. The next part is read when the caller has taken the one before."""
        selection = usage_mapping.selection_of(request, mapping.caller().tenant)
        form = usage_mapping.format_of(request)
        parts = self._reports.export(selection)
        # A refusal comes before the first piece, which is what tells the caller that all is well.
        records = await anext(parts)
        first = HttpBody(content_type=form.value, data=usage_export.first_line(form))
        yield pb.ExportUsageResponse(content=first)
        while True:
            for data in usage_export.pieces(records, form):
                yield pb.ExportUsageResponse(content=HttpBody(data=data))
            try:
                records = await anext(parts)
            except StopAsyncIteration:
                return

    async def CreateBudget(self, request: pb.CreateBudgetRequest, context: Context) -> pb.CreateBudgetResponse:
        """Makes a budget."""
        asked = request.budget
        status = await self._budgets.create(
            mapping.caller(),
            request.budget_id,
            asked.subject,
            budget_mapping.period_of(asked),
            hard=budget_mapping.limit_of(asked, "hard_limit"),
            soft=budget_mapping.limit_of(asked, "soft_limit"),
        )
        return pb.CreateBudgetResponse(budget=budget_mapping.budget_message(status))

    async def GetBudget(self, request: pb.GetBudgetRequest, context: Context) -> pb.GetBudgetResponse:
        """Tells a budget."""
        status = await self._budgets.get(mapping.caller(), budget_mapping.budget_id_of(request.name))
        return pb.GetBudgetResponse(budget=budget_mapping.budget_message(status))

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: Context) -> pb.ListBudgetsResponse:
        """Lists budgets."""
        found, token = await self._budgets.list(
            mapping.caller(), request.subject, request.page_size, request.page_token
        )
        return pb.ListBudgetsResponse(budgets=map(budget_mapping.budget_message, found), next_page_token=token)

    async def UpdateBudget(self, request: pb.UpdateBudgetRequest, context: Context) -> pb.UpdateBudgetResponse:
        """Changes limits."""
        budget_id = budget_mapping.budget_id_of(request.budget.name, "budget.name")
        status = await self._budgets.change(mapping.caller(), budget_id, budget_mapping.changes_of(request))
        return pb.UpdateBudgetResponse(budget=budget_mapping.budget_message(status))

    async def DeleteBudget(self, request: pb.DeleteBudgetRequest, context: Context) -> pb.DeleteBudgetResponse:
        """Ends a budget."""
        await self._budgets.delete(mapping.caller(), budget_mapping.budget_id_of(request.name))
        return pb.DeleteBudgetResponse()

    async def ListPrices(self, request: pb.ListPricesRequest, context: Context) -> pb.ListPricesResponse:
        """Lists prices."""
        book, models, token = await self._prices.list(
            mapping.caller(), request.price_book_version, request.page_size, request.page_token
        )
        return pb.ListPricesResponse(
            prices=[budget_mapping.price_message(book, model) for model in models],
            next_page_token=token,
            price_book_version=book.version,
        )

    async def CreateWebhook(self, request: pb.CreateWebhookRequest, context: Context) -> pb.CreateWebhookResponse:
        """Makes a webhook."""
        webhook, secret = await self._webhooks.create(mapping.caller(), request.url, request.event_types)
        return pb.CreateWebhookResponse(webhook=budget_mapping.webhook_message(webhook), secret=secret_text(secret))

    async def ListWebhooks(self, request: pb.ListWebhooksRequest, context: Context) -> pb.ListWebhooksResponse:
        """Lists webhooks."""
        found, token = await self._webhooks.list(mapping.caller(), request.page_size, request.page_token)
        return pb.ListWebhooksResponse(webhooks=map(budget_mapping.webhook_message, found), next_page_token=token)

    async def DeleteWebhook(self, request: pb.DeleteWebhookRequest, context: Context) -> pb.DeleteWebhookResponse:
        """Ends a webhook."""
        await self._webhooks.delete(mapping.caller(), request.name.removeprefix("webhooks/"))
        return pb.DeleteWebhookResponse()

    async def ListWebhookDeliveries(
        self, request: delivery_pb.ListWebhookDeliveriesRequest, context: Context
    ) -> delivery_pb.ListWebhookDeliveriesResponse:
        """Lists messages."""
        state = webhook_mapping.state_of(request.state)
        found, token = await self._messages.list(mapping.caller(), state, request.page_size, request.page_token)
        return delivery_pb.ListWebhookDeliveriesResponse(
            deliveries=map(webhook_mapping.delivery_message, found), next_page_token=token
        )

    async def RetryWebhookDelivery(
        self, request: delivery_pb.RetryWebhookDeliveryRequest, context: Context
    ) -> delivery_pb.RetryWebhookDeliveryResponse:
        """Sends a message once more."""
        delivery = await self._messages.retry(mapping.caller(), UUID(request.name.removeprefix("webhookDeliveries/")))
        return delivery_pb.RetryWebhookDeliveryResponse(delivery=webhook_mapping.delivery_message(delivery))

    async def PublishEvents(
        self, request: delivery_pb.PublishEventsRequest, context: Context
    ) -> delivery_pb.PublishEventsResponse:
        """Tells webhooks what another service says."""
        events = [webhook_mapping.event_of(event, f"events[{at}]") for at, event in enumerate(request.events)]
        return delivery_pb.PublishEventsResponse(messages=await self._messages.publish(events))
