"""Signed outputs: the image is the same, a flipped bit is noticed, nothing is fetched, and certificates are checked."""

from __future__ import annotations

import datetime
import io
import json
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from tests.translation.provenance.test_provenance import PROVENANCE, SAMPLED
from tests.translation.provenance.test_xmp import LIGHTROOM
from unit.cli.verify import describe
from unit.errors import ConfigError, DataError, UserError
from unit.images import write_image
from unit.translation.provenance import certificates, verification
from unit.translation.provenance.certificates import config_folder, load_credential, own_credential
from unit.translation.provenance.content_credentials import Signer
from unit.translation.provenance.marks import COMPOSITE, GENERATED, SOURCE_TYPES, Provenance
from unit.translation.provenance.verification import Verification, verify

SUFFIXES = [".png", ".jpg", ".webp", ".tif", ".avif", ".gif"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def own_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))

    def offline(*args: object) -> None:
        raise AssertionError("something is fetched")

    monkeypatch.setattr(socket.socket, "connect", offline)


@pytest.fixture
def signer() -> Signer:
    return Signer(own_credential())


def noise(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8))


def photo(path: Path) -> Path:
    noise(1).save(path)
    return path


def output(folder: Path, suffix: str, provenance: Provenance = PROVENANCE) -> Path:
    path, image = folder / f"out{suffix}", noise()
    image.info["xmp"] = LIGHTROOM
    write_image(image, path, mark=provenance)
    return path


def sign(signer: Signer, path: Path, source: Path, provenance: Provenance = PROVENANCE) -> Path:
    with source.open("rb") as content:
        path.write_bytes(signer.sign(path.read_bytes(), provenance, content, source.name))
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_signed_image_is_the_same_image_with_the_same_metadata(tmp_path: Path, signer: Signer, suffix: str) -> None:
    path = output(tmp_path, suffix)
    with Image.open(path) as image:
        pixels, xmp, exif = image.tobytes(), image.info.get("xmp"), image.getexif().get(305)
    size = path.stat().st_size
    sign(signer, path, photo(tmp_path / "in.jpg"))
    with Image.open(path) as image:
        assert image.tobytes() == pixels
        assert (image.info.get("xmp"), image.getexif().get(305)) == (xmp, exif)
    assert path.stat().st_size - size < 5000, "no thumbnail"
    verification = verify(path)
    assert verification.credentials is not None
    assert verification.credentials.state == "intact"
    assert verification.credentials.inputs == ("in.jpg",)
    assert not verification.credentials.trusted
    assert verification.credentials.actions[0] == "opened"
    assert verification.credentials.actions[-1].endswith(f"{PROVENANCE.translation}; {PROVENANCE.version}")
    assert SOURCE_TYPES + str(verification.source_type) == COMPOSITE


def test_samples_are_called_generated(tmp_path: Path, signer: Signer) -> None:
    path = sign(signer, output(tmp_path, ".png", SAMPLED), photo(tmp_path / "in.jpg"), SAMPLED)
    credentials = verify(path).credentials
    assert credentials is not None
    assert SOURCE_TYPES + str(credentials.source_type) == GENERATED


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_bit_of_the_image_or_its_metadata_is_noticed(tmp_path: Path, signer: Signer, suffix: str) -> None:
    path = output(tmp_path, suffix)
    content = sign(signer, path, photo(tmp_path / "in.jpg")).read_bytes()
    start = content.index(b"jumb") - 4
    end = start + int.from_bytes(content[start : start + 4])
    file_type = 40 if suffix == ".avif" else 0  # C2PA doesn't sign this box
    places = [*range(file_type, start - 64), *range(end + 64, len(content))]
    assert len(places) > len(content) - 4500
    rng = np.random.default_rng(0)
    for place in rng.choice(places, 150):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        credentials = verify(path).credentials
        if credentials is None:
            assert place < 16, "only where a file says of what kind it is"
        else:
            assert credentials.state == "changed", place
            assert credentials.problems, place


def test_a_flipped_bit_of_the_manifest_never_changes_what_it_says(tmp_path: Path, signer: Signer) -> None:
    """Its padding is not signed."""
    path = output(tmp_path, ".png")
    content = sign(signer, path, photo(tmp_path / "in.jpg")).read_bytes()
    before, start = verify(path).credentials, content.index(b"jumb")
    noticed = 0
    for place in range(start, start + 3500, 37):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        now = verify(path).credentials
        noticed += now != before
        assert now == before or (now and now.state == "changed")
    assert noticed > 50


@pytest.mark.parametrize("name", ["in.png", "in.bmp", "wrong.png", "empty.jpg"])
def test_any_input_can_be_named_as_the_ingredient(tmp_path: Path, signer: Signer, name: str) -> None:
    source = tmp_path / name
    noise(1).save(source, "BMP" if name == "wrong.png" else None)
    if name == "empty.jpg":
        source.write_bytes(b"")
    credentials = verify(sign(signer, output(tmp_path, ".png"), source)).credentials
    assert credentials is not None
    assert (credentials.state, credentials.inputs) == ("intact", (name,))


