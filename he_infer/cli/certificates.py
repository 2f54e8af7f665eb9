"""A certificate authority for development and closed networks: servers and clients of one folder.

    folder/ca.pem  ca.key          the authority; whoever has ca.key is the authority
           server.pem  server.key  for ``he-infer serve --certificate … --private-key …``
           alice.pem  alice.key    for the client of the tenant alice

ECDSA on P-256. Keys lie unencrypted, with mode 0600 in a folder with mode 0700. There is no
revocation: a certificate ends with its days, and a leak of ca.key ends everything that it signed.
Where a public name has to be proved to strangers, take a public authority for the server and use
this one for the clients alone.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from he_infer.errors import KeyFileError, ParameterError
from he_infer.keys.private_file import read_file, write_private
from he_infer.wire.protocol import NAME

AUTHORITY_DAYS: Final = 3650
LEAF_DAYS: Final = 397
MAX_DAYS: Final = 36_500
MAX_COMMON_NAME: Final = 64  # X.520's upper bound; longer ones are no certificate
_RESERVED: Final = ("ca", "server")
_MAX_FILE_BYTES: Final = 64 * 1024
_CLOCK_SKEW: Final = timedelta(minutes=5)
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """Two PEM files: a certificate, for a server with its chain, and its private key."""

    certificate: Path
    private_key: Path


def _paths_of(folder: Path, stem: str) -> Issued:
    """``<stem>.pem`` and ``<stem>.key`` in a folder."""
    return Issued(certificate=folder / f"{stem}.pem", private_key=folder / f"{stem}.key")


def make_authority(folder: Path, *, days: int = AUTHORITY_DAYS, overwrite: bool = False) -> Issued:
    """Write ``ca.pem`` and ``ca.key``; the folder is made with mode 0700 if it does not exist.

    Raises KeyFileError if they exist and ``overwrite`` is false, or others can enter the folder;
    ParameterError for impossible days.
    """
    issued = _paths_of(folder, "ca")
    lifetime = _lifetime(days)
    _prepare(folder, issued, overwrite=overwrite)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "he-infer"),
            # Two authorities must not share a name: verifiers look issuers up by it.
            x509.NameAttribute(NameOID.COMMON_NAME, f"he-infer authority {os.urandom(4).hex()}"),
        ]
    )
    now = datetime.now(UTC)
    certificate = (
        _builder(name, name, key.public_key(), usage=_key_usage(authority=True))
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    _save(issued, key, [certificate], overwrite=overwrite)
    return issued


def issue_server(
    folder: Path, names: Sequence[str], *, days: int = LEAF_DAYS, overwrite: bool = False
) -> Issued:
    """Write ``server.pem`` (with the authority's certificate after it) and ``server.key``.

    ``names``: what clients call the server, DNS names or IP addresses, each without a port. A
    certificate never outlives the authority. Raises ParameterError for names or days that make
    no sense; KeyFileError if the files exist or the authority cannot be used.
    """
    if isinstance(names, str) or not names:
        raise ParameterError(
            "expected a list with at least one DNS name or IP address of the server, got "
            f"{names!r}: give the names that clients connect to"
        )
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    return _issue(
        folder,
        "server",
        common_name="he-infer server",
        usage=ExtendedKeyUsageOID.SERVER_AUTH,
        alternatives=alternatives,
        lifetime=_lifetime(days),
        overwrite=overwrite,
    )


def issue_client(
    folder: Path, tenant: str, *, days: int = LEAF_DAYS, overwrite: bool = False
) -> Issued:
    """Write ``<tenant>.pem`` and ``<tenant>.key``, a client certificate with CN = ``tenant``.

    A certificate never outlives the authority. Raises ParameterError for a name or days that
    make no sense; KeyFileError if the files exist or the authority cannot be used.
    """
    _check_tenant(tenant)
    return _issue(
        folder,
        tenant,
        common_name=tenant,
        usage=ExtendedKeyUsageOID.CLIENT_AUTH,
        alternatives=None,
        lifetime=_lifetime(days),
        overwrite=overwrite,
    )


def _issue(
    folder: Path,
    stem: str,
    *,
    common_name: str,
    usage: x509.ObjectIdentifier,
    alternatives: x509.SubjectAlternativeName | None,
    lifetime: timedelta,
    overwrite: bool,
) -> Issued:
    root, signer = _load_authority(folder)
    issued = _paths_of(folder, stem)
    _prepare(folder, issued, overwrite=overwrite)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    own_id = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _builder(subject, root.subject, key.public_key(), usage=_key_usage(authority=False))
        .not_valid_before(max(now - _CLOCK_SKEW, root.not_valid_before_utc))
        .not_valid_after(min(now + lifetime, root.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id), critical=False
        )
    )
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    chain = [certificate] if alternatives is None else [certificate, root]
    _save(issued, key, chain, overwrite=overwrite)
    return issued


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, usage: x509.KeyUsage
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _load_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The authority of a folder; raises KeyFileError if it is absent, exposed or expired."""
    paths = _paths_of(folder, "ca")
    try:
        certificate = x509.load_pem_x509_certificate(_read(paths.certificate, private=False))
        key = serialization.load_pem_private_key(_read(paths.private_key, private=True), None)
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except FileNotFoundError as error:
        raise KeyFileError(
            f"expected an authority (ca.pem and ca.key) in {folder}, found none: make one first"
        ) from error
    except OSError as error:
        raise KeyFileError(f"cannot read the authority in {folder}: {error.strerror}") from error
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise KeyFileError(
            f"expected ca.pem and ca.key as they were made, those in {folder} are damaged or "
            "others: restore a backup or make a new authority"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or (
        key.public_key() != certificate.public_key()
    ):
        raise KeyFileError(
            f"ca.key in {folder} is not the key of ca.pem: restore both from one backup"
        )
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise KeyFileError(
            f"the authority in {folder} expired on {certificate.not_valid_after_utc:%Y-%m-%d}: "
            "make a new one and issue its certificates anew"
        )
    return certificate, key


def _prepare(folder: Path, issued: Issued, *, overwrite: bool) -> None:
    """Make the folder; refuse one that others can enter, or files that are there already."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        raise KeyFileError(f"cannot use the folder {folder}: {error.strerror}") from error
    if os.name == "posix" and mode & 0o077:
        raise KeyFileError(
            f"expected a folder that only its owner can enter (mode 0700), {folder} has "
            f"{mode:04o}: run chmod 700 on it, or name a new one"
        )
    for path in (issued.certificate, issued.private_key):
        if path.exists() and not overwrite:
            raise KeyFileError(f"{path.name} exists: choose another name or ask to overwrite it")


def _save(
    issued: Issued,
    key: ec.EllipticCurvePrivateKey,
    chain: Sequence[x509.Certificate],
    *,
    overwrite: bool,
) -> None:
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    public = b"".join(certificate.public_bytes(encoding) for certificate in chain)
    write_private(issued.private_key, secret, overwrite=overwrite)
    write_private(issued.certificate, public, overwrite=overwrite)


def _read(path: Path, *, private: bool) -> bytes:
    return read_file(path, most_bytes=_MAX_FILE_BYTES, private=private)


def _lifetime(days: int) -> timedelta:
    if not 1 <= days <= MAX_DAYS:
        raise ParameterError(
            f"expected a certificate to last 1 to {MAX_DAYS} days, got {days}: choose fewer or more"
        )
    return timedelta(days=days)


def _check_tenant(tenant: str) -> None:
    if NAME.fullmatch(tenant) is None:
        raise ParameterError(
            "expected a tenant's name of 1 to 100 letters, digits, '.', '_' or '-' that starts "
            f"with a letter or digit, got {tenant[:120]!r}: choose such a name"
        )
    if len(tenant) > MAX_COMMON_NAME:
        raise ParameterError(
            f"expected at most {MAX_COMMON_NAME} characters, which is what a certificate's common "
            f"name holds, got {len(tenant)}: choose a shorter name"
        )
    if tenant.lower() in _RESERVED:
        raise ParameterError(
            f"a tenant cannot be called {tenant!r}, because {tenant.lower()}.pem has another "
            "purpose: choose another name"
        )


def _general_name(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    if len(name) > 253 or _DNS_NAME.fullmatch(name) is None:
        raise ParameterError(
            f"expected a DNS name or an IP address without scheme and port, got {name[:260]!r}: "
            "write international names in their xn-- form"
        )
    # All digits and dots is an address with a mistake, never a name.
    if re.fullmatch(r"[0-9.]+", name):
        raise ParameterError(f"expected an IP address, got {name!r}: write it as 192.0.2.1")
    return x509.DNSName(name)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    names = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    others = dict.fromkeys((*names, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **others
    )
