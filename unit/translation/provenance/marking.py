"""The mark of each output: none, what made it, or that with a signature over output and input."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from unit.images import Mark
from unit.translation.provenance.content_credentials import Signer
from unit.translation.provenance.marks import Provenance


class Unmarked:
    """The mark of outputs that are to have none: the input's own metadata stay as they are."""

    software = ""

    def xmp(self, existing: bytes | None = None) -> bytes:
        """Return the packet unchanged."""
        return existing or b""

    def seal(self, content: bytes) -> bytes:
        """Return the file unchanged."""
        return content


@dataclass(frozen=True)
class SignedMark:
    """A mark that is also signed."""

    provenance: Provenance
    signer: Signer
    source: Path | bytes
    """the input's file, or its content"""
    name: str
    """of the input's file"""

    @property
    def software(self) -> str:
        """The software tag."""
        return self.provenance.software

    def xmp(self, existing: bytes | None = None) -> bytes:
        """Return the XMP packet."""
        return self.provenance.xmp(existing)

    def seal(self, content: bytes) -> bytes:
        """Return the file with Content Credentials; raises `UserError` as `Signer.sign` does."""
        if isinstance(self.source, bytes):
            return self.signer.sign(content, self.provenance, io.BytesIO(self.source), self.name)
        with self.source.open("rb") as source:
            return self.signer.sign(content, self.provenance, source, self.name)


@dataclass(frozen=True)
class Marker:
    """Makes the marks of all outputs of a run of the program."""

    provenance: Provenance | None = None
    """None: outputs are not marked"""
    signer: Signer | None = None
    """None: they are not signed"""

    def sign_file(self, path: Path, source: Path) -> None:
        """Sign a complete file, if outputs are signed; raises `UserError` as `Signer.sign_file` does."""
        if self.signer and self.provenance:
            self.signer.sign_file(path, self.provenance, source)

    def mark(self, source: Path | bytes, name: str | None = None) -> Mark:
        """Return the mark of the translation of `source`: a file, or its content with a name."""
        if self.provenance is None:
            return Unmarked()
        if self.signer is None:
            return self.provenance
        if name is None:
            name = source.name if isinstance(source, Path) else "standard input"
        return SignedMark(self.provenance, self.signer, source, name)
