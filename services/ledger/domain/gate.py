"""Who is let in: whatever credential a request brings, one answer."""

from dataclasses import dataclass

from services.ledger.domain.browser_sessions import BrowserSessionCheck, cookies_in
from services.ledger.domain.client_certificates import CertificateCheck
from services.ledger.domain.identity import Authenticator, Denial, Principal
from services.ledger.domain.identity_providers import OidcCheck
from services.ledger.domain.jwt_form import looks_like_jwt, read_form
from services.ledger.domain.request_signatures import Message
from services.ledger.domain.sessions import SessionCheck
from services.ledger.domain.signed_requests import SignatureCheck


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the edge describes it."""

    credential: str
    """What follows `Bearer`, or the API key; empty where there is none."""
    message: Message
    port: int = 443
    """Where the edge listens."""
    certificate: str = ""
    """Fingerprint of the client certificate that its connection shows."""


class Gate:
    """Tells API keys from tokens by their form, and asks whoever knows them."""

    def __init__(
        self,
        *,
        keys: Authenticator,
        sessions: SessionCheck,
        issuers: OidcCheck,
        signatures: SignatureCheck,
        certificates: CertificateCheck,
        browsers: BrowserSessionCheck,
    ) -> None:
        self._keys = keys
        self._sessions = sessions
        self._issuers = issuers
        self._signatures = signatures
        self._certificates = certificates
        self._browsers = browsers

    async def admit(self, request: Request) -> Principal | Denial:
        """Who it is, or why it is nobody. Raises Unavailable where that cannot be known."""
        cookies = cookies_in(request.message.fields.get("cookie", ""))
        if cookies:
            if request.credential:
                return Denial.CREDENTIAL_TWICE
            found = await self._browsers.check(cookies, request.message.method, request.message.fields)
        elif not request.credential and request.certificate:
            # A browser shows certificates by itself, whatever page has it send the request.
            if "origin" in request.message.fields:
                return Denial.CERTIFICATE_IN_BROWSER
            found = await self._certificates.check(request.certificate)
        elif looks_like_jwt(request.credential):
            found = await self._token(request.credential)
        else:
            found = await self._keys.authenticate(request.credential)
        if isinstance(found, Denial) or not found.key_id:
            return found
        # Sessions too: what a key demands, whatever stands for it demands.
        denial = await self._signatures.denial(found.tenant, found.key_id, request.message, request.port)
        return denial or found

    async def _token(self, token: str) -> Principal | Denial:
        session = self._sessions.remembered(token)
        if session is not None:
            return await self._sessions.principal(session)
        principal = await self._issuers.remembered(token)
        if principal is not None:
            return principal
        form = read_form(token)
        if form is None:
            return Denial.MALFORMED
        if form.claims.get("iss") != self._sessions.issuer:
            return await self._issuers.check(form)
        found = await self._sessions.check(form)
        return found if isinstance(found, Denial) else await self._sessions.principal(found)
