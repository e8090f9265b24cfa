"""W3C trace context (https://www.w3.org/TR/trace-context/): taken over from the caller or begun here."""

import re
import secrets
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$")
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A trace and a span in it, as lower-case hexadecimal. What nobody records says so in its flags."""

    trace_id: str
    span_id: str
    flags: str = "00"

    @classmethod
    def new(cls) -> "TraceContext":
        """A trace for log lines alone: it has no spans."""
        drawn = secrets.token_hex(24)
        return cls(drawn[:32], drawn[32:])

    @classmethod
    def parsed(cls, traceparent: str | None) -> "TraceContext | None":
        """The caller's span; None where the header is absent or malformed."""
        match = _TRACEPARENT.match(traceparent or "")
        return cls(match[1], match[2], match[3]) if match else None

    @classmethod
    def continued(cls, traceparent: str | None) -> "TraceContext":
        """Our span below the caller's; a new trace where there is none."""
        parent = cls.parsed(traceparent)
        return cls(parent.trace_id, secrets.token_hex(8), parent.flags) if parent else cls.new()

    @property
    def sampled(self) -> bool:
        """Whether whoever began the trace wants its spans."""
        return bool(int(self.flags, 16) & _SAMPLED)

    def header(self) -> str:
        """The `traceparent` to send on."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"
