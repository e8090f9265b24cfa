"""pagemesh.ledger.v1.BrowserSessionService."""

from typing import Any

import grpc

from pagemesh.ledger.v1 import browser_session_pb2
from pagemesh.ledger.v1 import browser_session_service_pb2 as pb
from pagemesh.ledger.v1.browser_session_service_pb2_grpc import BrowserSessionServiceServicer
from services.ledger.api import mapping
from services.ledger.domain.browser_sessions import COOKIE, BrowserSession, BrowserSessions

Context = grpc.aio.ServicerContext[Any, Any]

PROVIDER_HEADER = "x-pagemesh-provider"
"""How Check says whose identity provider's token a call is made with; the edge lets no client say so."""
_ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Strict"
CLEARED_COOKIE = f"{COOKIE}=; {_ATTRIBUTES}; Max-Age=0"
"""`Set-Cookie` that has a browser forget the session."""


class BrowserSessionServicer(BrowserSessionServiceServicer):
    """Translates between the contract and what signs browsers in. Cookies are response headers of the call, which the
    edge hands on as they are: the secret is in no message."""

    def __init__(self, sessions: BrowserSessions) -> None:
        self._sessions = sessions

    async def CreateBrowserSession(
        self, request: pb.CreateBrowserSessionRequest, context: Context
    ) -> pb.CreateBrowserSessionResponse:
        """Signs a browser in."""
        session, value = await self._sessions.sign_in(
            mapping.caller(),
            frozenset(request.scopes),
            within=mapping.session(context),
            provider=mapping.told(context, PROVIDER_HEADER),
        )
        lasts_s = int((session.expire_time - session.create_time).total_seconds())
        await context.send_initial_metadata(
            (("set-cookie", f"{COOKIE}={value}; {_ATTRIBUTES}; Max-Age={lasts_s}"), ("cache-control", "no-store"))
        )
        return pb.CreateBrowserSessionResponse(
            browser_session=_message(session), csrf_token=self._sessions.csrf_token(session)
        )

    async def GetCurrentBrowserSession(
        self, request: pb.GetCurrentBrowserSessionRequest, context: Context
    ) -> pb.GetCurrentBrowserSessionResponse:
        """Tells the session of the call."""
        session = await self._sessions.current(mapping.caller(), mapping.session(context))
        await context.send_initial_metadata((("cache-control", "no-store"),))
        return pb.GetCurrentBrowserSessionResponse(
            browser_session=_message(session), csrf_token=self._sessions.csrf_token(session)
        )

    async def ListBrowserSessions(
        self, request: pb.ListBrowserSessionsRequest, context: Context
    ) -> pb.ListBrowserSessionsResponse:
        """Lists sessions."""
        found, token = await self._sessions.list(mapping.caller(), request.page_size, request.page_token)
        return pb.ListBrowserSessionsResponse(
            browser_sessions=[_message(session) for session in found], next_page_token=token
        )

    async def DeleteBrowserSession(
        self, request: pb.DeleteBrowserSessionRequest, context: Context
    ) -> pb.DeleteBrowserSessionResponse:
        """Signs a browser out."""
        await self._sessions.sign_out(mapping.caller(), request.name.removeprefix("browserSessions/"))
        if request.name == mapping.session(context):
            await context.send_initial_metadata((("set-cookie", CLEARED_COOKIE),))
        return pb.DeleteBrowserSessionResponse()


def _message(session: BrowserSession) -> browser_session_pb2.BrowserSession:
    return browser_session_pb2.BrowserSession(
        name=session.name,
        actor=session.actor,
        scopes=sorted(session.scopes),
        create_time=mapping.timestamp_of(session.create_time),
        expire_time=mapping.timestamp_of(session.expire_time),
    )
