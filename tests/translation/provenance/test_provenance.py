"""Marks of outputs: what they say, and that what the input's said is kept."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tiny import TINY
from tests.translation.provenance.test_xmp import LIGHTROOM, statements
from unit.domains import Domain, PerDomain
from unit.images import SOFTWARE, is_marked, write_image
from unit.model.networks import build_autoencoders
from unit.translation.provenance.marks import AI_SYSTEM, AI_VERSION, COMPOSITE, GENERATED, SOURCE_TYPE, Provenance
from unit.translation.provenance.xmp import Packet
from unit.translation.translator import Translator

PROVENANCE = Provenance("sunny", "rainy", "a2b", "0123456789abcdef" * 4, 12000)
SAMPLED = Provenance("sunny", "rainy", "a2b", "0123456789abcdef" * 4, 12000, sampled=True)


def make_translator() -> Translator:
    torch.manual_seed(0)
    networks = build_autoencoders(TINY.model).requires_grad_(False).eval()
    return Translator(networks, TINY, PerDomain("sunny", "rainy"), 7, "cpu", "fp32")


def test_the_software_tag_names_names_direction_model_and_step() -> None:
    assert PROVENANCE.software.startswith(SOFTWARE)
    assert all(word in PROVENANCE.software for word in ("sunny to rainy", "a2b", "0123456789ab", "12000"))


@pytest.mark.parametrize(("provenance", "kind"), [(PROVENANCE, COMPOSITE), (SAMPLED, GENERATED)])
def test_a_new_packet_says_how_the_output_came_to_be(provenance: Provenance, kind: str) -> None:
    packet = Packet(provenance.xmp())
    assert packet.get(SOURCE_TYPE) == kind
    assert "sunny to rainy (a2b)" in str(packet.get(AI_SYSTEM))
    assert PROVENANCE.model in str(packet.get(AI_VERSION))
    assert "12000" in str(packet.get(AI_VERSION))
    assert packet.get("xmp:CreatorTool") == PROVENANCE.software


def test_all_of_the_packet_of_the_input_is_kept() -> None:
    merged = PROVENANCE.xmp(LIGHTROOM)
    assert set(statements(LIGHTROOM)) < set(statements(merged))
    assert Packet(merged).get(SOURCE_TYPE) == COMPOSITE
    assert Packet(merged).get("xmp:CreatorTool") == "Camera & Co"


def test_the_marks_of_other_generators_are_kept() -> None:
    packet = Packet(LIGHTROOM)
    packet.set(SOURCE_TYPE, GENERATED)
    packet.set(AI_SYSTEM, "Painter")
    merged = PROVENANCE.xmp(packet.to_bytes())
    assert Packet(merged).get(SOURCE_TYPE) == GENERATED, "an input that was generated as a whole is no photo now"
    assert Packet(merged).get(AI_SYSTEM) == f"Painter; {PROVENANCE.system}"
    captured = COMPOSITE.replace("compositeWithTrainedAlgorithmicMedia", "digitalCapture")
    packet.set(SOURCE_TYPE, captured)
    merged = PROVENANCE.xmp(packet.to_bytes())
    assert Packet(merged).get(SOURCE_TYPE) == COMPOSITE
    assert captured in merged.decode(), "in the history"


def test_an_output_translated_again_keeps_both_marks() -> None:
    back = Provenance("rainy", "sunny", "b2a", PROVENANCE.model, 12000)
    packet = Packet(back.xmp(PROVENANCE.xmp()))
    assert packet.get(AI_SYSTEM) == f"{PROVENANCE.system}; {back.system}"
    again = PROVENANCE.xmp(PROVENANCE.xmp())
    assert Packet(again).get(AI_SYSTEM) == PROVENANCE.system
    assert again.count(b"stEvt:action=") == 2


def test_a_broken_packet_is_replaced() -> None:
    assert PROVENANCE.xmp(b"<x:xmpmeta") == PROVENANCE.xmp()


@pytest.mark.parametrize("name", ["xmpNote:HasExtendedXMP", "dcterms:provenance"])
def test_references_to_other_parts_of_the_inputs_file_go(name: str) -> None:
    packet = Packet(LIGHTROOM)
    packet.set(name, "A" * 32)
    assert packet.get(name) is not None
    assert Packet(PROVENANCE.xmp(packet.to_bytes())).get(name) is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_written_images_have_the_marks(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    image = Image.new("RGB", (20, 10), "red")
    image.info["xmp"] = LIGHTROOM
    write_image(image, path, mark=PROVENANCE)
    assert is_marked(path)
    with Image.open(path) as written:
        assert written.info["xmp"] == PROVENANCE.xmp(LIGHTROOM)
        assert written.getexif()[305] == PROVENANCE.software
    write_image(image, path)
    assert is_marked(path)


def test_a_packet_too_large_for_a_jpeg_gives_way(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10), "red")
    packet = Packet()
    packet.set("xmp:CreatorTool", "x" * 65_000)
    image.info["xmp"] = packet.to_bytes()
    write_image(image, tmp_path / "x.jpg", mark=PROVENANCE)
    with Image.open(tmp_path / "x.jpg") as written:
        assert written.info["xmp"] == PROVENANCE.xmp()


def test_outputs_of_earlier_versions_are_still_recognised(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[305] = "UNIT image translation"
    Image.new("RGB", (4, 4)).save(tmp_path / "old.png", exif=exif)
    assert is_marked(tmp_path / "old.png")


def test_a_translator_gives_the_provenance_of_its_outputs(tmp_path: Path) -> None:
    translator = make_translator()
    provenance = translator.provenance(Domain.B)
    assert (provenance.source, provenance.target, provenance.direction) == ("rainy", "sunny", "b2a")
    assert (provenance.step, provenance.sampled) == (7, False)
    translator.save(tmp_path / "model.safetensors")
    loaded = Translator.load(tmp_path / "model.safetensors", "cpu", "fp32")
    assert loaded.provenance(Domain.B) == provenance, "the hash is of the weights alone"
    assert loaded.provenance(Domain.B, sampled=True).digital_source_type == GENERATED
    next(loaded.networks.parameters()).add_(1)
    assert loaded.provenance(Domain.B).model != provenance.model
