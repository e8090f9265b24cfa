"""Which model answers where the one that was asked for cannot."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import Field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from services.runtime.errors import InvalidArgument, PagemeshError
from services.summarizer.domain.events import TextDelta
from services.summarizer.domain.map_reduce import Bill, Job
from services.summarizer.domain.models import Model
from services.summarizer.domain.single_flight import Emit


class Made(Protocol):
    """What a model made: a dataclass that can say that another one was asked for."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def degraded_from(self) -> str:
        """The model that was asked for."""


S = TypeVar("S", bound=Made)
E = TypeVar("E")
Make = Callable[[Job, Emit[E], Bill], Awaitable[S]]


def another_may_answer(error: PagemeshError, model: Model) -> bool:
    """Whether the error is the model's or its provider's own, so that another model may do better.

    What the ledger, the extractor or a database refuses is the same for every model, and so is a spent budget.
    """
    if error.reason == "BREAKER_OPEN":
        return error.metadata.get("breaker") == model.name
    return error.reason.startswith("PROVIDER_") or error.reason in ("MODEL_UNPRICED", "MODEL_TOO_SMALL")


class Failover(Generic[S, E]):
    """Makes something with the first of some models that can. `observe` hears of each change: from, to and why."""

    def __init__(self, make: Make[E, S], *, observe: Callable[[Model, Model, str], None]) -> None:
        self._make = make
        self._observe = observe

    async def __call__(self, job: Job, models: Sequence[Model], emit: Emit[E]) -> S:
        """What was made, `degraded_from` the first model where another one wrote it. What a model that failed was paid
        for is part of its consumption.

        No other model is asked once a text was told, for two would be mixed up in it. Raises the first model's error
        where none can.
        """
        bill, told_text = Bill(), False

        def watched(event: E) -> None:
            nonlocal told_text
            told_text = told_text or isinstance(event, TextDelta)
            emit(event)

        first: PagemeshError | None = None
        for number, model in enumerate(models):
            asked = replace(job, model=model, options=replace(job.options, model=model.name))
            try:
                made = await self._make(asked, watched, bill)
            except PagemeshError as exc:
                # A fallback that refuses the request, such as its language, is passed over.
                passed_over = first is not None and isinstance(exc, InvalidArgument)
                if told_text or not (passed_over or another_may_answer(exc, model)):
                    raise
                first = first or exc
                if number + 1 < len(models):
                    self._observe(model, models[number + 1], exc.reason)
                continue
            return made if number == 0 else replace(made, degraded_from=models[0].name)
        assert first is not None, "there is at least one model"
        raise first
