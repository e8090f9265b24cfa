"""Every text of every request of the ledger, with what breaks statements that are put together by hand."""

from typing import Any

import grpc
import protovalidate
import psycopg
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from pagemesh.common.v1 import access_pb2
from pagemesh.ledger.v1 import (
    audit_service_pb2,
    credential_service_pb2,
    identity_service_pb2,
    ledger_service_pb2,
    operator_service_pb2,
)
from tests.integration.ledger.conftest import Admit, Connect, LedgerProcess
from tests.integration.ledger.filled import fill, replaced, texts

INJECTIONS = ("'; DROP TABLE ledger.holds CASCADE; --", "' OR '1'='1' $$ %s %(tenant)s {usage} \\")
METHODS = [
    method
    for file in (
        ledger_service_pb2,
        identity_service_pb2,
        audit_service_pb2,
        credential_service_pb2,
        operator_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
BROKEN = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED}
_ROWS = (
    "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'ledger'::regnamespace), count(*) FROM ledger.tenants"
)


def caller_of(method: MethodDescriptor) -> str:
    """Which peer calls it."""
    access = method.GetOptions().Extensions[access_pb2.access]
    return "edge" if access.scope or access.any_scope else next(iter(sorted(access.internal_callers)), "edge")


async def outcome(channel: grpc.aio.Channel, method: MethodDescriptor, request: Any, metadata: Any) -> grpc.StatusCode:
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    call: Any = kind(
        path,
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )(request, metadata=metadata, timeout=20)
    try:
        if method.server_streaming:
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as exc:
        return exc.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_texts_are_data_or_refused(
    method: MethodDescriptor, service: LedgerProcess, connect: Connect, admit: Admit, whole_ledger: str
) -> None:
    tenant = await admit()
    peer = connect(service, caller_of(method), tenant.name, actor=tenant.api_key)
    request = GetMessageClass(method.input_type)()
    fill(request)
    with psycopg.connect(whole_ledger) as database:
        before = database.execute(_ROWS.encode()).fetchone()
        for path, _, _ in list(texts(request)):
            for text in INJECTIONS:
                hostile = replaced(request, path, text)
                assert await outcome(peer.channel, method, hostile, peer.metadata) not in BROKEN, (path, text)
        database.rollback()
        after = database.execute(_ROWS.encode()).fetchone()
    assert before is not None
    assert after is not None
    assert after[0] == before[0]
    assert after[1] >= before[1]


def test_what_is_not_hostile_gets_past_the_contract() -> None:
    """Else the texts would not be tried where they could do harm."""
    refused = []
    for method in METHODS:
        request = GetMessageClass(method.input_type)()
        fill(request)
        try:
            protovalidate.validate(request)
        except protovalidate.ValidationError as exc:
            refused.append((method.name, str(exc.to_proto().violations)[:300]))
    assert not refused
