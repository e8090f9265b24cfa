"""Spans of what the summarizer does: calls to providers, what was paid for them, and attempts at jobs.

Names and attributes follow https://opentelemetry.io/docs/specs/semconv/gen-ai/ where it has them.
"""

import dataclasses

from services.summarizer.domain.fields_values import AnyPrompt
from services.summarizer.domain.job_work import Doer, Told
from services.summarizer.domain.jobs import Claim, Result
from services.summarizer.domain.paid_calls import Calls, OnText, Order, Paid
from services.summarizer.domain.values import TokenCount
from services.telemetry import spans

_OPERATIONS = {"embed": "embeddings", "ocr": "ocr"}
"""By the first word of a stage; the rest are chats."""


def provider_span(provider: str, prompt: AnyPrompt, attempt: int) -> spans.Span:
    """One try of one call; `attempt` counts from 0."""
    if not spans.recording():
        return spans.NO_SPAN
    operation = _OPERATIONS.get(prompt.stage.value.partition(".")[0], "chat")
    return spans.below(
        f"{operation} {prompt.model}",
        kind=spans.Kind.CLIENT,
        attributes={
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": prompt.model,
            "pagemesh.stage": prompt.stage.value,
            "pagemesh.attempt": attempt + 1,
        },
    )


def usage(tokens: TokenCount) -> spans.Attributes:
    """What an answer used."""
    used = {"gen_ai.usage.input_tokens": tokens.input_tokens, "gen_ai.usage.output_tokens": tokens.output_tokens}
    return {**used, "pagemesh.pages": tokens.pages} if tokens.pages else used


class SpannedCalls:
    """Calls: each with a span around its hold, its tries and its settling."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def make(self, order: Order, on_text: OnText | None = None) -> Paid:
        """See the port."""
        if not spans.recording():
            return await self._calls.make(order, on_text)
        asked = {"gen_ai.request.model": order.model.name, "pagemesh.stage": order.prompt.stage.value}
        with spans.within(spans.below("paid call", attributes=asked)) as span:
            paid = await self._calls.make(order, on_text)
            span.say(
                {
                    **usage(paid.answer.tokens),
                    "pagemesh.cost_micros": paid.cost.micros,
                    "pagemesh.cost_settled": paid.settled,
                    "pagemesh.event_id": paid.event_id,
                }
            )
            return paid


def spanned_work(do: Doer) -> Doer:
    """The same, each attempt as a span that goes on with the trace of the job's submission."""

    async def spanned(claim: Claim, told: Told) -> Result:
        attributes: spans.Attributes = {
            "pagemesh.job": claim.caller.job,
            "pagemesh.tenant": claim.caller.tenant,
            "pagemesh.attempt": claim.attempt,
            "pagemesh.work": type(claim.work).__name__.removesuffix("Work").lower(),
        }
        with spans.below_trace(claim.caller.trace, "job attempt", attributes=attributes) as span:
            if span.trace is not None:
                caller = dataclasses.replace(claim.caller, trace=span.trace.header())
                claim = dataclasses.replace(claim, caller=caller)
            return await do(claim, told)

    return spanned
