"""Kinds of personal data, between the contract's values and the domain's."""

from collections.abc import Iterable

from pagemesh.summarizer.v1 import personal_data_pb2 as pb
from services.summarizer.domain.personal_kinds import ALL, Counts, Kind, Kinds, in_order

_KINDS = {pb.PersonalDataKind.Value(f"PERSONAL_DATA_KIND_{kind.name}"): kind for kind in Kind}
_VALUES = {kind: value for value, kind in _KINDS.items()}


def to_kinds(values: "Iterable[pb.PersonalDataKind.ValueType]") -> Kinds | None:
    """What a request wants replaced; None where it says nothing."""
    asked = set(values)
    if not asked:
        return None
    if pb.PERSONAL_DATA_KIND_ALL in asked:
        return ALL
    return in_order(_KINDS[value] for value in asked if value in _KINDS)


def from_kinds(kinds: Kinds | None) -> "list[pb.PersonalDataKind.ValueType]":
    """The same as a request has it."""
    if kinds is None:
        return []
    return [_VALUES[kind] for kind in kinds] or [pb.PERSONAL_DATA_KIND_NONE]


def from_counts(counts: Counts) -> list[pb.AnonymisedItems]:
    """How much was replaced."""
    return [pb.AnonymisedItems(kind=_VALUES[kind], count=counts[kind]) for kind in Kind if counts.get(kind)]
