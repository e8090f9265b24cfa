"""What a JSON web token says of itself, before anything of it is believed.

Libraries differ in what they make of a token that says a thing twice, or asks for its key to be fetched from an
address. Here such tokens have no form at all; only what is left is given to the library that checks signatures.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

MAX_TOKEN_BYTES = 8 * 1024
_PARTS = 3
_HEADER_NAMES = frozenset({"alg", "kid", "typ"})
"""Others change what a token means (crit, b64, zip, cty) or where its key comes from (jku, jwk, x5u, x5c, x5t)."""
_HARMLESS = frozenset({"x5t", "x5t#S256", "nonce", "rh"})
"""Large issuers send these; nobody reads them here."""
_TYPES = ("JWT", "at+jwt", "application/at+jwt", None)
"""Of ID tokens and access tokens (RFC 9068); others, such as logout+jwt, are for something else."""


@dataclass(frozen=True, slots=True)
class JwtForm:
    """The claims are as yet nobody's word."""

    token: str
    algorithm: str
    kid: str
    claims: dict[str, Any]


def looks_like_jwt(credential: str) -> bool:
    """Three parts, of which the first is a JSON object in base64url."""
    return credential.startswith("eyJ") and credential.count(".") == _PARTS - 1


def read_form(token: str) -> JwtForm | None:
    """None for what is too long, says anything twice, or says what no token of ours or of an issuer has to say."""
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        return None
    header_part, claims_part, _ = token.split(".")
    header, claims = _object(header_part), _object(claims_part)
    if header is None or claims is None:
        return None
    algorithm, kid = header.get("alg"), header.get("kid")
    if not header.keys() <= _HEADER_NAMES | _HARMLESS or header.get("typ") not in _TYPES:
        return None
    if not isinstance(algorithm, str) or not isinstance(kid, str) or not 0 < len(kid) <= 200:
        return None
    return JwtForm(token, algorithm, kid, claims)


def _object(part: str) -> dict[str, Any] | None:
    try:
        decoded = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        value = json.loads(decoded, object_pairs_hook=_once, parse_constant=_refuse, parse_float=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # halves of characters, which nothing else can keep
    except (binascii.Error, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("said twice")
    return found


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no number of a token")
