"""From where a request came, so that the same place is known again and the address itself by nobody."""

import hashlib
import hmac
import ipaddress

_LABEL = b"pagemesh-audit-client-v1"


class ClientHasher:
    """Keyed hashes of addresses. Without the key nobody can try all addresses, of which there are not many."""

    def __init__(self, secret: str) -> None:
        # A key of its own, so that it may be derived from a secret that has another use as well.
        self._key = hmac.digest(secret.encode(), _LABEL, hashlib.sha256)

    def hash(self, tenant: str, address: str) -> str:
        """32 hexadecimal digits, the same for the same address of the same tenant however it is written; empty for
        what is no address. Tenants cannot compare what they see."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return ""
        plain = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped else ip
        return hmac.digest(self._key, tenant.encode() + b"\0" + plain.packed, hashlib.sha256)[:16].hex()
