"""Certificates: what is in them, that TLS accepts them, and that a swap is seen whole."""

import datetime as dt
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from pagemesh_cli.stack.certificates import IDENTITIES, LIFETIME, RENEW_BEFORE, CertificateAuthority
from pagemesh_cli.stack.diagnosis import Finding, Grade, look_at_certificates
from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.layout import DataDir

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    made = CertificateAuthority(tmp_path / "pki")
    made.ensure(now=NOW)
    return made


def leaf(authority: CertificateAuthority, identity: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((authority.tls_dir(identity) / "tls.crt").read_bytes())


@pytest.mark.parametrize("identity", IDENTITIES)
def test_names(authority: CertificateAuthority, identity: str) -> None:
    names = leaf(authority, identity).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://pagemesh.local/service/{identity}"]
    assert names.get_values_for_type(x509.DNSName) == [f"{identity}.pagemesh.local", "localhost"]


def test_keys_are_private_and_certificates_verify(authority: CertificateAuthority) -> None:
    for key in [authority.directory / "ca" / "ca.key", *authority.directory.glob("tls/*/tls.key")]:
        assert key.stat().st_mode & 0o777 == 0o600
    for identity in IDENTITIES:
        folder = authority.tls_dir(identity)
        ssl.create_default_context(cafile=folder / "ca.crt").load_cert_chain(folder / "tls.crt", folder / "tls.key")
        leaf(authority, identity).verify_directly_issued_by(
            x509.load_pem_x509_certificate(authority.ca_file.read_bytes())
        )


def test_openssl_accepts_the_chain(authority: CertificateAuthority) -> None:
    leaf_file = str(authority.tls_dir("edge") / "tls.crt")
    at = str(int(NOW.timestamp()))
    command = ["openssl", "verify", "-x509_strict", "-attime", at, "-CAfile", str(authority.ca_file), leaf_file]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert result.returncode == 0, result.stderr


def test_nothing_is_made_twice_and_what_ends_soon_is_renewed(authority: CertificateAuthority) -> None:
    assert authority.ensure(now=NOW) == []
    late = NOW + LIFETIME - RENEW_BEFORE + dt.timedelta(seconds=1)
    before = leaf(authority, "ledger").serial_number
    assert authority.ensure(now=late) == list(IDENTITIES)
    assert leaf(authority, "ledger").serial_number != before
    assert authority.remaining("ledger", now=late) == LIFETIME


def test_a_new_ca_makes_every_certificate_new(authority: CertificateAuthority) -> None:
    for file in (authority.directory / "ca").iterdir():
        file.unlink()
    assert authority.ensure(now=NOW) == list(IDENTITIES)


def test_a_rotation_changes_one_link_only(authority: CertificateAuthority) -> None:
    folder = authority.tls_dir("edge")
    links = {name: (folder / name).lstat().st_ino for name in ("tls.crt", "tls.key", "ca.crt")}
    target = (folder / "..data").readlink()
    old_files = folder / target
    authority.rotate("edge", now=NOW)
    assert {name: (folder / name).lstat().st_ino for name in links} == links
    assert (folder / "..data").readlink() != target
    assert (old_files / "tls.key").exists(), "a reader between the two must find the old files"
    ssl.create_default_context().load_cert_chain(folder / "tls.crt", folder / "tls.key")


def test_doctor_finds_a_key_that_is_not_its_certificates(authority: CertificateAuthority, tmp_path: Path) -> None:
    def keys() -> Finding:
        return next(item for item in look_at_certificates(DataDir(tmp_path), NOW) if item.what == "keys")

    assert keys().grade is Grade.OK
    for identity, content in {
        "ledger": (authority.tls_dir("edge") / "tls.key").read_bytes(),
        "extractor": b"no key at all",
    }.items():
        (authority.tls_dir(identity) / "tls.key").write_bytes(content)
    assert keys().grade is Grade.FAIL
    assert keys().found == "not that of the certificate: extractor, ledger"


def test_old_versions_do_not_pile_up(authority: CertificateAuthority) -> None:
    for _ in range(5):
        authority.rotate("edge", now=NOW)
    versions = [path for path in authority.tls_dir("edge").glob("..*") if path.is_dir() and not path.is_symlink()]
    assert len(versions) == 2


def test_only_known_identities(authority: CertificateAuthority) -> None:
    with pytest.raises(StackError, match="no mesh identity 'stranger'"):
        authority.rotate("stranger", now=NOW)
