"""Where messages may be sent: nowhere inside our own network, whatever a name stands for."""

import ipaddress
import re
from urllib.parse import urlsplit

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_SET_ASIDE = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
            "2001::/23",  # protocols, among them Teredo, which wraps IPv4 addresses (RFC 2928, 4380)
            "2001:db8::/32",  # documentation (RFC 3849)
            "2002::/16",  # 6to4, which wraps IPv4 addresses (RFC 3056)
            "3ffe::/16",  # the first test network, given back (RFC 3701)
            "3fff::/20",  # documentation (RFC 9637)
        ),
    )
)
"""Whatever the release of Python knows of them."""
_ISATAP = 0x00005EFE
"""Third quarter of an address whose last one is an IPv4 address, to the router of a tunnel (RFC 5214, 6.1); the bit
0x02000000 may be set too, and the prefix is any."""
_LONGEST_HOST = 253
_HOST = re.compile(r"[0-9a-z][0-9a-z.-]*|[0-9a-f:.]+")
"""A name in its ASCII form or an address, without zones; in lower case, as urlsplit tells it."""


def fault_of_url(url: str, *, allow_private: bool) -> str:
    """What is wrong with an address to send to, for its owner to read; empty where nothing is.

    `allow_private` lets plain HTTP and addresses of private networks pass: for tests, and for machines of one's own.
    """
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        return "must be ASCII without spaces and control characters"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is no URL"
    if parts.scheme not in (("https", "http") if allow_private else ("https",)):
        return "must begin with https://"
    if not host or len(host) > _LONGEST_HOST or not _HOST.fullmatch(host):
        return "must name a host"
    if port == 0:
        return "must not have port 0"
    if parts.username is not None or parts.password is not None or "#" in url:
        return "must have no user, password or fragment"
    if not allow_private and _is_private_name(host):
        return "must be at a public address"
    return ""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet.

    Of IPv6 that is what was given out as global unicast (RFC 4291, 2.4), without the parts set aside for what is no
    host: addresses that some gateway turns into IPv4 ones are refused whatever is inside, except those of NAT64, which
    is how a machine without IPv4 reaches a public one.
    """
    try:
        found: _Address = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        isatap = (int(found) >> 32) & 0xFDFFFFFF == _ISATAP
        if found.scope_id is not None or found not in _GLOBAL_UNICAST or isatap:
            return False
    return (
        found.is_global
        and not found.is_multicast
        and not found.is_reserved
        and not any(found in network for network in _SET_ASIDE if network.version == found.version)
    )


_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)$", re.IGNORECASE)


def _is_private_name(host: str) -> bool:
    """A literal address that is not public, or a name that means this machine. Other names are resolved when sent."""
    host = host.rstrip(".")
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        # Systems read such names as IPv4 addresses: 2130706433, 127.1, 0x7f.1. No public name ends so (RFC 3696, 2).
        return _NUMBER.match(host.rpartition(".")[2]) is not None
    return not is_public(host)
