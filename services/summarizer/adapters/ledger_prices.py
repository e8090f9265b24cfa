"""The ledger's price book, as it counts for the caller's tenant."""

from collections.abc import Mapping

from pagemesh.ledger.v1 import ledger_service_pb2 as ledger_pb2
from pagemesh.ledger.v1 import ledger_service_pb2_grpc, price_pb2
from services.runtime.clients import MeshClient
from services.runtime.errors import FailedPrecondition, Unavailable
from services.summarizer.domain.prices import ModelPrice

CAP_S = 2.0
"""Longest time for one call of the ledger."""
_PAGE = 1_000
_MOST_PAGES = 20
_WILDCARD = "*"


class LedgerPrices:
    """Prices on the LedgerService."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._stub = ledger_service_pb2_grpc.LedgerServiceStub(client.channel)

    async def of(self, model: str) -> ModelPrice:
        """The price that a call to the model has now: the tenant's own before the list's, the exact name before the
        longest pattern, as the ledger finds it."""
        prices, version = await self._list()
        own, listed = (
            _find({price.model: price for price in prices if price.tenant_override is is_own}, model)
            for is_own in (True, False)
        )
        # A pattern with a price for tokens says nothing about a model that is priced by page, nor the other way round.
        fits = own is not None and (
            listed is None or own.model == model or own.HasField("per_page") == listed.HasField("per_page")
        )
        if (found := own if fits else listed) is not None:
            return ModelPrice(
                found.input_per_million.currency,
                found.input_per_million.micros,
                found.output_per_million.micros,
                version,
                page_micros=found.per_page.micros,
            )
        raise FailedPrecondition(
            "MODEL_UNPRICED",
            f"The price book (version {version}) has no price for this model. Use a model that it lists.",
            metadata={"price_book_version": str(version)},
        )

    async def _list(self) -> tuple[list[price_pb2.Price], int]:
        """All prices, and their version."""
        prices, token = list[price_pb2.Price](), ""
        for _ in range(_MOST_PAGES):
            request = ledger_pb2.ListPricesRequest(page_size=_PAGE, page_token=token)
            response: ledger_pb2.ListPricesResponse = await self._client.unary(
                self._stub.ListPrices, request, cap_s=CAP_S
            )
            prices += response.prices
            token = response.next_page_token
            if not token:
                return prices, response.price_book_version
        raise Unavailable("PRICES_UNREADABLE", "The price book does not end. Tell whoever runs the ledger.")


def _find(prices: Mapping[str, price_pb2.Price], model: str) -> price_pb2.Price | None:
    exact = prices.get(model)
    if exact is not None and not model.endswith(_WILDCARD):
        return exact
    patterns = (prices.get(model[:length] + _WILDCARD) for length in range(len(model), -1, -1))
    return next((price for price in patterns if price is not None), None)
