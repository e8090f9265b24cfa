"""What a provider says that it found for one field."""

from dataclasses import dataclass

Scalar = str | int | float | bool | None
"""A value of JSON that holds no other."""


@dataclass(frozen=True, slots=True)
class FoundField:
    """A value as a provider wrote it. Nothing of it is checked; `page` is a hint, 0 where it gave none."""

    pointer: str
    value: Scalar
    quote: str
    page: int
