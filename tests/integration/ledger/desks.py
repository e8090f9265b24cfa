"""A tenant at its desk: what its key does at the edge, and what its summarizer does."""

from dataclasses import dataclass
from typing import Any

from pagemesh.common.v1.money_pb2 import Money
from pagemesh.ledger.v1 import budget_pb2
from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub
from tests.integration.ledger.conftest import Admit, Connect, LedgerProcess, Peer
from tests.integration.ledger.test_money import event, reserve

DAY, MONTH, TOTAL = (budget_pb2.BudgetPeriod.Value(f"BUDGET_PERIOD_{name}") for name in ("DAY", "MONTH", "TOTAL"))
KEY = "apiKeys/" + "0" * 16


def usd(micros: int) -> Money:
    return Money(currency="USD", micros=micros)


def asked(budget_id: str = "", *, subject: str = "", period: int = TOTAL, **limits: Money) -> pb.CreateBudgetRequest:
    budget = budget_pb2.Budget(subject=subject, period=period, **limits)  # type: ignore[arg-type]
    return pb.CreateBudgetRequest(budget=budget, budget_id=budget_id)


@dataclass
class Desk:
    """A tenant's key at the edge, and its summarizer."""

    edge: Peer
    summarizer: Peer

    async def call(self, name: str, request: object) -> Any:
        return await self.edge.call(getattr(LedgerServiceStub(self.edge.edge), name), request)

    async def spend(self, tokens: int, *, job: str = "") -> None:
        hold = reserve(tokens=tokens)
        hold.job = job
        await self.summarizer.call(self.summarizer.ledger.Reserve, hold)
        settle = pb.SettleRequest(hold_id=hold.hold_id, event=event(tokens=tokens, job=job))
        await self.summarizer.call(self.summarizer.ledger.Settle, settle)


async def open_desk(service: LedgerProcess, connect: Connect, admit: Admit, *, budget: int | None = None) -> Desk:
    """The desk of a new tenant, with that hard budget of the operator's."""
    tenant = (await admit(hard_budget_micros=budget)).name
    return Desk(connect(service, "edge", tenant), connect(service, "summarizer", tenant))
