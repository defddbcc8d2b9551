"""XMP packets: what is set is read back, and everything else stays."""

from xml.etree import ElementTree

import pytest

from unit.translation.provenance.xmp import Packet

LIGHTROOM = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 5.6">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="uuid:1"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"
    xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
   xmp:Rating="4">
   <xmp:CreatorTool>Camera &amp; Co</xmp:CreatorTool>
   <dc:creator><rdf:Seq><rdf:li>Mirjana Đurić</rdf:li></rdf:Seq></dc:creator>
   <xmpMM:History><rdf:Seq><rdf:li stEvt:action="saved" stEvt:softwareAgent="Camera"/></rdf:Seq></xmpMM:History>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>""".encode()


def statements(content: bytes) -> list[tuple[str, str]]:
    """Every text and attribute of a packet with its full name, in order; namespace declarations are none."""
    found = []
    for element in ElementTree.fromstring(content).iter():
        found += [(name, value) for name, value in element.attrib.items()]
        if element.text and element.text.strip():
            found.append((element.tag, element.text.strip()))
    return found


def test_an_unchanged_packet_says_the_same() -> None:
    assert statements(Packet(LIGHTROOM).to_bytes()) == statements(LIGHTROOM)


@pytest.mark.parametrize("content", [None, LIGHTROOM])
@pytest.mark.parametrize("name", ["Iptc4xmpExt:DigitalSourceType", "xmp:CreatorTool", "xmp:Rating"])
def test_what_is_set_is_read_back_once(content: bytes | None, name: str) -> None:
    packet = Packet(content)
    for value in ("first", 'second <&>"ü'):
        packet.set(name, value)
        packet = Packet(packet.to_bytes())
        assert packet.get(name) == value
    assert sum(name.split(":")[1] in key for key, _ in statements(packet.to_bytes())) == 1
    before, after = set(statements(LIGHTROOM if content else Packet().to_bytes())), set(statements(packet.to_bytes()))
    assert all(name.split(":")[1] in key for key, _ in before - after)


def test_attributes_elements_and_arrays_are_read() -> None:
    packet = Packet(LIGHTROOM)
    assert packet.get("xmp:Rating") == "4"
    assert packet.get("xmp:CreatorTool") == "Camera & Co"
    assert packet.get("Iptc4xmpExt:DigitalSourceType") is None
    resource = LIGHTROOM.replace(
        b"<xmp:CreatorTool>Camera &amp; Co</xmp:CreatorTool>", b'<xmp:Label rdf:resource="u"/>'
    )
    assert Packet(resource).get("xmp:Label") == "u"


def test_an_item_is_appended_to_an_array_or_to_a_new_one() -> None:
    for content, count in ((LIGHTROOM, 2), (None, 1)):
        packet = Packet(content)
        packet.append("xmpMM:History", {"stEvt:action": "edited", "stEvt:softwareAgent": "ours"})
        actions = [value for name, value in statements(packet.to_bytes()) if name.endswith("}action")]
        assert actions == ["saved", "edited"][-count:]
        assert ElementTree.fromstring(packet.to_bytes()).findall(".//{*}Seq/{*}li[@{*}action]") is not None


def test_a_prefix_that_means_something_else_there_is_bound_again() -> None:
    packet = Packet(LIGHTROOM.replace(b'xmlns:xmp="http://ns.adobe.com/xap/1.0/"', b'xmlns:xmp="urn:other"'))
    assert packet.get("xmp:CreatorTool") is None
    packet.set("xmp:CreatorTool", "ours")
    named = dict(statements(packet.to_bytes()))
    assert named["{urn:other}CreatorTool"] == "Camera & Co"
    assert named["{http://ns.adobe.com/xap/1.0/}CreatorTool"] == "ours"


def test_the_additions_are_about_the_same_resource() -> None:
    packet = Packet(LIGHTROOM)
    packet.set("Iptc4xmpExt:DigitalSourceType", "x")
    about = [value for name, value in statements(packet.to_bytes()) if name.endswith("}about")]
    assert about == ["uuid:1", "uuid:1"]


BOMB = b"""<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>
<x:xmpmeta xmlns:x="adobe:ns:meta/">&b;</x:xmpmeta>"""
DEEP = LIGHTROOM.replace(b"<xmp:CreatorTool>", b"<a>" * 5000 + b"</a>" * 5000 + b"<xmp:CreatorTool>")
BROKEN = [b"", b"\xff\xfe", b"<x", b"<x/>", LIGHTROOM[:-60], LIGHTROOM.replace(b"rdf-syntax", b"other"), BOMB]


@pytest.mark.parametrize("content", [*BROKEN, DEEP, b"x" * 1_000_001], ids=range(len(BROKEN) + 2))
def test_what_is_no_packet_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        Packet(content)
