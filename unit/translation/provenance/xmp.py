"""Reading and changing an XMP packet; what a change does not concern stays as it was.

XMP is RDF in XML: a simple property is an attribute or a child element of an ``rdf:Description``. minidom keeps
prefixes and order, which ElementTree would not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.dom import minidom

_MAX_CHARACTERS = 1_000_000  # ten times the largest packets of photo editors
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NAMESPACES = {
    "rdf": _RDF,
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "stEvt": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "dcterms": "http://purl.org/dc/terms/",
}
_EMPTY = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"/></x:xmpmeta>'
_HEAD, _TAIL = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>', '<?xpacket end="w"?>'


class Packet:
    """An XMP packet; properties are named as in ``xmp:CreatorTool``.

    Args:
        content: as stored in a file, in UTF-8; None: an empty packet.

    Raises:
        ValueError: not an XMP packet.
    """

    def __init__(self, content: bytes | None = None) -> None:
        text = _EMPTY if content is None else content.decode("utf-8").strip("\ufeff\0 \r\n\t")
        if len(text) > _MAX_CHARACTERS or "<!DOCTYPE" in text:  # a DTD, which XMP never has, can define huge entities
            raise ValueError("too large, or with a document type")
        try:
            self._document = minidom.parseString(text.encode())
            self._rdf: minidom.Element = self._document.getElementsByTagNameNS(_RDF, "RDF")[0]
            self.to_bytes()  # fails for elements in thousands of others
        except Exception as error:  # the parser raises anything
            raise ValueError("not XMP") from error
        self._own: minidom.Element | None = None

    def get(self, name: str) -> str | None:
        """Return the value of a simple property; None without it."""
        for description, element in self._find(name):
            if element is None:
                return description.getAttributeNS(*_qualified(name))
            return element.getAttributeNS(_RDF, "resource") or _text(element)
        return None

    def set(self, name: str, value: str) -> None:
        """Set a simple property, in place of all values that it has."""
        self.remove(name)
        _set(self._own_description(), name, value)

    def remove(self, name: str) -> None:
        """Remove a property, if it is there."""
        for description, element in list(self._find(name)):
            if element is None:
                description.removeAttributeNS(*_qualified(name))
            else:
                description.removeChild(element)

    def append(self, name: str, fields: Mapping[str, str]) -> None:
        """Append a structure of simple fields to a property that is an ordered array."""
        arrays = [element for _, element in self._find(name) if element is not None]
        sequences = [sequence for array in arrays for sequence in _children(array, "rdf:Seq")]
        if not sequences:
            self.remove(name)
            sequences = [self._add(self._add(self._own_description(), name), "rdf:Seq")]
        item = self._add(sequences[0], "rdf:li")
        for field, value in fields.items():
            _set(item, field, value)

    def to_bytes(self) -> bytes:
        """Return the packet as stored in a file, without padding."""
        root = self._document.documentElement
        assert isinstance(root, minidom.Element)
        return f"{_HEAD}{root.toxml()}{_TAIL}".encode()

    def _find(self, name: str) -> Iterator[tuple[minidom.Element, minidom.Element | None]]:
        """Yield each description that has the property, and the element that holds it; None: an attribute does."""
        for description in _children(self._rdf, "rdf:Description"):
            if description.hasAttributeNS(*_qualified(name)):
                yield description, None
            for element in _children(description, name):
                yield description, element

    def _own_description(self) -> minidom.Element:
        """Return the description for what this program adds, of the same resource as the others."""
        if self._own is None:
            others = list(_children(self._rdf, "rdf:Description"))
            self._own = self._add(self._rdf, "rdf:Description")
            _set(self._own, "rdf:about", others[0].getAttributeNS(_RDF, "about") if others else "")
        return self._own

    def _add(self, parent: minidom.Element, name: str) -> minidom.Element:
        element = self._document.createElementNS(_qualified(name)[0], name)
        _declare(element, name)
        parent.appendChild(element)
        return element


def _qualified(name: str) -> tuple[str, str]:
    """Return namespace and local name."""
    prefix, _, local = name.partition(":")
    return _NAMESPACES[prefix], local


def _set(element: minidom.Element, name: str, value: str) -> None:
    _declare(element, name)
    element.setAttributeNS(_qualified(name)[0], name, value)


def _declare(element: minidom.Element, name: str) -> None:
    """Bind the name's prefix, which the packet may use for something else."""
    prefix = name.partition(":")[0]
    element.setAttributeNS("http://www.w3.org/2000/xmlns/", f"xmlns:{prefix}", _NAMESPACES[prefix])


def _children(parent: minidom.Element, name: str) -> Iterator[minidom.Element]:
    for node in parent.childNodes:
        if isinstance(node, minidom.Element) and (node.namespaceURI, node.localName) == _qualified(name):
            yield node


def _text(element: minidom.Element) -> str:
    """Return the text of a simple value, or that of the first item of an array."""
    nodes = [element, *element.getElementsByTagName("*")]
    texts = ("".join(child.data for child in node.childNodes if isinstance(child, minidom.Text)) for node in nodes)
    return next((text.strip() for text in texts if text.strip()), "")
