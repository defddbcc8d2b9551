"""What a file says about how it was made: marks in its metadata, and Content Credentials; also of other programs."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from unit.errors import DataError, ImageError
from unit.files import require_regular_file
from unit.images import SOFTWARE, image_errors, read_header
from unit.translation.provenance.content_credentials import UNTRUSTED, import_c2pa, mime_type, offline_context
from unit.translation.provenance.marks import AI_SYSTEM, AI_VERSION, SOURCE_TYPE, SOURCE_TYPES
from unit.translation.provenance.xmp import Packet

_MAX_BYTES = 2**40
_MAX_HOLE = 2**30
_XMP_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "AVIF")


@dataclass(frozen=True)
class Marks:
    """The marks in a file's metadata, which anyone can write, change and remove."""

    source_type: str | None = None
    """the last part of the IPTC's digital source type"""
    system: str | None = None
    """the AI systems used"""
    version: str | None = None
    software: str | None = None


@dataclass(frozen=True)
class Credentials:
    """A file's Content Credentials."""

    state: Literal["intact", "changed", "elsewhere"]
    """changed: they don't fit the file, or are damaged; elsewhere: not in the file, and not fetched"""
    signer: str | None = None
    """the organization that the certificate names"""
    trusted: bool = False
    """the certificate is on a list of trusted ones"""
    generator: str | None = None
    """the program that signed"""
    source_type: str | None = None
    """the last part of the newest action's digital source type that is told"""
    agent: str | None = None
    """the program that did this action"""
    actions: tuple[str, ...] = ()
    """newest last: what was done, by which program"""
    inputs: tuple[str, ...] = ()
    """names of the files that it was made from"""
    problems: tuple[str, ...] = ()
    """why the state is not intact; what is wrong with the inputs' credentials"""


@dataclass(frozen=True)
class Verification:
    """All that a file says."""

    file: str
    marks: Marks = field(default_factory=Marks)
    credentials: Credentials | None = None

    @property
    def source_type(self) -> str | None:
        """The digital source type: the signed one, if there is one."""
        signed = self.credentials.source_type if self.credentials and self.credentials.state == "intact" else None
        return signed or self.marks.source_type


def verify(path: Path) -> Verification:
    """Read what a file says; its pixels are not decoded.

    Raises:
        DataError: it can't be read.
        ConfigError: it seems to have Content Credentials, but c2pa-python is not installed.
    """
    try:
        size = require_regular_file(path, _MAX_BYTES)
        stored = 512 * getattr(path.stat(), "st_blocks", size)
        if size > _MAX_HOLE and stored < size / 2:  # which would be searched for hours
            raise DataError("can't be read (most of it is a hole); copy it again")
        return Verification(str(path), _marks(path), _credentials(path))
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror or error})") from None


def _marks(path: Path) -> Marks:
    packet = None
    with suppress(ValueError):
        content = _xmp(path)
        packet = Packet(content) if content else None
    software = None
    with suppress(ImageError):
        software = read_header(path).software or None
    if packet is None:
        return Marks(software=software or _matroska_comment(path))
    return Marks(
        source_type=_last_part(packet.get(SOURCE_TYPE)),
        system=packet.get(AI_SYSTEM),
        version=packet.get(AI_VERSION),
        software=software or packet.get("xmp:CreatorTool"),
    )


def _matroska_comment(path: Path) -> str | None:
    """Return this program's comment in an MKV file, which has no place for XMP."""
    with path.open("rb") as file:
        if file.read(4) != b"\x1aE\xdf\xa3":
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = re.search(SOFTWARE.encode() + rb"[^\0]{,3000}?, step \d+", content)
            return found[0].decode(errors="replace") if found else None


def _xmp(path: Path) -> bytes | None:
    """Return an image's XMP packet, or the first that lies in a file of another kind."""
    with suppress(ImageError), image_errors(path), Image.open(path, formats=_XMP_FORMATS) as image:
        if xmp := image.info.get("xmp"):
            return xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    if path.stat().st_size == 0:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end_tag = b"</x:xmpmeta>"
        start = content.find(b"<x:xmpmeta")
        end = content.find(end_tag, start)
        return content[start : end + len(end_tag)] if 0 <= start < end else None


