"""The public keys of OpenID Connect issuers: fetched when they are needed, kept while they may be believed."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from services.runtime.errors import PagemeshError, Unavailable

FRESH_S = 600.0
"""Keys older than that are fetched anew while the old ones go on being believed."""
STALE_S = 24 * 3600.0
"""Keys older than that are believed no longer, whether or not the issuer can be reached."""
RETRY_S = 30.0
"""How often an unknown key id may cause a fetch: made-up ones cost the issuer no more than that."""
RETRY_FAILED_S = 5.0
"""How long the ledger waits after a fetch that failed."""
WAIT_S = 0.7
"""How long a request waits for a fetch: the edge gives Check one second. The fetch goes on without it."""
MAX_ISSUERS = 1000
MAX_KEYS = 50
_RSA_BITS = (2048, 4096)
_LONGEST_EXPONENT = 33


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A public key, and the one algorithm that its signatures may have."""

    algorithm: str
    public: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


class KeySource(Protocol):
    """Where issuers publish their keys."""

    async def fetch(self, issuer: str) -> Sequence[Mapping[str, Any]]:
        """The keys of the issuer's JWK set, as JSON. Raises Unavailable ISSUER_UNREACHABLE, also for an answer that
        is none."""
        ...


@dataclass(slots=True)
class _Issuer:
    keys: dict[str, IssuerKey] = field(default_factory=dict)
    fetched_s: float = float("-inf")
    next_try_s: float = float("-inf")
    fetch: asyncio.Task[None] | None = None


class IssuerKeys:
    """The keys of at most MAX_ISSUERS issuers; those that were not asked for longest go first."""

    def __init__(self, *, source: KeySource, monotonic_s: Callable[[], float], wait_s: float = WAIT_S) -> None:
        self._source = source
        self._monotonic_s = monotonic_s
        self._wait_s = wait_s
        self._issuers: OrderedDict[str, _Issuer] = OrderedDict()

    async def find(self, issuer: str, kid: str) -> IssuerKey | None:
        """The issuer's key of that name; None where it has none, Unavailable ISSUER_UNREACHABLE where nobody knows."""
        known = self._known(issuer)
        age_s = self._monotonic_s() - known.fetched_s
        if kid not in known.keys or age_s >= FRESH_S:
            self._begin(issuer, known)
        if kid in known.keys and age_s < STALE_S:
            return known.keys[kid]
        await self._waited(known)
        if self._monotonic_s() - known.fetched_s >= STALE_S:
            raise _unreachable()
        return known.keys.get(kid)

    async def learn(self, issuer: str) -> None:
        """Fetches the issuer's keys now, for somebody who may wait. Raises Unavailable ISSUER_UNREACHABLE."""
        known = self._known(issuer)
        await self._fetch(issuer, known)

    async def close(self) -> None:
        """Ends what is under way."""
        running = [known.fetch for known in self._issuers.values() if known.fetch is not None]
        for fetch in running:
            fetch.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _known(self, issuer: str) -> _Issuer:
        known = self._issuers.setdefault(issuer, _Issuer())
        self._issuers.move_to_end(issuer)
        if len(self._issuers) > MAX_ISSUERS:
            _, dropped = self._issuers.popitem(last=False)
            if dropped.fetch is not None:
                dropped.fetch.cancel()
        return known

    def _begin(self, issuer: str, known: _Issuer) -> None:
        if known.fetch is None and self._monotonic_s() >= known.next_try_s:
            known.fetch = asyncio.create_task(self._fetch_behind(issuer, known))

    async def _waited(self, known: _Issuer) -> None:
        if known.fetch is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(known.fetch), self._wait_s)

    async def _fetch_behind(self, issuer: str, known: _Issuer) -> None:
        try:
            await self._fetch(issuer, known)
        except PagemeshError:
            pass  # whoever needs the keys finds that they are not there
        finally:
            known.fetch = None

    async def _fetch(self, issuer: str, known: _Issuer) -> None:
        begun_s = self._monotonic_s()
        known.next_try_s = begun_s + RETRY_FAILED_S
        found = read_keys(await self._source.fetch(issuer))
        known.keys, known.fetched_s = found, begun_s
        known.next_try_s = begun_s + RETRY_S


def read_keys(keys: Sequence[Mapping[str, Any]]) -> dict[str, IssuerKey]:
    """Those of a JWK set that may sign tokens here, by name: RSA of 2048 to 4096 bits, P-256 and Ed25519.

    A name that two keys have is nobody's.
    """
    found: dict[str, IssuerKey] = {}
    twice: set[str] = set()
    for key in keys[:MAX_KEYS]:
        kid = key.get("kid")
        read = _read(key)
        if read is None or not isinstance(kid, str):
            continue
        if kid in found:
            twice.add(kid)
        found[kid] = read
    return {kid: key for kid, key in found.items() if kid not in twice}


def _read(key: Mapping[str, Any]) -> IssuerKey | None:
    if key.get("use", "sig") != "sig" or "d" in key or key.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    try:
        public = jwt.PyJWK({name: value for name, value in key.items() if name != "alg"}).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None  # what an issuer writes may be anything
    algorithm = _algorithm(public)
    return None if algorithm is None or key.get("alg", algorithm) != algorithm else IssuerKey(algorithm, public)


def _algorithm(public: object) -> str | None:
    match public:
        case RSAPublicKey():
            least, most = _RSA_BITS
            sound = least <= public.key_size <= most and public.public_numbers().e.bit_length() <= _LONGEST_EXPONENT
            return "RS256" if sound else None
        case EllipticCurvePublicKey():
            return "ES256" if isinstance(public.curve, SECP256R1) else None
        case Ed25519PublicKey():
            return "EdDSA"
        case _:
            return None


def _unreachable() -> Unavailable:
    return Unavailable(
        "ISSUER_UNREACHABLE",
        "The token's issuer cannot be asked for its keys. Try again.",
        retry_after_s=RETRY_FAILED_S,
    )
