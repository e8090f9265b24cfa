"""Where messages may be sent: nowhere inside our own network, whatever a name stands for."""

import ipaddress
import re
from urllib.parse import urlsplit

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
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
    """Whether an IP address is one of the public internet; so are those that are wrapped in others."""
    try:
        found: _Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(
        part.is_global
        and not part.is_multicast
        and not part.is_reserved
        and not (isinstance(part, ipaddress.IPv6Address) and part.is_site_local)
        for part in _unwrapped(found)
    )


def _unwrapped(address: _Address) -> list[_Address]:
    """The address and the IPv4 addresses that it stands for to some gateway: mapped, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    within: list[_Address] = []
    if address.sixtofour is not None:
        within.append(address.sixtofour)
    if address.teredo is not None:
        within += address.teredo
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address, *within]


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
