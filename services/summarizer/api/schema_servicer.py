"""SchemaService: requests in, use case, answers out."""

from typing import Any

import grpc

from pagemesh.summarizer.v1 import schema_service_pb2 as pb
from pagemesh.summarizer.v1 import schema_service_pb2_grpc
from services.runtime.call import current_identity
from services.summarizer.api.fields_mapping import from_stored, to_schema
from services.summarizer.domain.schema_book import SchemaBook

_Context = grpc.aio.ServicerContext[Any, Any]


class SchemaServicer(schema_service_pb2_grpc.SchemaServiceServicer):
    """Translates; decides nothing."""

    def __init__(self, book: SchemaBook) -> None:
        self._book = book

    async def CreateSchema(self, request: pb.CreateSchemaRequest, context: "_Context") -> pb.CreateSchemaResponse:
        """Keeps a schema."""
        content = to_schema(request.json_schema)
        schema, created = await self._book.create(current_identity().tenant, request.schema_id, content)
        return pb.CreateSchemaResponse(schema=from_stored(schema), created=created)

    async def GetSchema(self, request: pb.GetSchemaRequest, context: "_Context") -> pb.GetSchemaResponse:
        """A version, or the latest."""
        return pb.GetSchemaResponse(schema=from_stored(await self._book.get(current_identity().tenant, request.name)))

    async def ListSchemas(self, request: pb.ListSchemasRequest, context: "_Context") -> pb.ListSchemasResponse:
        """One part of the list."""
        found, token = await self._book.list(
            current_identity().tenant,
            versions_of=request.versions_of,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListSchemasResponse(schemas=[from_stored(schema) for schema in found], next_page_token=token)

    async def DeleteSchema(self, request: pb.DeleteSchemaRequest, context: "_Context") -> pb.DeleteSchemaResponse:
        """Deletes a schema with all its versions."""
        count = await self._book.delete(current_identity().tenant, request.name)
        return pb.DeleteSchemaResponse(versions_deleted=count)
