"""Short questions to servers on this machine, none of which may keep the asker waiting."""

import http.client
import socket
import ssl
from pathlib import Path

from pagemesh_cli.stack.ports import LOOPBACK

OK = http.client.OK
TIMEOUT_S = 1.0
"""For connecting, and for each piece of an answer."""
# Envoy tells some 6 KB about each cluster.
_BODY_MAX_BYTES = 256 * 1024


def get(port: int, path: str) -> tuple[int, bytes]:
    """GET over plain HTTP: status and body. OSError where there is no such answer."""
    return _get(http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_S), path, f"port {port}")


def get_over_tls(port: int, path: str, *, ca_file: Path) -> tuple[int, bytes]:
    """The same over TLS, as a client would who trusts the CA and no other."""
    context = ssl.create_default_context(cafile=ca_file)
    connection = http.client.HTTPSConnection("localhost", port, timeout=TIMEOUT_S, context=context)
    return _get(connection, path, f"port {port}")


def get_over_socket(path: Path, target: str) -> tuple[int, bytes]:
    """The same over a unix socket."""
    return _get(_UnixConnection(path), target, str(path))


def answers_to(port: int, question: bytes) -> None:
    """Whoever listens must send something back, whatever it is. OSError where nothing comes."""
    with socket.create_connection((LOOPBACK, port), timeout=TIMEOUT_S) as connection:
        connection.sendall(question)
        if not connection.recv(1):
            raise OSError(f"port {port} hangs up without an answer")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _get(connection: http.client.HTTPConnection, path: str, where: str) -> tuple[int, bytes]:
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(_BODY_MAX_BYTES)
    except TimeoutError as error:
        raise OSError(f"{where} does not answer within {TIMEOUT_S:g} s") from error
    except http.client.HTTPException as error:
        raise OSError(f"{where} does not speak HTTP: {error!r}") from error
    finally:
        connection.close()
