"""--sign and --no-provenance: how outputs are marked."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from unit.cli.arguments import path
from unit.errors import ConfigError

if TYPE_CHECKING:
    from unit.translation.provenance.content_credentials import Signer


def add_provenance_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --sign and --no-provenance."""
    sign_help = (
        "sign outputs with Content Credentials (pip install c2pa-python), by a certificate and its key in PEM, or, "
        "without them, by a certificate that is made on first use and kept for you; give it last"
    )
    parser.add_argument("--sign", nargs="*", type=path, metavar=("CERT", "KEY"), help=sign_help)
    none_help = "don't say in the outputs that they were translated (docs/provenance.md)"
    parser.add_argument("--no-provenance", action="store_true", help=none_help)


def signer_of(arguments: argparse.Namespace) -> Signer | None:
    """Return what --sign asks for.

    Raises:
        ConfigError: the package is missing, or the certificate can't be used.
    """
    if arguments.sign is None:
        return None
    if arguments.no_provenance:
        raise ConfigError("--sign and --no-provenance: one says what the other leaves out; give one of them")
    if len(arguments.sign) not in (0, 2):
        raise ConfigError("--sign: takes a certificate and its key, or neither; give all else before it")
    from unit.translation.provenance.certificates import load_credential, own_credential
    from unit.translation.provenance.content_credentials import Signer, import_c2pa

    import_c2pa()  # before a certificate is made
    return Signer(load_credential(*arguments.sign) if arguments.sign else own_credential())
