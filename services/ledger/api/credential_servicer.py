"""pagemesh.ledger.v1.CredentialService."""

from typing import Any

import grpc

from pagemesh.ledger.v1 import client_certificate_pb2, identity_provider_pb2, session_pb2
from pagemesh.ledger.v1 import credential_service_pb2 as pb
from pagemesh.ledger.v1.credential_service_pb2_grpc import CredentialServiceServicer
from services.ledger.api import mapping
from services.ledger.domain.client_certificates import ClientCertificate, ClientCertificates
from services.ledger.domain.identity_providers import IdentityProvider, IdentityProviders
from services.ledger.domain.session_tokens import ALGORITHM, Session
from services.ledger.domain.sessions import Sessions
from services.ledger.domain.signed_requests import RequestKeys
from services.ledger.domain.signing_keys import SigningKey, SigningKeys

Context = grpc.aio.ServicerContext[Any, Any]

CERTIFICATE_HEADER = "x-pagemesh-certificate"
"""The same for the fingerprint of the client certificate that the call's connection shows."""
_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105 - RFC 8693, section 3


class CredentialServicer(CredentialServiceServicer):
    """Translates between the contract and what makes credentials."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        signing_keys: SigningKeys,
        providers: IdentityProviders,
        request_keys: RequestKeys,
        certificates: ClientCertificates,
    ) -> None:
        self._sessions = sessions
        self._signing_keys = signing_keys
        self._providers = providers
        self._request_keys = request_keys
        self._certificates = certificates

    async def ExchangeToken(self, request: pb.ExchangeTokenRequest, context: Context) -> pb.ExchangeTokenResponse:
        """Makes a session."""
        within = mapping.session(context)
        session, token = await self._sessions.exchange(mapping.caller(), frozenset(request.scopes), within=within)
        return pb.ExchangeTokenResponse(
            session=_session_message(session),
            access_token=token,
            issued_token_type=_TOKEN_TYPE,
            token_type="Bearer",  # noqa: S106 - RFC 8693, section 2.2.1
            expires_in=int((session.expire_time - session.create_time).total_seconds()),
        )

    async def RevokeSession(self, request: pb.RevokeSessionRequest, context: Context) -> pb.RevokeSessionResponse:
        """Ends a session."""
        await self._sessions.revoke(mapping.caller(), request.name.removeprefix("sessions/"))
        return pb.RevokeSessionResponse()

    async def GetJsonWebKeySet(
        self, request: pb.GetJsonWebKeySetRequest, context: Context
    ) -> pb.GetJsonWebKeySetResponse:
        """Tells the public keys."""
        keys = await self._signing_keys.published()
        return pb.GetJsonWebKeySetResponse(keys=[_key_message(key) for key in keys[:20]])

    async def SetSigningKey(self, request: pb.SetSigningKeyRequest, context: Context) -> pb.SetSigningKeyResponse:
        """Has a key demand signatures."""
        await self._request_keys.set(
            mapping.caller(),
            request.name.removeprefix("apiKeys/"),
            request.public_key,
            within=mapping.session(context),
        )
        return pb.SetSigningKeyResponse()

    async def RegisterClientCertificate(
        self, request: pb.RegisterClientCertificateRequest, context: Context
    ) -> pb.RegisterClientCertificateResponse:
        """Has the caller's certificate stand for its key."""
        made = await self._certificates.register(
            mapping.caller(), mapping.told(context, CERTIFICATE_HEADER), within=mapping.session(context)
        )
        return pb.RegisterClientCertificateResponse(client_certificate=_certificate_message(made))

    async def ListClientCertificates(
        self, request: pb.ListClientCertificatesRequest, context: Context
    ) -> pb.ListClientCertificatesResponse:
        """Lists certificates."""
        found, token = await self._certificates.list(mapping.caller(), request.page_size, request.page_token)
        return pb.ListClientCertificatesResponse(
            client_certificates=[_certificate_message(certificate) for certificate in found], next_page_token=token
        )

    async def DeleteClientCertificate(
        self, request: pb.DeleteClientCertificateRequest, context: Context
    ) -> pb.DeleteClientCertificateResponse:
        """Drops a certificate."""
        await self._certificates.delete(mapping.caller(), request.name.removeprefix("clientCertificates/"))
        return pb.DeleteClientCertificateResponse()

    async def CreateIdentityProvider(
        self, request: pb.CreateIdentityProviderRequest, context: Context
    ) -> pb.CreateIdentityProviderResponse:
        """Adds an issuer."""
        made = await self._providers.create(
            mapping.caller(),
            request.display_name,
            request.issuer,
            request.audience,
            within=mapping.session(context),
        )
        return pb.CreateIdentityProviderResponse(identity_provider=_provider_message(made))

    async def ListIdentityProviders(
        self, request: pb.ListIdentityProvidersRequest, context: Context
    ) -> pb.ListIdentityProvidersResponse:
        """Lists issuers."""
        found, token = await self._providers.list(mapping.caller(), request.page_size, request.page_token)
        return pb.ListIdentityProvidersResponse(
            identity_providers=[_provider_message(provider) for provider in found], next_page_token=token
        )

    async def DeleteIdentityProvider(
        self, request: pb.DeleteIdentityProviderRequest, context: Context
    ) -> pb.DeleteIdentityProviderResponse:
        """Drops an issuer."""
        await self._providers.delete(mapping.caller(), request.name.removeprefix("identityProviders/"))
        return pb.DeleteIdentityProviderResponse()


def _certificate_message(certificate: ClientCertificate) -> client_certificate_pb2.ClientCertificate:
    return client_certificate_pb2.ClientCertificate(
        name=certificate.name,
        api_key=f"apiKeys/{certificate.key_id}",
        create_time=mapping.timestamp_of(certificate.create_time),
    )


def _provider_message(provider: IdentityProvider) -> identity_provider_pb2.IdentityProvider:
    return identity_provider_pb2.IdentityProvider(
        name=provider.name,
        display_name=provider.display_name,
        issuer=provider.issuer,
        audience=provider.audience,
        create_time=mapping.timestamp_of(provider.create_time),
    )


def _session_message(session: Session) -> session_pb2.Session:
    return session_pb2.Session(
        name=session.name,
        api_key=f"apiKeys/{session.key_id}",
        scopes=sorted(session.scopes),
        create_time=mapping.timestamp_of(session.create_time),
        expire_time=mapping.timestamp_of(session.expire_time),
    )


def _key_message(key: SigningKey) -> session_pb2.JsonWebKey:
    return session_pb2.JsonWebKey(kty="OKP", crv="Ed25519", x=key.x, kid=key.kid, use="sig", alg=ALGORITHM)
