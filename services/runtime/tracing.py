"""W3C trace context (https://www.w3.org/TR/trace-context/): taken over from the caller or begun here."""

import re
import secrets
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A trace and our own span in it, as lower-case hexadecimal."""

    trace_id: str
    span_id: str
    flags: str = "01"

    @classmethod
    def new(cls) -> "TraceContext":
        """The beginning of a trace."""
        return cls(secrets.token_hex(16), secrets.token_hex(8))

    @classmethod
    def continued(cls, traceparent: str | None) -> "TraceContext":
        """Our span below the caller's; the beginning of a trace where the header is absent or malformed."""
        match = _TRACEPARENT.match(traceparent or "")
        return cls(match[1], secrets.token_hex(8), match[3]) if match else cls.new()

    def header(self) -> str:
        """The `traceparent` to send on."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"
