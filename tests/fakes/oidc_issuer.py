"""A real OpenID Connect issuer over HTTPS: discovery, keys that rotate, tokens, and misbehaviour on request."""

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey
_ALGORITHMS: dict[str, Any] = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}


def new_key(algorithm: str) -> PrivateKey:
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(65537, 2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return Ed25519PrivateKey.generate()


def jwk(key: PrivateKey, kid: str, algorithm: str) -> dict[str, Any]:
    """The public half, as a JWK set has it."""
    public: dict[str, Any] = _ALGORITHMS[algorithm].to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    return {**public, "kid": kid, "alg": algorithm, "use": "sig"}


@dataclass
class Signer:
    """Keys of an issuer, and what they sign."""

    issuer: str
    audience: str = "pagemesh-app"
    algorithm: str = "ES256"
    kid: str = "k1"
    key: PrivateKey = field(default_factory=lambda: new_key("ES256"))

    def rotate(self, algorithm: str = "ES256", kid: str = "") -> None:
        """Signs with another key from now on."""
        self.algorithm, self.key = algorithm, new_key(algorithm)
        self.kid = kid or f"k{int(self.kid[1:]) + 1}"

    def published(self) -> list[dict[str, Any]]:
        return [jwk(self.key, self.kid, self.algorithm)]

    def claims(self, email: str, now: float | None = None, /, **changes: Any) -> dict[str, Any]:
        """Those of an ID token; a change to None takes a claim away."""
        made = int(time.time() if now is None else now)
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": "user-1",
            "iat": made,
            "exp": made + 300,
            "email": email,
            "email_verified": True,
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(self, email: str, now: float | None = None, /, **changes: Any) -> str:
        claims = self.claims(email, now, **changes)
        return jwt.encode(claims, self.key, algorithm=self.algorithm, headers={"kid": self.kid})


class Issuer(ThreadingHTTPServer):
    """The server. `answers` overrides what a path says: (status, headers, body)."""

    daemon_threads = True

    def __init__(self, authority: trustme.CA) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://localhost:{self.server_address[1]}"
        self.signer = Signer(self.url)
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        signer = self.server.signer
        told: dict[str, Any] = {
            "/.well-known/openid-configuration": {"issuer": signer.issuer, "jwks_uri": f"{self.server.url}/keys"},
            "/keys": {"keys": signer.published()},
        }
        body = json.dumps(told.get(self.path, {})).encode()
        status, headers, body = self.server.answers.get(self.path, (200 if self.path in told else 404, {}, body))
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def running_issuer(directory: Path) -> Iterator[tuple[Issuer, Path]]:
    """The issuer and the file of the authority that signed its certificate."""
    authority = trustme.CA()
    ca_file = directory / "issuer-ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    issuer = Issuer(authority)
    thread = threading.Thread(target=issuer.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield issuer, ca_file
    finally:
        issuer.shutdown()
        thread.join()
        issuer.server_close()
