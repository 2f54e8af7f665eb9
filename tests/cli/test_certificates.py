"""Certificates: real handshakes both ways, private files, nothing replaced by accident."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from he_infer.cli import certificates
from he_infer.cli.certificates import Issued, issue_client, issue_server, make_authority
from he_infer.cli.main import main
from he_infer.errors import KeyFileError, ParameterError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An authority with a server for loopback and a client called alice."""
    made = tmp_path / "pki"
    make_authority(made)
    issue_server(made, ["localhost", "127.0.0.1", "::1"])
    issue_client(made, "alice")
    return made


def certificate_of(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def server_context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def client_context(authority: Path, own: Issued | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if own is not None:
        context.load_cert_chain(own.certificate, own.private_key)
    return context


def converse(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[str, str]:
    """One exchange over loopback: what the server calls its peer, and what the client read.

    Raises the error of the side that refused the other.
    """
    peers: list[str] = []
    refusals: list[OSError] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            raw, _ = listener.accept()
            try:
                with raw, server.wrap_socket(raw, server_side=True) as connection:
                    found = connection.getpeercert(binary_form=True)
                    assert found is not None
                    peer = x509.load_der_x509_certificate(found).subject
                    common = peer.get_attributes_for_oid(NameOID.COMMON_NAME)
                    peers.append(str(common[0].value))
                    connection.sendall(connection.recv(5))
            except OSError as error:  # ssl.SSLError is one
                refusals.append(error)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=60) as raw,
                client.wrap_socket(raw, server_hostname=name) as connection,
            ):
                connection.sendall(b"hello")
                heard = connection.recv(5).decode()
        except ssl.SSLCertVerificationError:
            raise
        except OSError:
            thread.join(timeout=60)
            raise refusals[0] from None
        finally:
            thread.join(timeout=60)
    return peers[0], heard


def issued(folder: Path, stem: str) -> Issued:
    return Issued(certificate=folder / f"{stem}.pem", private_key=folder / f"{stem}.key")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_both_sides_prove_who_they_are(folder: Path, name: str) -> None:
    client = client_context(folder, issued(folder, "alice"))
    assert converse(server_context(folder), client, name) == ("alice", "hello")


def test_a_client_of_another_authority_is_refused(folder: Path, tmp_path: Path) -> None:
    make_authority(tmp_path / "other")
    mallory = issue_client(tmp_path / "other", "alice")  # the same name does not help
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        converse(server_context(folder), client_context(folder, mallory), "localhost")


@pytest.mark.parametrize(("own", "reason"), [(None, "did not return"), ("server", "purpose")])
def test_a_client_without_its_own_certificate_is_refused(
    folder: Path, own: str | None, reason: str
) -> None:
    client = client_context(folder, None if own is None else issued(folder, own))
    with pytest.raises(ssl.SSLError, match=reason):
        converse(server_context(folder), client, "localhost")


def test_a_client_certificate_is_no_server_certificate(folder: Path) -> None:
    server = server_context(folder)
    server.load_cert_chain(folder / "alice.pem", folder / "alice.key")
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        converse(server, client_context(folder, issued(folder, "alice")), "localhost")


def test_a_server_of_another_name_or_authority_is_refused(folder: Path, tmp_path: Path) -> None:
    alice = issued(folder, "alice")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        converse(server_context(folder), client_context(folder, alice), "example.org")
    make_authority(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        converse(server_context(folder), client_context(tmp_path / "other", alice), "localhost")


def test_extensions_say_what_each_certificate_is_for(folder: Path) -> None:
    root, server, alice = (certificate_of(folder / f"{s}.pem") for s in ("ca", "server", "alice"))
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value == x509.BasicConstraints(True, 0)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.key_cert_sign and not usage.value.digital_signature
    own = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    purposes = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    for leaf, purpose in zip((server, alice), purposes, strict=True):
        leaf.verify_directly_issued_by(root)
        extensions = leaf.extensions
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        leaf_usage = extensions.get_extension_for_class(x509.KeyUsage).value
        assert leaf_usage.digital_signature and not leaf_usage.key_cert_sign
        assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
        above = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert above.key_identifier == own
        below = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        assert below == x509.SubjectKeyIdentifier.from_public_key(leaf.public_key())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    addresses = names.get_values_for_type(x509.IPAddress)
    assert [str(address) for address in addresses] == ["127.0.0.1", "::1"]
    common = alice.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [c.value for c in common] == ["alice"]
    chain = x509.load_pem_x509_certificates((folder / "server.pem").read_bytes())
    assert chain == [server, root]


def test_days_are_kept_and_never_outlive_the_authority(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    make_authority(folder, days=10)
    now = datetime.now(UTC)
    root = certificate_of(folder / "ca.pem")
    short = certificate_of(issue_client(folder, "short", days=2).certificate)
    assert abs(short.not_valid_after_utc - now - timedelta(days=2)) < timedelta(minutes=1)
    assert short.not_valid_before_utc <= now
    long = certificate_of(issue_client(folder, "long", days=397).certificate)
    assert long.not_valid_after_utc == root.not_valid_after_utc
    assert long.not_valid_before_utc >= root.not_valid_before_utc


@pytest.mark.parametrize("days", [0, -1, 36_501])
def test_impossible_days_are_refused_and_leave_nothing(
    folder: Path, tmp_path: Path, days: int
) -> None:
    with pytest.raises(ParameterError, match=f"got {days}"):
        make_authority(tmp_path / "new", days=days)
    with pytest.raises(ParameterError, match=f"got {days}"):
        issue_server(folder, ["localhost"], days=days, overwrite=True)
    with pytest.raises(ParameterError, match=f"got {days}"):
        issue_client(folder, "bob", days=days)
    assert not (tmp_path / "new").exists() and not (folder / "bob.pem").exists()


def test_files_are_private(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    expected = {f"{stem}.{end}" for stem in ("ca", "server", "alice") for end in ("pem", "key")}
    assert set(os.listdir(folder)) == expected  # no temporary file is left
    assert all(stat.S_IMODE((folder / name).stat().st_mode) == 0o600 for name in expected)
    before = os.umask(0)
    try:
        issue_client(folder, "bob")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "bob.key").stat().st_mode) == 0o600


def test_an_exposed_folder_or_key_is_refused(folder: Path, tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o755)
    with pytest.raises(KeyFileError, match="chmod 700"):
        make_authority(loose)
    (folder / "ca.key").chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        issue_client(folder, "bob")


def test_nothing_is_replaced_unless_asked(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(KeyFileError, match=r"ca\.pem exists"):
        make_authority(folder)
    with pytest.raises(KeyFileError, match=r"server\.pem exists"):
        issue_server(folder, ["localhost"])
    with pytest.raises(KeyFileError, match=r"alice\.pem exists"):
        issue_client(folder, "alice")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "alice.pem").unlink()  # half of a pair counts
    with pytest.raises(KeyFileError, match=r"alice\.key exists"):
        issue_client(folder, "alice")
    issue_client(folder, "alice", overwrite=True)
    assert (folder / "alice.key").read_bytes() != before["alice.key"]
    client = client_context(folder, issued(folder, "alice"))
    assert converse(server_context(folder), client, "localhost")[0] == "alice"


@pytest.mark.parametrize("tenant", ["", ".a", "../a", "a/b", "a b", "ä", "a\n", "x" * 101])
def test_odd_tenants_are_refused(folder: Path, tenant: str) -> None:
    with pytest.raises(ParameterError, match="expected a tenant's name"):
        issue_client(folder, tenant)


def test_tenants_that_no_certificate_can_name_are_refused(folder: Path) -> None:
    with pytest.raises(ParameterError, match="at most 64 characters"):
        issue_client(folder, "x" * 65)
    assert issue_client(folder, "x" * 64).certificate.exists()
    for tenant in ("ca", "server", "CA"):
        with pytest.raises(ParameterError, match="another purpose"):
            issue_client(folder, tenant, overwrite=True)


@pytest.mark.parametrize(
    "name", ["", "https://a", "a:443", "300.1.1.1", "bücher.example", "a..b", "-a", "a" * 64]
)
def test_odd_server_names_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(ParameterError, match="expected"):
        issue_server(folder, [name], overwrite=True)


@pytest.mark.parametrize("names", [[], "localhost"])
def test_a_server_needs_a_list_of_names(folder: Path, names: Sequence[str]) -> None:
    with pytest.raises(ParameterError, match="at least one DNS name"):
        issue_server(folder, names, overwrite=True)


def test_an_unusable_authority_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="make one first"):
        issue_client(tmp_path / "absent", "bob")
    make_authority(tmp_path / "other")
    (folder / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(KeyFileError, match="not the key"):
        issue_client(folder, "bob")
    (folder / "ca.key").write_bytes(b"nonsense")
    with pytest.raises(KeyFileError, match="damaged"):
        issue_client(folder, "bob")
    (folder / "ca.key").unlink()
    os.mkfifo(folder / "ca.key", 0o600)
    with pytest.raises(KeyFileError, match="regular file"):
        issue_client(folder, "bob")


def test_an_expired_authority_signs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> Later:
            return cls(2999, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(certificates, "datetime", Later)
    with pytest.raises(KeyFileError, match="expired"):
        issue_client(folder, "bob")


def test_replacing_a_certificate_keeps_the_authority(tmp_path: Path) -> None:
    folder = tmp_path / "pki"

    def made(*words: str) -> dict[str, bytes]:
        assert main(["certs", str(folder), *words]) == 0
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = made("--server", "127.0.0.1", "--client", "acme")
    again = made("--client", "acme", "--overwrite")
    changed = {name for name in first if first[name] != again[name]}
    assert changed == {"acme.pem", "acme.key"}
    other = made("--new-authority", "--client", "acme", "--overwrite")
    assert {"ca.pem", "ca.key"} <= {name for name in first if again[name] != other[name]}
