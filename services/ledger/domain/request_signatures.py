"""HTTP message signatures (RFC 9421) with Ed25519, as far as keys may demand them.

One signature, written as the RFC serialises it; what is written otherwise, though the RFC might allow it, has no form
here. Whoever signs by the RFC's own rules writes it like this.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ALGORITHM = "ed25519"
FIELDS = frozenset({"content-digest", "content-type", "content-length", "date", "x-request-id"})
"""Header fields that may be covered, besides the request's own parts: those that the edge shows to the ledger."""
_MOST_BYTES = 2048
_SIGNATURE_BYTES = 64
_NAME = r"\"@?[a-z0-9-]{1,40}\""
_TEXT = r"\"[ !#-\[\]-~]{0,128}\""
"""A string of RFC 8941 without escapes."""
_INPUT = re.compile(
    rf"(?P<label>[a-z*][a-z0-9_.*-]{{0,63}})=(?P<params>\((?P<names>{_NAME}(?: {_NAME}){{0,15}})?\)"
    rf"(?P<rest>(?:;[a-z]{{1,20}}=(?:[0-9]{{1,15}}|{_TEXT})){{0,8}}))"
)
_PARAMETER = re.compile(rf";([a-z]+)=([0-9]+|{_TEXT})")
_KNOWN = {"created": int, "expires": int, "nonce": str, "keyid": str, "alg": str, "tag": str}


@dataclass(frozen=True, slots=True)
class Message:
    """A request as it was sent. `path` may have a query; field names are in lower case."""

    method: str
    authority: str
    path: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Signature:
    """What Signature-Input and Signature say; `covered` are the names in their order, `params` as they were written."""

    covered: tuple[str, ...]
    params: str
    value: bytes
    created: int | None = None
    expires: int | None = None
    nonce: str = ""
    keyid: str = ""
    alg: str = ""

    def base(self, message: Message) -> bytes | None:
        """What was signed (RFC 9421, section 2.5); None where the request lacks what is covered."""
        lines = []
        for name in self.covered:
            value = _component(message, name)
            if value is None:
                return None
            lines.append(f'"{name}": {value}')
        return "\n".join([*lines, f'"@signature-params": {self.params}']).encode()

    def fits(self, message: Message, key: Ed25519PublicKey) -> bool:
        """Whether the key signed this request."""
        base = self.base(message)
        if base is None:
            return False
        try:
            key.verify(self.value, base)
        except InvalidSignature:
            return False
        return True


def read_signature(fields: Mapping[str, str]) -> Signature | None:
    """The request's one signature; None for none, several, or one that is written otherwise."""
    told, value = fields.get("signature-input", ""), fields.get("signature", "")
    if len(told) > _MOST_BYTES or len(value) > _MOST_BYTES:
        return None
    match = _INPUT.fullmatch(told)
    if match is None:
        return None
    raw = _bytes(value, match["label"])
    covered = tuple(re.findall(r"\"([^\"]+)\"", match["names"] or ""))
    parameters = _PARAMETER.findall(match["rest"])
    if raw is None or len(set(covered)) < len(covered) or len({name for name, _ in parameters}) < len(parameters):
        return None
    read: dict[str, int | str] = {}
    for name, text in parameters:
        kind = _KNOWN.get(name)
        if kind is None or (kind is str) != text.startswith('"'):
            return None
        read[name] = text[1:-1] if kind is str else int(text)
    read.pop("tag", None)
    return Signature(covered=covered, params=match["params"], value=raw, **read)  # type: ignore[arg-type]


def _bytes(value: str, label: str) -> bytes | None:
    prefix = f"{label}=:"
    if not value.startswith(prefix) or not value.endswith(":"):
        return None
    try:
        raw = base64.b64decode(value[len(prefix) : -1], validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == _SIGNATURE_BYTES else None


def _component(message: Message, name: str) -> str | None:
    path, query_sign, query = message.path.partition("?")
    match name:
        case "@method":
            return message.method
        case "@authority":
            return message.authority.lower()
        case "@path":
            return path or "/"
        case "@query":
            return f"?{query}" if query_sign else "?"
        case _:
            value = message.fields.get(name) if name in FIELDS else None
            return None if value is None else value.strip()
