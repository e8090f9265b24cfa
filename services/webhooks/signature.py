"""Signatures of messages after Standard Webhooks (https://www.standardwebhooks.com): symmetric, version 1."""

import base64
import hashlib
import hmac

SECRET_PREFIX = "whsec_"  # noqa: S105 - says what follows it


def secret_text(secret: bytes) -> str:
    """The secret as its receiver keeps it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: HMAC-SHA256 over `{id}.{timestamp}.{body}`; `timestamp` in seconds since 1970."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
