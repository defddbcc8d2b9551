"""Signing outputs with Content Credentials (C2PA), offline. It needs the extra ``provenance``."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, BinaryIO

from unit.errors import ConfigError, UserError, escape
from unit.files import replacing
from unit.images import SOFTWARE
from unit.translation.provenance.certificates import Credential
from unit.translation.provenance.marks import Provenance

_SIGNATURES = (
    (rb"\x89PNG", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"II[*+]\0|MM\0[*+]", "image/tiff"),
    (rb"GIF8", "image/gif"),
    (rb"....ftyp(avif|avis)", "image/avif"),
    (rb"....ftyp(hei|hev|mif1|msf1)", "image/heic"),
    (rb"....ftypqt", "video/quicktime"),
    (rb"....ftyp", "video/mp4"),
)
UNTRUSTED = "signingCredential.untrusted"
"""C2PA's code of a signer on no list of trusted ones, the only fault that a signature may have."""
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False},
}


def mime_type(file: BinaryIO) -> str | None:
    """Return the type of a file's content, whatever its name; None: no Content Credentials can be embedded."""
    file.seek(0)
    head = file.read(32)
    file.seek(0)
    return next((mime for signature, mime in _SIGNATURES if re.match(signature, head, re.DOTALL)), None)


def import_c2pa() -> Any:
    """Return the package c2pa.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import c2pa
    except ImportError:
        raise ConfigError("the package c2pa is not installed; pip install c2pa-python") from None
    return c2pa


def offline_context() -> Any:
    """Return settings for C2PA under which nothing is fetched and no thumbnail is made."""
    return import_c2pa().Context.from_dict(_SETTINGS)


class Signer:
    """Signs outputs; safe to use in several threads.

    Args:
        credential: of the signer.

    Raises:
        ConfigError: C2PA is not installed, or doesn't accept the credential.
    """

    def __init__(self, credential: Credential) -> None:
        c2pa = import_c2pa()
        self._context = offline_context()
        info = c2pa.C2paSignerInfo(credential.algorithm.encode(), credential.chain, credential.key, None)
        try:
            self._signer = c2pa.Signer.from_info(info)
            self._try()
        except (c2pa.C2paError, UserError) as error:
            raise ConfigError(f"C2PA doesn't accept the certificate for --sign: {error}") from None

    def sign(self, content: bytes, provenance: Provenance, source: BinaryIO, name: str) -> bytes:
        """Return a file's content with Content Credentials: made from `source`, by this translation.

        Args:
            content: of the output's file, complete but for this.
            provenance: of the output.
            source: the input's file, whose own Content Credentials are included.
            name: of the input's file.

        Raises:
            UserError: the format can't hold Content Credentials, or signing failed.
        """
        signed = io.BytesIO()
        self._sign(io.BytesIO(content), signed, provenance, source, name)
        return signed.getvalue()

    def sign_file(self, path: Path, provenance: Provenance, source: Path) -> None:
        """Sign a file in place, without holding it in memory; for videos.

        Raises:
            UserError: as `sign`; the file is then unsigned, as it was.
        """
        try:
            with (
                path.open("rb") as content,
                source.open("rb") as original,
                replacing(path) as file,
                Path(file.name).open("r+b") as signed,
            ):
                self._sign(content, signed, provenance, original, source.name)
        except UserError as error:
            raise UserError(f"{escape(path)}: {error}") from None
        except OSError as error:
            raise UserError(f"{escape(path)}: can't be signed ({error.strerror or error})") from error

    def _sign(self, content: BinaryIO, signed: BinaryIO, provenance: Provenance, source: BinaryIO, name: str) -> None:
        c2pa = import_c2pa()
        if (mime := mime_type(content)) is None:
            raise UserError("such files can't hold Content Credentials; choose another format, such as PNG or MP4")
        try:
            builder = self._builder(provenance, source, name)
            builder.sign(self._signer, mime, content, signed)
        except c2pa.C2paError as error:
            raise UserError(f"signing failed ({' '.join(str(error).split())[:200]})") from error

    def _builder(self, provenance: Provenance, source: BinaryIO, name: str) -> Any:
        """Return what will be signed, with the input as the ingredient that was opened."""
        c2pa = import_c2pa()
        ingredient = {"title": name, "relationship": "parentOf", "label": "input"}
        for mime in (mime_type(source), "application/octet-stream"):
            if mime is None:
                continue
            builder = c2pa.Builder(_manifest(provenance), self._context)
            try:
                source.seek(0)
                builder.add_ingredient(ingredient, mime, source)
            except c2pa.C2paError:  # it is damaged, or of a kind that C2PA can't read: then its hash alone
                continue
            return builder
        raise UserError("the input can't be read")

    def _try(self) -> None:
        """Sign an image of one pixel, and check the signature."""
        import PIL.Image

        c2pa = import_c2pa()
        content = io.BytesIO()
        PIL.Image.new("RGB", (1, 1)).save(content, "PNG")
        signed = self.sign(content.getvalue(), Provenance("a", "b", "a2b", "0", 0), content, "trial.png")
        reader = c2pa.Reader("image/png", io.BytesIO(signed), context=self._context)
        failures = reader.get_validation_results()["activeManifest"]["failure"]
        reasons = [f.get("explanation") or f["code"] for f in failures if f["code"] != UNTRUSTED]
        if reasons:
            raise UserError("; ".join(reasons))


def _manifest(provenance: Provenance) -> dict[str, Any]:
    actions = [
        {"action": "c2pa.opened", "parameters": {"ingredientIds": ["input"]}},
        {
            "action": "c2pa.edited",
            "softwareAgent": {"name": SOFTWARE},
            "digitalSourceType": provenance.digital_source_type,
            "description": f"{provenance.translation}; {provenance.version}",
        },
    ]
    return {
        "claim_generator_info": [{"name": SOFTWARE}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
    }
