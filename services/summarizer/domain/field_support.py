"""What supports a value: the words that it was taken from, and how sure the answer can be of it.

The confidence of a value is a sum of what was checked, and no probability:

    not grounded                                  0.1
    grounded, the words are as they were quoted   0.5
    grounded, they differ a little                0.35
      + the value itself stands in the words      0.3
      + they stand on the page that was named     0.1
      + nothing grounded says otherwise           0.1
"""

from dataclasses import dataclass

from services.summarizer.domain.citations import Locator
from services.summarizer.domain.field_normal import normalise, occurs
from services.summarizer.domain.fields_values import Target
from services.summarizer.domain.folding import fold
from services.summarizer.domain.found_field import FoundField, Scalar
from services.summarizer.domain.numbers_dates import Customs
from services.summarizer.domain.values import Citation, Quote

UNGROUNDED = 0.1
_AS_QUOTED, _ALMOST_AS_QUOTED = 0.5, 0.35
_HELD, _PAGE_NAMED, _UNDISPUTED = 0.3, 0.1, 0.1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A value that was found for a field, with what was checked of it."""

    value: Scalar
    citation: Citation | None
    as_quoted: bool
    held: bool
    """Whether the value itself stands in the words."""
    page_named: bool

    @property
    def rank(self) -> tuple[bool, bool, bool, bool]:
        """The better supported is the greater."""
        return (self.citation is not None, self.held, self.as_quoted, self.page_named)

    def confidence(self, *, disputed: bool) -> float:
        """0 to 1, by the rule above."""
        if self.citation is None:
            return UNGROUNDED
        parts = (
            _AS_QUOTED if self.as_quoted else _ALMOST_AS_QUOTED,
            _HELD * self.held,
            _PAGE_NAMED * self.page_named,
            _UNDISPUTED * (not disputed),
        )
        return round(sum(parts), 2)


def supported(found: FoundField, target: Target, locator: Locator, customs: Customs) -> Candidate:
    """The value in the schema's form, with the place of its words."""
    value = normalise(found.value, target, customs)
    citation = locator.locate(Quote(found.quote, found.page)) if found.quote else None
    if citation is None:
        return Candidate(value, None, as_quoted=False, held=False, page_named=False)
    return Candidate(
        value,
        citation,
        as_quoted=_folded(citation.quote) == _folded(found.quote),
        held=occurs(value, target, citation.quote, customs),
        page_named=citation.page == found.page,
    )


def _folded(text: str) -> str:
    return "".join(fold(word) for word in text.split())
