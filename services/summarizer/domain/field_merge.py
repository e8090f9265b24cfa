"""One answer out of what was found in the parts of a document.

Lists are joined in the order of the parts, and an item that stands there already is left out. Of several values for one
field the best supported is taken; others that are grounded are told beside it.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from services.summarizer.domain.citations import Locator
from services.summarizer.domain.field_support import Candidate, supported
from services.summarizer.domain.fields_values import (
    FieldValue,
    OtherValue,
    Path,
    Target,
    Template,
    parts_of,
)
from services.summarizer.domain.found_field import FoundField, Scalar
from services.summarizer.domain.numbers_dates import Customs

MAX_ITEMS = 1_000
"""Items of one list that are kept."""
MAX_FIELDS = 5_000
"""Values of one answer that are kept."""
MAX_OTHERS = 5
_MAX_INDEX_DIGITS = 6

Found = Sequence[tuple[Path, Candidate]]
"""What was found in one part: a candidate for each path, places in lists as the part counts them."""


@dataclass(frozen=True, slots=True)
class Context:
    """What values are checked with."""

    targets: dict[Template, Target]
    locator: Locator
    customs: Customs

    def read(self, found: Iterable[FoundField]) -> list[tuple[Path, Candidate]]:
        """The candidates of what was found. What the schema has no place for, and what says nothing, is left out."""
        read: list[tuple[Path, Candidate]] = []
        for field in found:
            path = path_of(field.pointer, self.targets)
            if path is not None and field.value is not None and field.value != "":
                target = self.targets[template_of(path)]
                read.append((path, supported(field, target, self.locator, self.customs)))
        return read


def template_of(path: Path) -> Template:
    """The path with None for each place in a list."""
    return tuple(None if isinstance(part, int) else part for part in path)


def path_of(pointer: str, targets: dict[Template, Target]) -> Path | None:
    """The path of a target that the pointer names; None where it names none."""
    try:
        parts = parts_of(pointer)
    except ValueError:
        return None
    path: list[str | int] = []
    known = {template[:size] for template in targets for size in range(1, len(template) + 1)} if parts else set()
    for part in parts:
        so_far = template_of(tuple(path))
        if (*so_far, part) in known:
            path.append(part)
        elif (*so_far, None) in known and part.isascii() and part.isdigit() and len(part) <= _MAX_INDEX_DIGITS:
            path.append(int(part))
        else:
            return None
    return tuple(path) if template_of(tuple(path)) in targets else None


def merge(parts: Sequence[Found]) -> tuple[FieldValue, ...]:
    """The fields of the answer, in the order of the schema's names; lists are counted anew from 0."""
    return tuple(islice(_fields(_merged([_tree(found) for found in parts]), ()), MAX_FIELDS))


def json_of(fields: Iterable[FieldValue]) -> dict[str, object]:
    """The answer in the form of the schema. Places in lists have no gaps."""
    root: dict[str | int, object] = {}
    for field in fields:
        node = root
        for part in field.path[:-1]:
            deeper = node.setdefault(part, {})
            assert isinstance(deeper, dict), "a value stands where others are within"
            node = deeper
        node[field.path[-1]] = field.value
    found = _with_lists(root)
    assert isinstance(found, dict)
    return found


def replaced(fields: Sequence[FieldValue], others: Iterable[FieldValue]) -> tuple[FieldValue, ...]:
    """The fields with others in the place of those of the same path; new ones come last, but no new item of a list."""
    known = {field.path: field for field in fields}
    items = {path[: at + 1] for path in known for at, part in enumerate(path) if isinstance(part, int)}
    for other in others:
        old = known.get(other.path)
        if old is not None:
            known[other.path] = replace(other, others=old.others)
        elif all(other.path[: at + 1] in items for at, part in enumerate(other.path) if isinstance(part, int)):
            known[other.path] = other
    return tuple(known.values())


class _Leaf(list[Candidate]):
    """All that was found for one value."""


_Node = dict[str | int, "_Node"] | _Leaf
"""Of one part: an object by its names, a list by its places, or a value."""
_Merged = dict[str, "_Merged"] | list["_Merged"] | _Leaf
"""Of all parts."""


def _tree(found: Found) -> dict[str | int, _Node]:
    root: dict[str | int, _Node] = {}
    for path, candidate in found:
        node = root
        for part in path[:-1]:
            deeper = node.setdefault(part, {})
            assert isinstance(deeper, dict), "one schema says what is a value"
            node = deeper
        leaf = node.setdefault(path[-1], _Leaf())
        assert isinstance(leaf, _Leaf), "one schema says what is a value"
        leaf.append(candidate)
    return root


def _merged(nodes: Sequence[_Node]) -> _Merged:
    """One node out of those of all parts: objects by name, lists one after the other, candidates together."""
    if isinstance(nodes[0], _Leaf):
        return _Leaf(candidate for node in nodes if isinstance(node, _Leaf) for candidate in node)
    holders = [node for node in nodes if isinstance(node, dict)]
    if any(isinstance(key, int) for node in holders for key in node):
        items: dict[str, _Merged] = {}
        for node in holders:
            for key in sorted(key for key in node if isinstance(key, int)):
                item = _merged([node[key]])
                items.setdefault(_identity(item), item)
        return list(items.values())[:MAX_ITEMS]
    names = dict.fromkeys(name for node in holders for name in node)
    return {str(name): _merged([node[name] for node in holders if name in node]) for name in names}


def _identity(item: _Merged) -> str:
    """Items of which this is equal are one. A single value is the same wherever it stands; a row of several is the same
    only in the same place, since two rows of a table may be alike."""
    leaves = list(_fields(item, ()))
    if len(leaves) == 1 and not leaves[0].path:
        return json.dumps(_comparable(leaves[0].value))
    return json.dumps([[leaf.path, _comparable(leaf.value), repr(leaf.citation)] for leaf in leaves])


def _fields(node: _Merged, path: Path) -> Iterator[FieldValue]:
    if isinstance(node, _Leaf):
        yield _choose(node, path)
    elif isinstance(node, dict):
        for name in sorted(node):
            yield from _fields(node[name], (*path, name))
    else:
        for index, item in enumerate(node):
            yield from _fields(item, (*path, index))


def _choose(candidates: Sequence[Candidate], path: Path) -> FieldValue:
    groups: dict[tuple[str, object], list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(_comparable(candidate.value), []).append(candidate)
    # How well it is supported comes first, how often it was said second; the earliest of equals stays.
    ranked = sorted(groups.values(), key=lambda group: (max(c.rank for c in group), len(group)), reverse=True)
    best = max(ranked[0], key=lambda candidate: candidate.rank)
    others = tuple(
        OtherValue(other.value, other.citation)
        for group in ranked[1:]
        if (other := max(group, key=lambda candidate: candidate.rank)).citation is not None
    )
    confidence = best.confidence(disputed=bool(others))
    return FieldValue(path, best.value, best.citation, confidence, others[:MAX_OTHERS])


def _comparable(value: Scalar) -> tuple[str, object]:
    """Equal where two values are the same: text whatever its case. To Python True is 1, and to JSON it is not."""
    kind = "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
    return kind, value.casefold() if isinstance(value, str) else value


def _with_lists(node: object) -> object:
    if not isinstance(node, dict):
        return node
    if node and all(isinstance(key, int) for key in node):
        return [_with_lists(node[key]) for key in sorted(node)]
    return {str(key): _with_lists(value) for key, value in node.items()}
