"""Where a document's bytes are in the object store."""

import re

_TENANT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


def object_key(tenant: str, sha256: str) -> str:
    """`{tenant}/{sha256}`. Raises ValueError where either could lead out of the tenant's folder."""
    if not _TENANT.match(tenant) or not _SHA256.match(sha256):
        raise ValueError("not a tenant's id and a SHA-256")
    return f"{tenant}/{sha256}"
