"""P0, an AI summariser: its user uploads PDFs, gets cached summaries of the length and style that they choose, searches
all documents, and sees what it cost."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.conftest import Caller, folder, report, until

pytestmark = pytest.mark.timeout(400)  # the stack may have to start first, on a machine that is busy

HARBOUR = [
    "The harbour of Brimsby was dredged in spring so that larger ferries can call there.",
    "Dredging took eleven weeks and cost less than the council had feared.",
    "Ferries now leave for the islands every morning, and twice a day in summer.",
    "Fishermen were paid for the weeks in which they could not leave the harbour.",
    "A survey of the sea bed found an anchor from the seventeenth century.",
]
ORCHARD = [
    "The orchard of Tolland has four hundred apple trees of thirty old varieties.",
    "Volunteers prune the trees in winter and press cider in October.",
    "Late frost destroyed a third of the blossom in the second week of April.",
    "The society sells young trees to members at the price of their pots.",
]


def test_a_summariser(new_tenant: Callable[[str], tuple[str, Caller]], tmp_path: Path) -> None:
    _, user = new_tenant("p0")
    pdfs = folder(tmp_path, {"harbour.pdf": report(HARBOUR), "orchard.pdf": report(ORCHARD)})

    uploaded = user.pagemesh("upload", str(pdfs))
    assert uploaded.code == 0, uploaded.err
    harbour, orchard = uploaded.out.split()

    # A summary of a length and style, each statement with its place; the second time it is there already.
    wanted = ("summarize", harbour, "--length", "short", "--style", "bullets", "--json")
    first, again = user.pagemesh(*wanted), user.pagemesh(*wanted)
    assert (first.code, again.code) == (0, 0), (first.err, again.err)
    summary, cached = first.lines[0]["summary"], again.lines[0]["summary"]
    assert summary["sentences"]
    assert all(sentence["citations"][0]["boxes"] for sentence in summary["sentences"])
    assert all(sentence["citations"][0]["page"] == 1 for sentence in summary["sentences"])
    assert (summary["cached"], cached["cached"]) == (False, True)
    assert [s["text"] for s in cached["sentences"]] == [s["text"] for s in summary["sentences"]]
    longer = user.pagemesh("summarize", harbour, "--length", "long", "--json").lines[0]["summary"]
    assert longer["cached"] is False
    assert len(longer["sentences"]) > len(summary["sentences"])
    shown = user.pagemesh("summarize", str(pdfs / "orchard.pdf"), "--length", "short").out
    assert "1. " in shown
    assert "cost" in shown

    # All documents are searched, and the right one is found.
    until(lambda: all(user.get(f"/v1/{name}")["document"]["searchablePages"] == 1 for name in (harbour, orchard)))
    found = user.pagemesh("search", "late frost", "--json").json["hits"]
    assert [(result["document"], result["page"]) for result in found] == [(orchard, 1)]
    assert {result["document"] for result in user.pagemesh("search", "the", "--json").json["hits"]} <= {
        harbour,
        orchard,
    }

    # What it cost: a row for each summary that was made, and one at no cost that tells what was saved.
    until(lambda: len(user.get(f"/v1/usage?document={harbour}")["records"]) == 3)
    long, again_, short = user.get(f"/v1/usage?document={harbour}")["records"]
    assert [row["event"]["operation"] for row in (short, again_, long)] == [
        "summarize.map",
        "summarize.cache",
        "summarize.map",
    ]
    assert int(again_["cost"]["micros"]) == 0
    assert again_["event"]["tags"]["saved_micros"] == short["cost"]["micros"]
    assert "summarize.map" in user.pagemesh("usage", "--document", harbour).out
    total = user.pagemesh("usage", "--by", "operation", "--json").json
    paid = sum(int(row["cost"]["micros"]) for row in user.get("/v1/usage")["records"])
    assert int(total["totalCost"]["micros"]) == paid > 0
