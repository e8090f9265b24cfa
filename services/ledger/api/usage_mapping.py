"""Between the contract's messages about usage and the domain's values."""

from datetime import datetime
from typing import Any

from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh.ledger.v1 import usage_group_pb2
from services.ledger.api.mapping import money, time_of, timestamp_of
from services.ledger.domain.usage_export import ExportFormat
from services.ledger.domain.usage_values import Dimension, Forecast, Grouping, UsageGroup
from services.ledger.domain.values import Selection

_DIMENSIONS = {
    usage_group_pb2.USAGE_DIMENSION_DAY: Dimension.DAY,
    usage_group_pb2.USAGE_DIMENSION_MODEL: Dimension.MODEL,
    usage_group_pb2.USAGE_DIMENSION_TAG: Dimension.TAG,
    usage_group_pb2.USAGE_DIMENSION_API_KEY: Dimension.API_KEY,
    usage_group_pb2.USAGE_DIMENSION_PROJECT: Dimension.PROJECT,
    usage_group_pb2.USAGE_DIMENSION_USER: Dimension.USER,
    usage_group_pb2.USAGE_DIMENSION_JOB: Dimension.JOB,
    usage_group_pb2.USAGE_DIMENSION_OPERATION: Dimension.OPERATION,
}


def selection_of(request: pb.QueryUsageRequest | pb.ExportUsageRequest, tenant: str) -> Selection:
    """Which records are asked for."""
    common = request.filter
    return Selection(
        tenant=tenant,
        start=time_of(request.start_time, "start_time") if request.HasField("start_time") else None,
        end=time_of(request.end_time, "end_time") if request.HasField("end_time") else None,
        request_id=request.request_id,
        document=request.document,
        model=common.model,
        project=common.project,
        actor=common.api_key,
        user=common.user,
        operation=common.operation,
        job=common.job,
        tag=(common.tag.key, common.tag.value),
    )


def grouping_of(request: pb.QueryUsageRequest) -> Grouping:
    """By what they are added up."""
    return Grouping(tuple(_DIMENSIONS[dimension] for dimension in request.group_by), request.group_tag, request.top)


def format_of(request: pb.ExportUsageRequest) -> ExportFormat:
    """How the file is written; CSV where nothing is said."""
    return ExportFormat.NDJSON if request.format == pb.ExportUsageRequest.FORMAT_NDJSON else ExportFormat.CSV


def group_message(group: UsageGroup, grouping: Grouping) -> usage_group_pb2.UsageGroup:
    """A group as callers see it."""
    fields: dict[str, Any] = {
        dimension.value: timestamp_of(value) if isinstance(value, datetime) else value
        for dimension, value in zip(grouping.by, group.values, strict=True)
    }
    return usage_group_pb2.UsageGroup(
        **fields,
        cost=money(group.cost_micros),
        records=group.records,
        input_tokens=group.input_tokens,
        output_tokens=group.output_tokens,
    )


def forecast_message(forecast: Forecast) -> pb.ForecastUsageResponse:
    """A forecast as callers see it."""
    message = pb.ForecastUsageResponse(
        month_start_time=timestamp_of(forecast.month),
        month_end_time=timestamp_of(forecast.month_end),
        spent=money(forecast.spent_micros),
        history_days=forecast.history_days,
        too_little_history=forecast.expected_micros is None,
    )
    for name, micros in (
        ("expected", forecast.expected_micros),
        ("low", forecast.low_micros),
        ("high", forecast.high_micros),
    ):
        if micros is not None:
            getattr(message, name).CopyFrom(money(micros))
    return message
