"""The marks of an output: that it was translated, by which model and in which direction, for readers and programs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unit.images import SOFTWARE
from unit.translation.provenance.xmp import Packet

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

SOURCE_TYPE = "Iptc4xmpExt:DigitalSourceType"
AI_SYSTEM, AI_VERSION = "Iptc4xmpExt:AISystemUsed", "Iptc4xmpExt:AISystemVersionUsed"
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED, COMPOSITE = SOURCE_TYPES + "trainedAlgorithmicMedia", SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"


@dataclass(frozen=True)
class Provenance:
    """What made an output; the same for all outputs of one model, direction and kind of code."""

    source: str
    """the user's name of the domain of the input"""
    target: str
    """the user's name of the domain of the output"""
    direction: str
    """a2b or b2a"""
    model: str
    """SHA-256 of the weights, in hexadecimal"""
    step: int
    """number of training steps"""
    sampled: bool = False
    """the code was drawn at random, so that the output is not a function of the input alone"""

    @property
    def digital_source_type(self) -> str:
        """The IPTC's term for how the output came to be, as a URI."""
        return GENERATED if self.sampled else COMPOSITE

    @property
    def translation(self) -> str:
        """What was done."""
        return f"{self.source} to {self.target} ({self.direction})"

    @property
    def system(self) -> str:
        """What was done, and by which program."""
        return f"{SOFTWARE}: {self.translation}"

    @property
    def version(self) -> str:
        """Which model did it."""
        return f"weights sha256 {self.model}, step {self.step}"

    @property
    def software(self) -> str:
        """A software tag for readers."""
        return f"{self.system}, model {self.model[:12]}, step {self.step}"

    def xmp(self, existing: bytes | None = None) -> bytes:
        """Return an XMP packet with the marks of this translation beside all that the input's packet holds.

        What other programs said about generating the input stays: an input that was generated as a whole remains so,
        earlier systems are named before this one, and an earlier source type is kept in the history.

        Args:
            existing: the input's packet; one that is broken is replaced.
        """
        packet = Packet()
        if existing is not None:
            try:
                packet = Packet(existing)
            except ValueError:
                log.debug("broken XMP is replaced")
        before = packet.get(SOURCE_TYPE)
        now = GENERATED if before == GENERATED else self.digital_source_type
        packet.set(SOURCE_TYPE, now)
        for name, value in ((AI_SYSTEM, self.system), (AI_VERSION, self.version)):
            packet.set(name, _append(packet.get(name), value))
        if not packet.get("xmp:CreatorTool"):
            packet.set("xmp:CreatorTool", self.software)
        packet.remove("xmpNote:HasExtendedXMP")  # the rest of a long packet, elsewhere in the input's file
        packet.remove("dcterms:provenance")  # where the Content Credentials of the input's file are
        was = f"; before, the digital source type was {before}" if before and before != now else ""
        event = {"action": "edited", "softwareAgent": self.system, "parameters": f"{self.version}{was}"}
        packet.append("xmpMM:History", {f"stEvt:{field}": value for field, value in event.items()})
        return packet.to_bytes()

    def seal(self, content: bytes) -> bytes:
        """Return an output's file as it is: this mark is not signed."""
        return content


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a model's weights, by sorted name: a file's metadata have no fixed order."""
    digest = hashlib.sha256()
    for _, tensor in sorted(weights.items()):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _append(before: str | None, value: str) -> str:
    """Name several systems in one text; the same one again is named once."""
    return value if not before or before == value else f"{before}; {value}"
