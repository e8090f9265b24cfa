"""ModelPolicyService: requests in, use case, answers out."""

from collections.abc import Sequence
from typing import Any

import grpc

from pagemesh.summarizer.v1 import model_policy_pb2, model_policy_service_pb2_grpc
from pagemesh.summarizer.v1 import model_policy_service_pb2 as pb
from services.runtime.call import current_identity
from services.summarizer.domain.model_policy import ModelPolicy
from services.summarizer.domain.policy_book import FIELDS, PolicyBook

_NAME = "modelPolicy"
_Context = grpc.aio.ServicerContext[Any, Any]


class ModelPolicyServicer(model_policy_service_pb2_grpc.ModelPolicyServiceServicer):
    """Translates; decides nothing."""

    def __init__(self, book: PolicyBook) -> None:
        self._book = book

    async def GetModelPolicy(self, request: pb.GetModelPolicyRequest, context: "_Context") -> pb.GetModelPolicyResponse:
        """The policy."""
        return pb.GetModelPolicyResponse(model_policy=_message(await self._book.get(current_identity().tenant)))

    async def UpdateModelPolicy(
        self, request: pb.UpdateModelPolicyRequest, context: "_Context"
    ) -> pb.UpdateModelPolicyResponse:
        """The policy with its changes."""
        policy = await self._book.update(current_identity().tenant, _changes(request))
        return pb.UpdateModelPolicyResponse(model_policy=_message(policy))


def _changes(request: pb.UpdateModelPolicyRequest) -> dict[str, str | Sequence[str]]:
    """What the mask names, or what is set where there is no mask."""
    wanted = request.model_policy
    named = request.update_mask.paths or [field for field in FIELDS if getattr(wanted, field)]
    return {field: getattr(wanted, field) for field in named}


def _message(policy: ModelPolicy) -> model_policy_pb2.ModelPolicy:
    message = model_policy_pb2.ModelPolicy(
        name=_NAME,
        default_model=policy.default_model,
        fallback_models=policy.fallback_models,
        allowed_models=policy.allowed_models,
    )
    if policy.update_time is not None:
        message.update_time.FromDatetime(policy.update_time)
    return message
