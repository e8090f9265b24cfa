"""The query language of SearchPages: words, "phrases", prefixes, exclusions, and alternatives."""

import re
from dataclasses import dataclass

from services.runtime.errors import FieldViolation, InvalidArgument

MAX_TERMS = 32
_ITEM = re.compile(r'(?P<minus>-*)(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))')
_OR = "or"


@dataclass(frozen=True, slots=True)
class Term:
    """A word, or words that stand one behind the other; with `prefix`, a word's beginning."""

    text: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A page matches that has one term of each group, and none of those excluded."""

    groups: tuple[tuple[Term, ...], ...]
    excluded: tuple[Term, ...] = ()

    @property
    def wanted(self) -> tuple[Term, ...]:
        """All that is not excluded."""
        return tuple(term for group in self.groups for term in group)


def parse_query(text: str) -> Query:
    """The query in `text`. Whatever is in it, it means something: signs without a meaning are left out.

    Raises InvalidArgument SEARCH_QUERY_INVALID where nothing is left to look for, or more than MAX_TERMS terms are.
    """
    groups: list[tuple[Term, ...]] = []
    excluded: list[Term] = []
    items = [(match, term) for match in _ITEM.finditer(text) if (term := _term(match)) is not None]
    joins = False
    for at, (match, term) in enumerate(items):
        between = 0 < at < len(items) - 1 and not (items[at - 1][0]["minus"] or items[at + 1][0]["minus"])
        if match["minus"]:
            excluded.append(term)
        elif between and _is_or(match) and not joins:
            joins = True
            continue
        elif joins:
            groups[-1] += (term,)
        else:
            groups.append((term,))
        joins = False
    if not groups:
        raise _invalid("There is nothing to look for. Write a word, beside what is to be left out.")
    if sum(map(len, groups)) + len(excluded) > MAX_TERMS:
        raise _invalid(f"These are more than {MAX_TERMS} words and phrases. Leave some out.")
    return Query(tuple(groups), tuple(excluded))


def _is_or(match: "re.Match[str]") -> bool:
    return (match["word"] or "").casefold() == _OR


def _term(match: "re.Match[str]") -> Term | None:
    phrase, word = match["phrase"], match["word"]
    text = " ".join((phrase if word is None else word).split())
    if not any(letter.isalnum() for letter in text):
        return None
    if word is not None and word.endswith("*"):
        return Term(text.rstrip("*"), prefix=True)
    return Term(text)


def _invalid(message: str) -> InvalidArgument:
    return InvalidArgument("SEARCH_QUERY_INVALID", message, fields=[FieldViolation("query", message)])
