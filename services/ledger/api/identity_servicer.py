"""pagemesh.ledger.v1.IdentityService."""

from typing import Any

import grpc

from pagemesh.ledger.v1 import identity_service_pb2 as pb
from pagemesh.ledger.v1.identity_service_pb2_grpc import IdentityServiceServicer
from services.ledger.api import mapping
from services.ledger.domain.identity import KeyRing

Context = grpc.aio.ServicerContext[Any, Any]


class IdentityServicer(IdentityServiceServicer):
    """Translates between the contract and the key ring."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.CreateApiKeyResponse:
        """Makes a key."""
        expires = mapping.time_of(request.expire_time, "expire_time") if request.HasField("expire_time") else None
        key, credential = await self._keys.create(
            mapping.caller(), request.display_name, frozenset(request.scopes), expires
        )
        return pb.CreateApiKeyResponse(api_key=mapping.key_message(key), secret=credential)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> pb.RevokeApiKeyResponse:
        """Ends a key."""
        key = await self._keys.revoke(mapping.caller(), mapping.key_id_of_name(request.name))
        return pb.RevokeApiKeyResponse(api_key=mapping.key_message(key))

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        """Says who calls."""
        caller = mapping.caller()
        return pb.WhoAmIResponse(tenant=f"tenants/{caller.tenant}", actor=caller.actor, scopes=sorted(caller.scopes))
