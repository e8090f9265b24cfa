"""Numbers with the word for what they count."""


def counted(count: int, one: str, many: str = "") -> str:
    """`1 page`, `2 pages`, `0 pages`; `many` where it is not `one` and an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
