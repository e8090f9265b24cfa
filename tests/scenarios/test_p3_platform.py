"""P3, a document intelligence platform: several tenants, each with users, keys and budgets; questions over a set of
documents are answered with citations; usage analytics of thirty days for each tenant."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.edge.calling import Outcome
from tests.scenarios.conftest import Caller, Callers, report, until

pytestmark = pytest.mark.timeout(400)  # the stack may have to start first, on a machine that is busy

LEASE = [
    "The lease of the warehouse begins on the first of May and runs for six years.",
    "Either party may end the lease with a notice period of nine months.",
]
INSURANCE = [
    "The insurance of the warehouse covers fire, water and burglary.",
    "The deductible for each damage is two thousand euros.",
]


def uploaded(caller: Caller, lines: list[str]) -> str:
    stored = caller.http("POST", "/v1/documents:upload", report(lines), "application/pdf")
    return str(stored.messages[0]["document"]["name"])


def member(admin: Caller, callers: Callers, email: str) -> tuple[str, str, Caller]:
    """A user, and somebody with a key of theirs."""
    user = admin.post("/v1/users", {"email": email, "displayName": "Ada", "role": "ROLE_MEMBER"})["user"]["name"]
    scopes = ["documents.read", "documents.write", "answers.create", "usage.read"]
    key = admin.post("/v1/apiKeys", {"displayName": "ada", "scopes": scopes, "user": user})
    return user, key["apiKey"]["name"], callers(key["secret"])


def asked(caller: Caller, question: str, documents: list[str]) -> Outcome:
    return caller.http("POST", "/v1/documents:ask", {"question": question, "documents": documents})


def test_a_platform_of_two_tenants(new_tenant: Callable[[str], tuple[str, Caller]], caller: Callers) -> None:
    (acme, acme_admin), (_, other_admin) = new_tenant("p3a"), new_tenant("p3b")
    ada, key, adas = member(acme_admin, caller, "ada@acme.example")
    _, bobs_key, bobs = member(other_admin, caller, "bob@other.example")

    # Budgets: one for the tenant, one for the user's key, each with what counts against it.
    for subject in (f"tenants/{acme}", key):
        made = acme_admin.pagemesh("budgets", "create", "--subject", subject, "--hard", "5", "--soft", "4")
        assert made.code == 0, made.err
    assert len(acme_admin.get("/v1/budgets")["budgets"]) == 2
    assert other_admin.get("/v1/budgets")["budgets"] == []

    # A question over a set of documents: answered from the right one, with the words on its page.
    lease, insurance = uploaded(adas, LEASE), uploaded(adas, INSURANCE)
    theirs = uploaded(bobs, ["The notice period of the other tenant is a secret of three weeks."])
    answered = asked(adas, "What is the notice period of the lease?", [lease, insurance])
    assert answered.code == "OK", answered
    answer = answered.messages[0]["answer"]
    assert answer["found"] is True
    assert "nine months" in answer["text"]
    citations = [citation for statement in answer["statements"] for citation in statement["citations"]]
    assert (citations[0]["document"], citations[0]["page"]) == (lease, 1)
    assert citations[0]["boxes"]
    printed = adas.pagemesh("ask", "What is the deductible?", lease, insurance)
    assert printed.code == 0, printed.err
    assert insurance in printed.out

    # A budget that is used up refuses what comes next before anything is spent.
    tight = other_admin.pagemesh("budgets", "create", "--subject", bobs_key, "--hard", "0.000001")
    assert tight.code == 0, tight.err
    assert asked(bobs, "How long is the notice period?", [theirs]).code == "OK"
    refused = asked(bobs, "Whose secret is it?", [theirs])
    assert (refused.http, refused.reason) == (429, "BUDGET_EXCEEDED"), refused

    # Nobody sees another tenant's documents, keys or users.
    assert asked(adas, "What is the notice period?", [theirs]).http == 404
    assert bobs.http("GET", f"/v1/{lease}").http == 404
    assert other_admin.http("GET", f"/v1/{ada}").http == 404

    # Thirty days of usage: by day, by user, as a file; each tenant its own.
    end = datetime.now(UTC) + timedelta(days=1)
    since = (end - timedelta(days=30)).strftime("%Y-%m-%dT00:00:00Z")
    month = f"/v1/usage?start_time={since}&group_by=USAGE_DIMENSION_DAY&group_by=USAGE_DIMENSION_USER"
    until(lambda: sum(int(group["records"]) for group in acme_admin.get(month)["groups"]) == 2)
    assert {group["user"] for group in acme_admin.get(month)["groups"]} == {ada}
    until(lambda: [int(group["records"]) for group in other_admin.get(month)["groups"]] == [1])
    by_day = acme_admin.pagemesh("usage", "--by", "day", "--since", "30d")
    assert by_day.code == 0, by_day.err
    exported = acme_admin.pagemesh("usage", "--export", "-", "--since", "30d")
    assert len(exported.out.splitlines()) == 3
    assert exported.out.count(ada) == 2
