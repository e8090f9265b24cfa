"""Who may hand in which work: a key may have nothing done by a job that it may not do directly."""

from services.runtime.errors import PermissionDenied
from services.summarizer.domain.jobs import AskWork, ExtractWork, FieldsWork, SummarizeWork, Work
from services.summarizer.domain.values import Caller

SCOPES: dict[type[Work], str] = {
    SummarizeWork: "summaries.create",
    ExtractWork: "documents.read",
    FieldsWork: "fields.create",
    AskWork: "answers.create",
}
"""The scope of the method that does the same while the caller waits; a test holds both together."""


def check_scope(caller: Caller, work: Work, *, besides: str = " besides jobs.create") -> None:
    """Raises PermissionDenied SCOPE_MISSING where the caller may not have that done; `besides` says what else it
    needs."""
    scope = SCOPES[type(work)]
    if scope not in caller.scopes:
        raise PermissionDenied(
            "SCOPE_MISSING",
            f"The key lacks the scope {scope}, which this work needs{besides}. Use a key that has it.",
            metadata={"scope": scope},
        )
