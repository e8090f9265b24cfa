"""mTLS out of a folder of PEM files that may be replaced at any time, and the mesh identities in its certificates."""

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Material:
    """PEM bytes of one identity."""

    certificate: bytes
    key: bytes
    authority: bytes


class TlsFolder:
    """tls.crt, tls.key and ca.crt; read again when one of them was replaced.

    Raises OSError (ssl.SSLError is one) where they are damaged or do not belong together.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stamp = self._look()
        self._check_pair()
        self.material = self._read()

    def refresh(self) -> bool:
        """Reads the files if they changed. A pair that does not fit (seen in mid-swap) waits for the next look."""
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return False
            self._check_pair()
            material = self._read()
            if self._look() != stamp:
                return False  # swapped while it was read: the next look sees all of it
        except OSError as exc:
            log.warning("certificate_not_readable", directory=str(self._directory), error=type(exc).__name__)
            return False
        self._stamp, self.material = stamp, material
        log.info("certificate_reloaded", directory=str(self._directory))
        return True

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials that ask for a client certificate and follow the files, from handshake to handshake."""

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            return self._server_configuration() if self.refresh() else None

        return grpc.dynamic_ssl_server_credentials(
            self._server_configuration(),
            fetch,  # type: ignore[arg-type]  # None keeps the old certificate; the stubs do not know it
            require_client_authentication=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Credentials of the files as they are now."""
        m = self.material
        return grpc.ssl_channel_credentials(
            root_certificates=m.authority, private_key=m.key, certificate_chain=m.certificate
        )

    def _server_configuration(self) -> grpc.ServerCertificateConfiguration:
        m = self.material
        return grpc.ssl_server_certificate_configuration([(m.key, m.certificate)], m.authority)

    def _paths(self) -> tuple[Path, Path, Path]:
        return self._directory / "tls.crt", self._directory / "tls.key", self._directory / "ca.crt"

    def _look(self) -> tuple[tuple[int, int], ...]:
        stats = [path.stat() for path in self._paths()]
        return tuple((s.st_ino, s.st_mtime_ns) for s in stats)

    def _check_pair(self) -> None:
        """Raises OSError (ssl.SSLError is one) where a file is damaged or the key is another certificate's."""
        certificate, key, authority = self._paths()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority)

    def _read(self) -> Material:
        certificate, key, authority = (path.read_bytes() for path in self._paths())
        return Material(certificate, key, authority)


def peer_name(auth_context: Mapping[str, Iterable[bytes]], trust_domain: str) -> str:
    """The mesh name in the peer's certificate: `edge` for spiffe://{trust_domain}/service/edge. Empty if none."""
    prefix = f"spiffe://{trust_domain}/service/"
    for uri in auth_context.get("peer_spiffe_id") or auth_context.get("peer_uri") or ():
        text = uri.decode("ascii", "replace")
        if text.startswith(prefix):
            return text[len(prefix) :]
    return ""
