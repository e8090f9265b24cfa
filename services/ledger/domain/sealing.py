"""Secrets that the ledger keeps in its database, unreadable to whoever has only the database.

Pure computation, like the hash of a key: it needs no port.
"""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12


class Sealer:
    """AES-256-GCM under a key that is derived from the pepper for one purpose (HKDF-SHA256, RFC 5869).

    Nonces are random: 96 bits are enough for the few keys that are ever sealed (NIST SP 800-38D, 8.3: below 2^32).
    """

    def __init__(self, pepper: str, *, purpose: str) -> None:
        derived = HKDF(SHA256(), length=32, salt=None, info=f"pagemesh {purpose}".encode()).derive(pepper.encode())
        self._cipher = AESGCM(derived)

    def seal(self, secret: bytes, *, bound_to: bytes) -> bytes:
        """The secret sealed; it opens only with the same `bound_to`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, bound_to)

    def open(self, sealed: bytes, *, bound_to: bytes) -> bytes | None:
        """The secret; None where it was sealed under another pepper, or for something else, or was changed."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError):  # the latter: too short to hold a nonce
            return None
