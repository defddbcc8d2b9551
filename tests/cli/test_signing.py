"""``translate --sign`` and ``--no-provenance``: which marks the outputs have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.test_verbs import model
from tests.translation.provenance.test_content_credentials import home, issue, own_settings, photo
from tests.translation.provenance.test_xmp import LIGHTROOM
from unit.__main__ import main
from unit.images import is_marked
from unit.translation.model_file import load_model
from unit.translation.provenance.certificates import config_folder
from unit.translation.provenance.marks import weights_sha256
from unit.translation.provenance.verification import verify

__all__ = ["home", "model", "own_settings"]  # fixtures


def translate(model: Path, *arguments: object) -> int:
    return main(["translate", str(model), "--direction", "a2b", "--device", "cpu", *map(str, arguments)])


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_outputs_are_signed_by_the_users_own_certificate(model: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"x{suffix}"
    assert translate(model, photo(tmp_path / "in.jpg"), "--out", out, "--sign") == 0
    assert (config_folder() / "signing/key.pem").is_file()
    credentials = verify(out).credentials
    assert credentials is not None
    assert (credentials.state, credentials.inputs) == ("intact", ("in.jpg",))
    assert weights_sha256(load_model(model)[0].state_dict()) in credentials.actions[-1]
    assert is_marked(out)


def test_outputs_are_signed_by_a_given_certificate(model: Path, tmp_path: Path) -> None:
    inputs = [photo(tmp_path / f"{name}.jpg") for name in "ab"]
    assert translate(model, *inputs, "--out", tmp_path / "out", "--sign", *issue(tmp_path)) == 0
    for name in "ab":
        credentials = verify(tmp_path / f"out/{name}.png").credentials
        assert credentials is not None
        assert (credentials.signer, credentials.inputs) == ("Studio", (f"{name}.jpg",))


def test_what_comes_from_standard_input_is_signed(model: Path, tmp_path: Path) -> None:
    source, out = photo(tmp_path / "in.jpg"), tmp_path / "x.png"
    command = [sys.executable, "translate.py", str(model), "--direction", "a2b", "--device", "cpu", "-", "--out", "-"]
    with source.open("rb") as content, out.open("wb") as output:
        subprocess.run([*command, "--sign"], stdin=content, stdout=output, check=True)
    credentials = verify(out).credentials
    assert credentials is not None
    assert (credentials.state, credentials.inputs) == ("intact", ("standard input",))


def test_samples_are_signed_as_generated(model: Path, tmp_path: Path) -> None:
    translate(model, photo(tmp_path / "in.jpg"), "--out", tmp_path / "out", "--samples", 2, "--sign")
    found = [verify(tmp_path / f"out/in-{k}.png") for k in (1, 2)]
    assert [verification.source_type for verification in found] == ["trainedAlgorithmicMedia"] * 2


def test_an_output_that_can_not_be_signed_fails_by_name(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = [photo(tmp_path / "x.bmp"), photo(tmp_path / "y.png")]
    assert translate(model, *inputs, "--out", tmp_path / "out", "--format", "same", "--sign") == 1
    assert "x.bmp: can't be written: such files can't hold Content Credentials" in caplog.text
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["y.png"]


def test_without_provenance_outputs_say_what_their_input_says(model: Path, tmp_path: Path) -> None:
    source, exif = tmp_path / "in.png", Image.Exif()
    exif[305] = "Camera"
    Image.new("RGB", (16, 16), "red").save(source, exif=exif, xmp=LIGHTROOM)
    translate(model, source, "--out", tmp_path / "marked.png")
    translate(model, source, "--out", tmp_path / "plain.png", "--no-provenance")
    assert is_marked(tmp_path / "marked.png")
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "marked.png") as marked:
        assert plain.tobytes() == marked.tobytes()
        assert plain.getexif()[305] == "Camera"
    assert b"UNIT" not in (tmp_path / "plain.png").read_bytes()
    assert verify(tmp_path / "plain.png").source_type is None


def test_unmarked_outputs_are_not_written_among_inputs(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo(tmp_path / "in.jpg")
    assert translate(model, tmp_path, "--out", tmp_path, "--no-provenance", "--format", "png") == 1
    assert "could not be told from an input, without a mark" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["in.jpg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sign", "--no-provenance"], "one says what the other leaves out"),
        (["--sign", "nowhere"], "a certificate and its key, or neither"),
        (["--sign", "nowhere", "nothing"], "nowhere: can't be read"),
    ],
)
def test_mistakes_are_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    out = tmp_path / "x.png"
    assert translate(model, photo(tmp_path / "in.jpg"), "--out", out, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not out.exists()


def test_without_the_package_signing_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert translate(model, photo(tmp_path / "in.jpg"), "--out", tmp_path / "x.png", "--sign") == 2
    assert capsys.readouterr().err == "error: the package c2pa is not installed; pip install c2pa-python\n"
    assert not (tmp_path / "config").exists()
