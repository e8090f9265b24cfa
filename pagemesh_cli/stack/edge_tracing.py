"""Spans of the edge: where they go, and what is told of a request. docs/tracing.md describes them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pagemesh_cli.stack.errors import StackError

COLLECTOR = "collector"
_MILLION = 1_000_000
_ENDPOINT = re.compile(r"(https?)://([^/?#@\s]+):(\d{1,5})")
_TYPE = "type.googleapis.com/envoy."
_SAMPLERS = "envoy.tracers.opentelemetry.samplers"
# Envoy tells the whole address of a request with its query, the client's address and what it says of itself. A tag of
# the same name takes the place of each.
_TAGS = {
    "http.url": "%PATH(NQ)%",
    "peer.address": "-",
    "user_agent": "-",
    "downstream_cluster": "-",
    "pagemesh.tenant": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:tenant)%",
}


@dataclass(frozen=True)
class EdgeTracing:
    """Whom the edge tells its spans."""

    otlp_endpoint: str | None = None
    """`http://collector:4317`, or https; None: there are no spans."""
    otlp_ca_file: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    """Who may have signed the collector's certificate, as PEM."""
    trace_ratio: float = 1.0
    """How many of the traces that begin at the edge are recorded, 0 to 1. Of others, whoever began them decides."""

    @classmethod
    def of_environment(cls, environment: Mapping[str, str], prefix: str = "PAGEMESH_") -> "EdgeTracing":
        """Out of variables with that prefix; an empty one is none. Raises StackError."""
        given = {n: v for n in cls.__dataclass_fields__ if (v := environment.get(f"{prefix}{n.upper()}"))}
        try:
            ratio = float(given.get("trace_ratio", cls.trace_ratio))
        except ValueError:
            ratio = -1.0
        if not 0 <= ratio <= 1:
            raise StackError(f"{prefix}TRACE_RATIO is not a number from 0 to 1.")
        endpoint = given.get("otlp_endpoint")
        if endpoint is not None and not _ENDPOINT.fullmatch(endpoint):
            raise StackError(f"{prefix}OTLP_ENDPOINT is not of the form http://host:port or https://host:port.")
        return cls(endpoint, Path(given.get("otlp_ca_file", cls.otlp_ca_file)), ratio)

    def values(self) -> dict[str, object]:
        """What the templates have to be filled with."""
        match = _ENDPOINT.fullmatch(self.otlp_endpoint or "")
        if match is None:
            return {"TRACING": None, "COLLECTOR_ENDPOINTS": [], "COLLECTOR_TLS": None}
        scheme, host, port = match.groups()
        address = {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}
        return {
            "TRACING": self._tracing(),
            "COLLECTOR_ENDPOINTS": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            "COLLECTOR_TLS": self._tls(host) if scheme == "https" else None,
        }

    def _tracing(self) -> dict[str, object]:
        ratio = {"numerator": round(self.trace_ratio * _MILLION), "denominator": "MILLION"}
        by_ratio = _extension(
            f"{_SAMPLERS}.trace_id_ratio_based",
            "extensions.tracers.opentelemetry.samplers.v3.TraceIdRatioBasedSamplerConfig",
            sampling_percentage=ratio,
        )
        sampler = _extension(
            f"{_SAMPLERS}.parent_based",
            "extensions.tracers.opentelemetry.samplers.v3.ParentBasedSamplerConfig",
            wrapped_sampler=by_ratio,
        )
        provider = _extension(
            "envoy.tracers.opentelemetry",
            "config.trace.v3.OpenTelemetryConfig",
            grpc_service={"envoy_grpc": {"cluster_name": COLLECTOR}, "timeout": "3s"},
            service_name="edge",
            sampler=sampler,
        )
        return {
            "provider": provider,
            "spawn_upstream_span": True,
            "operation": "edge",
            "max_path_tag_length": 0,
            "custom_tags": [{"tag": tag, "value": value} for tag, value in _TAGS.items()],
        }

    def _tls(self, host: str) -> dict[str, object]:
        return _extension(
            "envoy.transport_sockets.tls",
            "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            sni=host,
            common_tls_context={
                "validation_context": {
                    "trusted_ca": {"filename": str(self.otlp_ca_file.absolute())},
                    "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": host}}],
                }
            },
        )


OFF = EdgeTracing()
"""No spans."""


def _extension(name: str, kind: str, **fields: object) -> dict[str, object]:
    return {"name": name, "typed_config": {"@type": _TYPE + kind, **fields}}
