"""What a summary cost, and the ledger's own rows for it: told after the summary, and never in its way."""

import time
from collections.abc import Callable, Sequence

from rich.table import Table
from rich.text import Text

from pagemesh.ledger.v1 import usage_pb2
from pagemesh.summarizer.v1 import summary_pb2
from pagemesh_cli.client import Client
from pagemesh_cli.counting import counted
from pagemesh_cli.failures import Failure
from pagemesh_cli.output import Output, printable
from pagemesh_cli.verbs.anonymising import replaced
from pagemesh_cli.verbs.money import money

# The ledger acknowledges before the answer as a rule; where it was away, its rows follow within seconds. Each look-up
# counts against the key's rate limit, which admits ten requests at once and then five every three seconds.
LOOK_UP_TIMEOUT_S = 5.0
PAUSES_S = (0.2, 0.4, 0.8, 1.6)


def recorded_usage(
    client: Client, output: Output, summary: summary_pb2.Summary, *, pause: Callable[[float], None] = time.sleep
) -> list[usage_pb2.UsageRecord]:
    """The ledger's rows for this request, looked up within LOOK_UP_TIMEOUT_S; newest first.

    Rows that are still on their way are waited for, unless the summary says that all are there. What cannot be looked
    up is a warning: the summary is made and paid, and a key may lack `usage.read`.
    """
    wanted = set(summary.consumption.usage_event_ids)
    deadline = time.monotonic() + LOOK_UP_TIMEOUT_S
    pauses = iter(() if summary.consumption.settled else PAUSES_S)
    records: list[usage_pb2.UsageRecord] = []
    try:
        while True:
            records = client.usage_of_request(client.request_id, wanted=wanted, deadline=deadline)
            if wanted <= _ids(records):
                return records
            pause_s = next(pauses, None)
            if pause_s is None or time.monotonic() + pause_s >= deadline:
                break
            pause(pause_s)
    except Failure as failure:
        output.warn(f"what the ledger recorded could not be looked up: {failure.reason}: {failure.message}")
        return records
    output.warn("the ledger has not recorded every call yet; see `pagemesh usage` later")
    return records


def print_consumption(output: Output, summary: summary_pb2.Summary) -> None:
    """What the answer itself says that it cost."""
    used = summary.consumption
    how = "chosen from the document" if summary.extractive else "written"
    verbatim = " Where no quote is shown, the sentence is verbatim." if _any_verbatim(summary) else ""
    instead = f" in place of {summary.degraded_from}, which could not answer" if summary.degraded_from else ""
    cached = ", from the cache" if summary.cached else ""
    calls = counted(used.provider_calls, "model call")
    pending = "" if used.settled else " (reserved; the exact amount follows)"
    output.write(
        f"\n{summary.grounded_share:.0%} of the sentences are grounded; {how} by {summary.model}{instead}"
        f"{cached}.{verbatim}\n"
        f"cost {money(used.cost)} for {used.input_tokens} + {used.output_tokens} tokens in {calls}{pending}\n"
        f"{replaced(summary.anonymised)}"
    )


def print_usage(output: Output, records: Sequence[usage_pb2.UsageRecord]) -> None:
    """The ledger's rows as a table, times in UTC to the second; `--json` has all that is known."""
    if not records:
        return
    table = Table("time", "operation", "model", box=None, pad_edge=False)
    table.add_column("tokens", justify="right")
    table.add_column("cost", justify="right")
    for record in records:
        event = record.event
        time_text = event.occur_time.ToDatetime().isoformat(timespec="seconds") + "Z"
        tokens = f"{event.input_tokens}+{event.output_tokens}"
        cells = (time_text, event.operation, event.model, tokens, money(record.cost))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    output.print(table)


def is_verbatim(sentence: summary_pb2.SummarySentence, citation: summary_pb2.Citation) -> bool:
    """The sentence is what it quotes, but for its bullet and the breaks of lines."""
    return sentence_text(sentence).split() == citation.quote.split()


def sentence_text(sentence: summary_pb2.SummarySentence) -> str:
    """Without the bullet that a list's sentences begin with."""
    return sentence.text.removeprefix("- ").strip()


def _any_verbatim(summary: summary_pb2.Summary) -> bool:
    return any(is_verbatim(sentence, citation) for sentence in summary.sentences for citation in sentence.citations)


def _ids(records: Sequence[usage_pb2.UsageRecord]) -> set[str]:
    return {record.event.event_id for record in records}
