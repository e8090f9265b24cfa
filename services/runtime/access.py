"""Who may call a method, read from the `access` option of the contract."""

from dataclasses import dataclass

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from pagemesh.common.v1 import access_pb2
from services.runtime.call import Identity
from services.runtime.errors import PermissionDenied, Unauthenticated

EDGE = "edge"
_OPEN_TO_PEERS = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.reflection.v1.ServerReflection",
)
_EDGE_ONLY = ("envoy.service.auth.v3.Authorization",)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call one method. The default lets nobody in."""

    scope: str = ""
    any_scope: bool = False
    internal_callers: frozenset[str] = frozenset()
    infrastructure: bool = False
    """Health and reflection: any peer that may connect may call, for no tenant."""

    def check(self, peer: str, identity: Identity | None) -> None:
        """Raises PermissionDenied or Unauthenticated where the call may not go on."""
        if self.infrastructure or peer in self.internal_callers:
            return
        # Behind the edge stands a key; no other peer speaks for one.
        if peer != EDGE or not self._public:
            raise PermissionDenied("METHOD_NOT_ALLOWED", "This method is not for that caller.")
        if identity is None:
            raise Unauthenticated("NO_IDENTITY", "The call names no tenant. Call through the edge with an API key.")
        if not self.any_scope and self.scope not in identity.scopes:
            raise PermissionDenied(
                "SCOPE_MISSING",
                f"The key lacks the scope {self.scope}. Use a key that has it.",
                metadata={"scope": self.scope},
            )

    @property
    def _public(self) -> bool:
        return bool(self.scope) or self.any_scope


def of_method(path: str) -> Access:
    """The access of `/package.Service/Method`, out of the descriptors that are loaded."""
    service, _, method = path.removeprefix("/").partition("/")
    if service in _OPEN_TO_PEERS:
        return Access(infrastructure=True)
    if service in _EDGE_ONLY:
        return Access(internal_callers=frozenset({EDGE}))
    try:
        found = descriptor_pool.Default().FindServiceByName(service).methods_by_name.get(method)
    except KeyError:
        return Access()
    return Access() if found is None else of_descriptor(found)


def of_descriptor(method: MethodDescriptor) -> Access:
    """The access that a method's contract declares."""
    declared = method.GetOptions().Extensions[access_pb2.access]
    return Access(declared.scope, declared.any_scope, frozenset(declared.internal_callers))
