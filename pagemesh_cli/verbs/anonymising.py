"""Which personal data is replaced before text leaves for a provider: an option of several verbs."""

from collections.abc import Iterable
from typing import Annotated

import typer

from pagemesh.summarizer.v1 import personal_data_pb2 as pb

_PREFIX = "PERSONAL_DATA_KIND_"
_NAMES = {
    name.removeprefix(_PREFIX).lower().replace("_", "-"): value
    for name, value in pb.PersonalDataKind.items()
    if value != pb.PERSONAL_DATA_KIND_UNSPECIFIED
}
_WORDS = {value: name for name, value in _NAMES.items()}


class Kinds(tuple["pb.PersonalDataKind.ValueType", ...]):
    """Values of PersonalDataKind; none where nothing was said."""

    __slots__ = ()


def kinds_of(text: str) -> Kinds:
    """The kinds of `all`, `none`, or names with commas between. Raises typer.BadParameter."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in _NAMES]:
        raise typer.BadParameter(f"there is no {unknown[0]!r}: write some of {', '.join(_NAMES)}")
    return Kinds(_NAMES[name] for name in dict.fromkeys(names))


Anonymise = Annotated[
    Kinds | None,
    typer.Option(
        metavar="KINDS",
        parser=kinds_of,
        help="Replace personal data before text leaves for a model's provider: `all`, `none`, or some of "
        + ", ".join(name for name in _NAMES if name not in ("all", "none"))
        + ". The deployment's default otherwise.",
    ),
]


def replaced(items: Iterable[pb.AnonymisedItems]) -> str:
    """A line that says what was replaced; empty where nothing was."""
    said = ", ".join(f"{item.count} {_WORDS.get(item.kind, 'other')}" for item in items)
    return f"replaced before text left: {said}\n" if said else ""