def test_the_history_of_a_signed_input_goes_on(tmp_path: Path, signer: Signer) -> None:
    first = sign(signer, output(tmp_path, ".jpg", SAMPLED), photo(tmp_path / "in.jpg"), SAMPLED).rename(
        tmp_path / "first.jpg"
    )
    credentials = verify(sign(signer, output(tmp_path, ".png"), first)).credentials
    assert credentials is not None
    assert [action.split()[0] for action in credentials.actions] == ["opened", "edited"] * 2
    assert credentials.problems == ()
    content = bytearray(first.read_bytes())
    content[-50] ^= 1
    first.write_bytes(content)
    credentials = verify(sign(signer, output(tmp_path, ".png"), first)).credentials
    assert credentials is not None
    assert credentials.state == "intact"
    assert "first.jpg didn't fit it" in credentials.problems[0]


def test_a_file_is_signed_in_place_or_left_as_it_was(tmp_path: Path, signer: Signer) -> None:
    source = photo(tmp_path / "in.jpg")
    path = output(tmp_path, ".png")
    before = path.read_bytes()
    signer.sign_file(path, PROVENANCE, source)
    assert verify(path).credentials is not None
    bad = tmp_path / "bad.png"
    bad.write_bytes(before[:8])
    with pytest.raises(UserError, match=r"bad\.png: signing failed"):
        signer.sign_file(bad, PROVENANCE, source)
    assert bad.read_bytes() == before[:8]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.png", "in.jpg", "out.png"]


def test_a_format_that_holds_none_is_said(tmp_path: Path, signer: Signer) -> None:
    with pytest.raises(UserError, match=r"such files can't hold Content Credentials"):
        signer.sign(b"BM", PROVENANCE, io.BytesIO(), "x")


def test_a_signer_serves_several_threads(tmp_path: Path, signer: Signer) -> None:
    content, source = output(tmp_path, ".png").read_bytes(), photo(tmp_path / "in.jpg").read_bytes()
    files = [tmp_path / f"{k}.png" for k in range(24)]

    def write(file: Path) -> None:
        file.write_bytes(signer.sign(content, PROVENANCE, io.BytesIO(source), "in.jpg"))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, files))
    assert all((found := verify(file).credentials) and found.state == "intact" for file in files)


# Certificates


def test_a_certificate_is_made_once_for_the_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with ThreadPoolExecutor(4) as threads:
        first, *others = threads.map(lambda _: own_credential(), range(4))
    assert others == [first] * 3
    folder = config_folder() / "signing"
    assert [file.name for file in folder.parent.iterdir()] == ["signing"], "nothing is left behind"
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {
        "certificate.pem": 0o600,
        "key.pem": 0o600,
    }
    leaf, ca = x509.load_pem_x509_certificates(first.chain)
    leaf.verify_directly_issued_by(ca)
    assert first.key.count(b"PRIVATE KEY") == 2, "the signer's key, and not that of the CA"
    (folder / "key.pem").chmod(0o644)
    with pytest.raises(ConfigError, match="others may read this private key"):
        own_credential()


@pytest.mark.skipif(os.name == "nt", reason="it is found in another way there")
def test_the_certificate_is_never_looked_for_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_folder() == tmp_path / ".config" / "unit-translation"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # a user without a home
    with pytest.raises(ConfigError, match="no home directory"):
        config_folder()


Change = Callable[[x509.CertificateBuilder], x509.CertificateBuilder]


