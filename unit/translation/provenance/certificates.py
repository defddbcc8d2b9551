"""Certificates that sign Content Credentials, and the one that is made on first use."""

from __future__ import annotations

import datetime
import logging
import os
import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unit.errors import ConfigError, escape
from unit.files import read_file, wrap_os_errors
from unit.images import SOFTWARE

if TYPE_CHECKING:
    from cryptography import x509

log = logging.getLogger(__name__)

CERTIFICATE, KEY = "certificate.pem", "key.pem"
_YEARS = 10  # without a time stamp from elsewhere, a signature counts as long as its certificate does
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Credential:
    """What signs: a chain of certificates, the signer's first, and the signer's private key."""

    chain: bytes
    """PEM"""
    key: bytes
    """PEM, PKCS 8, not encrypted"""
    algorithm: str
    """C2PA's name of the signature algorithm that fits the key"""


def load_credential(certificate: Path, key: Path) -> Credential:
    """Read a chain of certificates and its private key, in PEM.

    Raises:
        ConfigError: one of them can't be read, they don't belong together, or C2PA accepts no such certificate.
    """
    x509, serialization = _import_cryptography()
    chain, key_pem = _read(certificate), _read(key)
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except ValueError:
        raise ConfigError(f"{escape(certificate)}: not a certificate in PEM; give CERT KEY after --sign") from None
    try:
        private = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError):  # TypeError: encrypted
        raise ConfigError(f"{escape(key)}: not a private key in PEM without a password") from None
    if private.public_key() != leaf.public_key():
        raise ConfigError(f"{escape(key)}: not the key of {escape(certificate)}")
    _require_accepted(leaf, certificate)
    return Credential(chain, _pem_of(private), _algorithm(private, key))


def own_credential() -> Credential:
    """Load this user's own credential; the first time, make it.

    Raises:
        ConfigError: it can't be used.
        UserError: it can't be written.
    """
    folder = config_folder() / "signing"
    if not folder.is_dir():
        _make(folder)
        log.info(
            "%s: made a certificate and its key, which sign from now on; others can't tell from it who you are",
            escape(folder),
        )
    key = folder / KEY
    if os.name == "posix" and key.is_file() and key.stat().st_mode & 0o077:
        raise ConfigError(f"{escape(key)}: others may read this private key; chmod 600 it, or remove {escape(folder)}")
    return load_credential(folder / CERTIFICATE, key)


def config_folder() -> Path:
    """Return the folder of this user's settings for this program.

    Raises:
        ConfigError: the system names none.
    """
    windows = sys.platform == "win32"
    variable, default = ("APPDATA", "~/AppData/Roaming") if windows else ("XDG_CONFIG_HOME", "~/.config")
    base = Path(os.environ.get(variable, ""))
    if not base.is_absolute():  # as the XDG specification asks
        base = Path(os.path.expanduser(default))  # noqa: PTH111 - which raises where there is no home
    if not base.is_absolute():
        raise ConfigError(f"--sign: no home directory to keep a certificate in; set {variable}, or give CERT KEY")
    return base / "unit-translation"


def _read(path: Path) -> bytes:
    try:
        return read_file(path, _MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{escape(path)}: can't be read ({error.strerror or error})") from None


def _require_accepted(leaf: x509.Certificate, path: Path) -> None:
    """Refuse what C2PA refuses, for the reasons that users meet; signing once finds the others."""
    from cryptography.x509.oid import NameOID

    if leaf.issuer == leaf.subject:
        raise ConfigError(f"{escape(path)}: self-signed, which C2PA doesn't accept; give one that a CA has signed")
    if not leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME):
        raise ConfigError(f"{escape(path)}: names no organization (O), which C2PA needs in a signer's certificate")
    now = datetime.datetime.now(datetime.UTC)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        between = f"{leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}"
        raise ConfigError(f"{escape(path)}: valid from {between} only; give another certificate")


def _algorithm(key: Any, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in curves:
        return curves[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    raise ConfigError(f"{escape(path)}: a kind of key that C2PA doesn't know; use ECDSA (P-256), Ed25519 or RSA")


def _pem_of(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def _make(folder: Path) -> None:
    """Write a new certificate, signed by a CA whose key is not kept, and its key, which the user alone may read.

    The folder appears with both; of two programs that make it at once, one wins.
    """
    chain, key = _new_chain()
    temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    with wrap_os_errors(folder):
        temporary.mkdir(parents=True, mode=0o700)
        try:
            for name, content in ((CERTIFICATE, chain), (KEY, key)):
                with os.fdopen(os.open(temporary / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(content)
            if not folder.is_dir():
                temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _new_chain() -> tuple[bytes, bytes]:
    """Return the PEM of a leaf and its CA, and of the leaf's key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import (
        AuthorityKeyIdentifier,
        BasicConstraints,
        ExtendedKeyUsage,
        SubjectKeyIdentifier,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, name = _name("self-made authority"), _name("self-made certificate")
    ca = _sign(
        _certificate(ca_name, ca_name, ca_key)
        .add_extension(BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False),
        ca_key,
    )
    leaf = _sign(
        _certificate(name, ca_name, key)
        .add_extension(BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature"), critical=True)
        .add_extension(ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)  # C2PA asks for one
        .add_extension(SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False),
        ca_key,
    )
    pem = serialization.Encoding.PEM
    return leaf.public_bytes(pem) + ca.public_bytes(pem), _pem_of(key)


def _name(common: str) -> x509.Name:
    """Return a name that tells nothing of the user."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"A user of {SOFTWARE}"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _certificate(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
    )


def _key_usage(*usages: str) -> x509.KeyUsage:
    from cryptography import x509

    names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
    names += " key_cert_sign crl_sign encipher_only decipher_only"
    return x509.KeyUsage(**{name: name in usages for name in names.split()})


def _sign(builder: x509.CertificateBuilder, key: Any) -> x509.Certificate:
    from cryptography.hazmat.primitives import hashes

    return builder.sign(key, hashes.SHA256())


def _import_cryptography() -> tuple[Any, Any]:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise ConfigError("the package cryptography is not installed; pip install c2pa-python") from None
    return x509, serialization
