"""Signed requests (RFC 9421) for keys that demand them: docs/sessions.md says what is signed."""

import base64
import binascii
import json
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import grpc

from pagemesh_cli.failures import ExitCode, Failure

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_KEY_ID = r"[0-9a-z]{16}"


class RequestSigner:
    """Signs with one Ed25519 key for one API key, each request with a nonce of its own."""

    def __init__(
        self, key: "Ed25519PrivateKey", key_name: str, *, clock: Callable[[], float] = time.time, nonce: str = ""
    ) -> None:
        self._key = key
        self._key_name = key_name
        self._clock = clock
        self._nonce = nonce

    def headers(self, method: str, authority: str, path: str, *, content_digest: str = "") -> dict[str, str]:
        """What a request carries besides its key; `path` is as it is sent, with its query."""
        bare, sign, query = path.partition("?")
        parts = {"@method": method, "@authority": authority.lower(), "@path": bare}
        if sign:
            parts["@query"] = f"?{query}"
        if content_digest:
            parts["content-digest"] = content_digest
        names = " ".join(f'"{name}"' for name in parts)
        nonce = self._nonce or secrets.token_urlsafe(24)
        params = f'({names});created={int(self._clock())};keyid="{self._key_name}";nonce="{nonce}";alg="ed25519"'
        lines = [f'"{name}": {value}' for name, value in parts.items()]
        signature = self._key.sign("\n".join([*lines, f'"@signature-params": {params}']).encode())
        told = {
            "signature-input": f"sig={params}",
            "signature": f"sig=:{base64.b64encode(signature).decode()}:",
        }
        return {**told, "content-digest": content_digest} if content_digest else told


class SignedCalls(grpc.AuthMetadataPlugin):
    """The key and a signature for each gRPC call."""

    def __init__(self, credential: str, signer: RequestSigner) -> None:
        self._credential = credential
        self._signer = signer

    def __call__(self, context: Any, callback: Any) -> None:
        """Told by gRPC of each call before it is sent."""
        url = urlsplit(context.service_url)
        path = f"{url.path}/{context.method_name.rpartition('/')[2]}"
        signed = self._signer.headers("POST", url.netloc, path)
        callback((("authorization", f"Bearer {self._credential}"), *signed.items()), None)


def load_signer(path: Path, credential: str) -> RequestSigner:
    """A signer with the private key in a file (PKCS #8, PEM). Raises Failure."""
    return RequestSigner(_load(path), _key_name(credential))


def public_key_of(path: Path) -> bytes:
    """The public key, 32 bytes, of the private one in a file. Raises Failure."""
    return _load(path).public_key().public_bytes_raw()


def _load(path: Path) -> "Ed25519PrivateKey":
    serialization, ed25519 = _cryptography()
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise Failure(f"Cannot read {path}: {error.strerror}.", ExitCode.USAGE, "BAD_SIGNING_KEY") from error
    except (ValueError, TypeError) as error:
        raise _no_key(path) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _no_key(path)
    return cast("Ed25519PrivateKey", key)


def new_key() -> tuple[bytes, bytes]:
    """A private key as PEM, and its public key, 32 bytes."""
    serialization, ed25519 = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, key.public_key().public_bytes_raw()


def _key_name(credential: str) -> str:
    """Of the API key that the credential is, or stands for."""
    match = re.fullmatch(rf"pm_({_KEY_ID})_.+", credential)
    if match is not None:
        return f"apiKeys/{match[1]}"
    try:
        part = credential.split(".")[1]
        subject = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["sub"]
    except (IndexError, binascii.Error, ValueError, KeyError, TypeError):
        subject = ""
    if not re.fullmatch(rf"apiKeys/{_KEY_ID}", str(subject)):
        raise Failure("Only requests of an API key or of its session are signed.", ExitCode.USAGE, "BAD_KEY")
    return str(subject)


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - not needed by most
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    except ImportError as error:
        raise Failure(
            "Signing needs the package cryptography.",
            ExitCode.FAILED,
            "NOT_INSTALLED",
            advice="Install pagemesh[signing].",
        ) from error
    return serialization, ed25519


def _no_key(path: Path) -> Failure:
    return Failure(
        f"{path} holds no Ed25519 private key without a password.",
        ExitCode.USAGE,
        "BAD_SIGNING_KEY",
        advice="`pagemesh keys demand-signatures` makes one.",
    )