def issue(folder: Path, key: Any = None, *, organization: bool = True, usage: Any = None, days: int = 9) -> list[Path]:
    """Write a certificate that a CA has issued, and its key."""
    key, ca_key = key or ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, "me")]
    attributes += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio")] * organization
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "CA")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(certificates._key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage or ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    files = [folder / "cert.pem", folder / "key.pem"]
    files[0].write_bytes(builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(certificates._pem_of(key))
    return files


KEYS: dict[str, Callable[[], Any]] = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("algorithm", KEYS)
def test_the_certificate_of_a_ca_signs(tmp_path: Path, algorithm: str) -> None:
    credential = load_credential(*issue(tmp_path, KEYS[algorithm]()))
    assert credential.algorithm == algorithm
    credentials = verify(sign(Signer(credential), output(tmp_path, ".png"), photo(tmp_path / "in.jpg"))).credentials
    assert credentials is not None
    assert (credentials.state, credentials.signer) == ("intact", "Studio")


def self_signed(folder: Path) -> list[Path]:
    files, name = issue(folder), x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio")])
    key = serialization.load_pem_private_key(files[1].read_bytes(), None)
    certificate = certificates._sign(certificates._certificate(name, name, key), key)
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return files


def encrypted(folder: Path) -> list[Path]:
    files = issue(folder)
    key = serialization.load_pem_private_key(files[1].read_bytes(), None)
    password = serialization.BestAvailableEncryption(b"x")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(pem, form, password))
    return files


BAD: dict[str, Callable[[Path], list[Path]]] = {
    "self-signed": self_signed,
    "no organization": lambda folder: issue(folder, organization=False),
    "only; give another": lambda folder: issue(folder, days=-2),
    "without a password": encrypted,
    "not the key of": lambda folder: [issue(folder)[0], *issue(folder / "other")[1:]],
    "not a certificate in PEM": lambda folder: [photo(folder / "x.jpg"), photo(folder / "y.jpg")],
    "No such file": lambda folder: [folder / "nowhere", folder / "nowhere"],
    "a kind of key": lambda folder: issue(folder, ec.generate_private_key(ec.SECP256K1())),
    "accept the certificate": lambda folder: issue(folder, usage=ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_certificate_that_would_not_do_is_refused_before_anything_is_translated(tmp_path: Path, reason: str) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match=reason) as refused:
        Signer(load_credential(*BAD[reason](tmp_path)))
    assert str(refused.value).isprintable()


# Other programs' files


def foreign(path: Path, actions: list[dict[str, Any]]) -> Path:
    """Sign a file as another program would."""
    credential = own_credential()
    info = c2pa.C2paSignerInfo(credential.algorithm.encode(), credential.chain, credential.key, None)
    manifest = {
        "claim_generator_info": [{"name": "Painter", "version": "3"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
    }
    signed = io.BytesIO()
    with path.open("rb") as content:
        c2pa.Builder(json.dumps(manifest)).sign(c2pa.Signer.from_info(info), "image/jpeg", content, signed)
    path.write_bytes(signed.getvalue())
    return path


def test_other_programs_credentials_are_read_whatever_the_file_is_called(tmp_path: Path) -> None:
    created = {"action": "c2pa.created", "digitalSourceType": GENERATED, "softwareAgent": {"name": "Brush 2"}}
    path = foreign(photo(tmp_path / "in.jpg"), [created]).rename(tmp_path / "in.png")
    credentials = verify(path).credentials
    assert credentials is not None
    assert (credentials.state, credentials.generator) == ("intact", "Painter")
    assert credentials.source_type == "trainedAlgorithmicMedia"
    assert credentials.actions == ("created by Brush 2",)
    assert credentials.inputs == ()


@pytest.mark.parametrize(
    "data", [[], "x", {"actions": "x"}, {"actions": [[]]}, {"actions": [{"action": 1, "digitalSourceType": 2}]}]
)
def test_assertions_of_other_types_are_not_relied_on(data: Any) -> None:
    manifest = {"assertions": [{"label": "c2pa.actions", "data": data}]}
    credentials = verification._parse_untrusted({"manifests": {"m": manifest}, "active_manifest": "m"})
    assert (credentials.state, len(credentials.problems)) == ("changed", 1)


def test_names_of_other_types_are_texts() -> None:
    action = {"action": "c2pa.created", "digitalSourceType": GENERATED, "softwareAgent": ["x"]}
    manifest = {
        "claim_generator_info": [{"name": 7}],
        "signature_info": {"issuer": [1]},
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    credentials = verification._parse_untrusted({"manifests": {"m": manifest}, "active_manifest": "m"})
    assert (credentials.agent, credentials.generator, credentials.signer) == ("['x']", "7", "[1]")
    assert "['x']" in describe(Verification("x", credentials=credentials))


def test_a_file_is_signed_by_several_processes_at_once(tmp_path: Path, signer: Signer) -> None:
    path, source = output(tmp_path, ".png"), photo(tmp_path / "in.jpg")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: signer.sign_file(path, PROVENANCE, source), range(4)))
    found = verify(path).credentials
    assert found is not None
    assert found.state == "intact"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jpg", "out.png"]


def test_credentials_elsewhere_are_named_and_not_fetched(tmp_path: Path) -> None:
    path, credential, signed = photo(tmp_path / "x.jpg"), own_credential(), io.BytesIO()
    info = c2pa.C2paSignerInfo(credential.algorithm.encode(), credential.chain, credential.key, None)
    action = {"action": "c2pa.created", "digitalSourceType": GENERATED}
    builder = c2pa.Builder({"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]})
    builder.set_no_embed()
    builder.set_remote_url("https://example.org/x.c2pa")
    with path.open("rb") as content:
        builder.sign(c2pa.Signer.from_info(info), "image/jpeg", content, signed)
    path.write_bytes(signed.getvalue())
    credentials = verify(path).credentials
    assert credentials is not None
    assert credentials.state == "elsewhere"
    assert "https://example.org/x.c2pa" in credentials.problems[0]


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0" + b"\xff" * 99, b"GIF8"]
)
def test_broken_files_have_no_marks(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    verification = verify(tmp_path / "x.png")
    assert verification.source_type is None
    assert verification.credentials is None


def test_a_file_of_nothing_but_a_hole_is_not_searched(tmp_path: Path) -> None:
    with (tmp_path / "x.mp4").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(DataError, match="a hole"):
        verify(tmp_path / "x.mp4")


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="can't be read"):
            verify(path)
