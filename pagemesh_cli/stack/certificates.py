"""The stack's own certificate authority and one certificate for each mesh identity.

    ca/ca.crt, ca/ca.key
    tls/<identity>/..data      → ..<serial>          (the only link that ever changes)
    tls/<identity>/tls.crt     → ..data/tls.crt      and so tls.key, ca.crt

A rotation writes a new directory and renames one link over `..data`, as Kubernetes does with mounted secrets: readers
see the old three files or the new three, never a mixture, and Envoy's `watched_directory` notices the rename.
"""

import datetime as dt
import ipaddress
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pagemesh_cli.stack.errors import StackError

IDENTITIES = ("edge", "extractor", "summarizer", "ledger", "operator")
TRUST_DOMAIN = "pagemesh.local"
CA_LIFETIME = dt.timedelta(days=3650)
LIFETIME = dt.timedelta(days=30)
# A leaf is renewed when a third of its life is left: two tries a day still leave 20 before it ends.
RENEW_BEFORE = LIFETIME / 3
_CLOCK_SKEW = dt.timedelta(minutes=5)
_CA_NAME = "Pagemesh development CA"
_FILES = ("tls.crt", "tls.key", "ca.crt")


@dataclass(frozen=True)
class CertificateAuthority:
    """A development CA below `directory`: `ca/` with its key, `tls/` with a folder for each identity."""

    directory: Path
    trust_domain: str = TRUST_DOMAIN

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca" / "ca.crt"

    def tls_dir(self, identity: str) -> Path:
        return self.directory / "tls" / identity

    def ensure(self, *, now: dt.datetime) -> list[str]:
        """Makes what is missing and renews what ends soon; answers the identities that got a new certificate."""
        self._ensure_ca(now)
        due = [identity for identity in IDENTITIES if self.remaining(identity, now=now) < RENEW_BEFORE]
        for identity in due:
            self.rotate(identity, now=now)
        return due

    def remaining(self, identity: str, *, now: dt.datetime) -> dt.timedelta:
        """How long the identity's certificate is still good; zero or less where it is not, is absent, or is of
        another CA.
        """
        folder = self.tls_dir(identity)
        if not all((folder / name).exists() for name in _FILES):
            return dt.timedelta(0)
        if (folder / "ca.crt").read_bytes() != self.ca_file.read_bytes():
            return dt.timedelta(0)
        return _read_certificate(folder / "tls.crt").not_valid_after_utc - now

    def ca_remaining(self, *, now: dt.datetime) -> dt.timedelta:
        return _read_certificate(self.ca_file).not_valid_after_utc - now

    def fits(self, identity: str) -> bool:
        """The key is the one that the certificate was made for. OSError or ValueError where either cannot be read."""
        folder = self.tls_dir(identity)
        key = serialization.load_pem_private_key((folder / "tls.key").read_bytes(), password=None)
        return key.public_key() == _read_certificate(folder / "tls.crt").public_key()

    def rotate(self, identity: str, *, now: dt.datetime) -> None:
        """Gives the identity a new key and certificate, while readers go on with the old ones."""
        if identity not in IDENTITIES:
            raise StackError(f"There is no mesh identity {identity!r}; there are {', '.join(IDENTITIES)}.")
        folder = self.tls_dir(identity)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key, certificate = self._issue(identity, now)
        version = folder / f"..{certificate.serial_number:x}"
        version.mkdir(mode=0o700)
        _write_private(version / "tls.key", _key_pem(key))
        (version / "tls.crt").write_bytes(_certificate_pem(certificate))
        shutil.copyfile(self.ca_file, version / "ca.crt")
        _point(folder / "..data", version.name)
        for name in _FILES:
            if not (folder / name).is_symlink():
                _point(folder / name, f"..data/{name}")
        _remove_old_versions(folder, keep=version.name)

    def _issue(self, identity: str, now: dt.datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        ca_key, ca_certificate = self._load_ca()
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier(f"spiffe://{self.trust_domain}/service/{identity}"),
                x509.DNSName(f"{identity}.{self.trust_domain}"),
                x509.DNSName("localhost"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                x509.IPAddress(ipaddress.ip_address("::1")),
            ]
        )
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = (
            _builder(identity, key, now, LIFETIME)
            .issuer_name(ca_certificate.subject)
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(_authority_of(ca_certificate), critical=False)
        )
        return key, builder.sign(ca_key, hashes.SHA256())

    def _ensure_ca(self, now: dt.datetime) -> None:
        if self.ca_file.exists():
            return
        (self.directory / "ca").mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_CA_NAME, key, now, CA_LIFETIME)
            .issuer_name(_name(_CA_NAME))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        _write_private(self.directory / "ca" / "ca.key", _key_pem(key))
        # Last, and whole: its presence says that the CA is complete.
        partial = self.ca_file.with_suffix(".new")
        partial.write_bytes(_certificate_pem(builder.sign(key, hashes.SHA256())))
        partial.replace(self.ca_file)

    def _load_ca(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = serialization.load_pem_private_key((self.directory / "ca" / "ca.key").read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise StackError(f"{self.directory / 'ca' / 'ca.key'} is not the key that pagemesh made.")
        return key, _read_certificate(self.ca_file)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    common_name: str, key: ec.EllipticCurvePrivateKey, now: dt.datetime, lifetime: dt.timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_of(ca_certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject = ca_certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject.value)


def _read_certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def _point(link: Path, target: str) -> None:
    """Makes `link` lead to `target` in one step, whatever it led to before."""
    fresh = link.with_name(f"{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _remove_old_versions(folder: Path, *, keep: str) -> None:
    # The one before stays: a reader may have resolved the link just now and be about to open the files behind it.
    versions = sorted(
        (path for path in folder.glob("..*") if path.is_dir() and not path.is_symlink()),
        key=lambda path: path.stat().st_mtime_ns,
        reverse=True,
    )
    for path in versions[2:]:
        if path.name != keep:
            shutil.rmtree(path)