def _credentials(path: Path) -> Credentials | None:
    with path.open("rb") as file:
        mime = mime_type(file)
        if mime is None:
            return None
        if not _holds(path, b"c2pa") and not _holds(path, b"dcterms:provenance"):
            return None
        c2pa = import_c2pa()
        try:
            return _parse_untrusted(json.loads(c2pa.Reader(mime, file, context=offline_context()).json()))
        except c2pa.C2paError.ManifestNotFound:  # or not where it belongs, in a file whose structure is damaged
            return Credentials("changed", problems=("they can't be found",)) if _holds(path, b"c2pa.claim") else None
        except c2pa.C2paError as error:
            if str(error).startswith("Remote"):  # of no class of its own
                return Credentials("elsewhere", problems=(_one_line(error),))
            return Credentials("changed", problems=(_one_line(error),)) if _holds(path, b"c2pa.claim") else None


def _holds(path: Path, content: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        return whole.find(content) >= 0


def _parse_untrusted(content: Mapping[str, Any]) -> Credentials:
    """Read what may have other types than C2PA says: whoever signs decides what assertions hold."""
    try:
        return _parse(content)
    except (AttributeError, IndexError, KeyError, TypeError):
        return Credentials("changed", problems=("they are not as C2PA wants them",))


def _parse(content: Mapping[str, Any]) -> Credentials:
    """Read what c2pa's reader gives as JSON, of the file's own manifest and those of its inputs."""
    manifests = content.get("manifests", {})
    chain = list(_ancestors(manifests, content.get("active_manifest")))
    active = chain[-1] if chain else {}
    failures = content.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    problems = [_reason(status) for status in failures if status.get("code") != UNTRUSTED]
    inputs = active.get("ingredients", [])
    broken = [
        f"the Content Credentials of its input {item.get('title') or ''} didn't fit it ({_reason(status)})"
        for item in inputs
        for status in item.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
        if status.get("code") != UNTRUSTED
    ]
    actions = [action for manifest in chain for action in _actions(manifest)]
    telling: Mapping[str, Any] = next((action for action in reversed(actions) if action.get("digitalSourceType")), {})
    generators = active.get("claim_generator_info") or [{}]
    return Credentials(
        state="changed" if problems or content.get("validation_state") == "Invalid" else "intact",
        signer=_text(active.get("signature_info", {}).get("issuer")),
        trusted=content.get("validation_state") == "Trusted",
        generator=_text(generators[0].get("name") or active.get("claim_generator")),
        source_type=_last_part(telling.get("digitalSourceType")),
        agent=_agent(telling),
        actions=tuple(map(_describe_action, actions)),
        inputs=tuple(str(item.get("title") or "unnamed") for item in inputs),
        problems=(*problems, *broken),
    )


def _ancestors(manifests: Mapping[str, Any], label: str | None) -> Iterator[Mapping[str, Any]]:
    """Yield a manifest and, before it, that of the file it was made from, and so on; oldest first."""
    seen: list[Mapping[str, Any]] = []
    while label is not None and label in manifests and len(seen) < len(manifests):
        seen.append(manifests[label])
        parents = (item for item in seen[-1].get("ingredients", []) if item.get("relationship") == "parentOf")
        label = next((item.get("active_manifest") for item in parents), None)
    yield from reversed(seen)


def _actions(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for assertion in manifest.get("assertions", []):
        if str(assertion.get("label")).startswith("c2pa.actions"):
            yield from assertion.get("data", {}).get("actions", [])


def _describe_action(action: Mapping[str, Any]) -> str:
    by = f" by {agent}" if (agent := _agent(action)) else ""
    detail = f": {action['description']}" if action.get("description") else ""
    return str(action.get("action", "")).removeprefix("c2pa.") + by + detail


def _agent(action: Mapping[str, Any]) -> str | None:
    agent = action.get("softwareAgent")
    return _text(agent.get("name") if isinstance(agent, Mapping) else agent)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _reason(status: Mapping[str, Any]) -> str:
    return str(status.get("explanation") or status.get("code"))


def _last_part(uri: str | None) -> str | None:
    """Return the term of a digital source type, of the IPTC's or another vocabulary."""
    return uri.removeprefix(SOURCE_TYPES).rpartition("/")[2] if uri else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
