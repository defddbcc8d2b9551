"""A request's answer is what the command line writes for the same image, and every mistake is one line of JSON."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor

from tests.translation.server.serving import Client, difference, encoded, make_image, make_translator, serving
from unit.__main__ import main
from unit.domains import Domain
from unit.errors import UserError
from unit.translation.server.admission import Limits
from unit.translation.server.options import Options
from unit.translation.translator import Translator

LIMITS = Limits(bytes=200_000, pixels=100_000, requests=4)


@pytest.fixture(scope="module")
def models() -> dict[str, Translator]:
    torch.manual_seed(0)
    return {"first": make_translator(), "second": make_translator("day", "night")}


@pytest.fixture(scope="module")
def client(models: dict[str, Translator]) -> Iterator[Client]:
    with serving(models, limits=LIMITS, hosts=["localhost"]) as client:
        yield client


def by_command(folder: Path, translator: Translator, body: bytes, suffix: str, *options: str) -> list[Image.Image]:
    """Translate a file's content as the command line does."""
    translator.save(folder / "model.safetensors")
    (folder / f"x{suffix}").write_bytes(body)
    model, image, out = (str(folder / name) for name in ("model.safetensors", f"x{suffix}", "out"))
    if "--direction" not in options:
        options = ("--direction", "a2b", *options)
    assert main(["translate", model, image, "--out", out, *options, "--device", "cpu", "--precision", "fp32"]) == 0
    return [Image.open(path) for path in sorted(Path(out).iterdir())]


CASES = [
    ("direction=a2b", "PNG", ["--format", "same"]),
    ("direction=b2a&format=png", "JPEG", ["--direction", "b2a"]),
    ("direction=rainy2sunny&format=webp", "PNG", ["--direction", "b2a", "--format", "webp"]),
    ("direction=sunny2rainy&strength=0.3", "TIFF", ["--strength", "0.3", "--format", "same"]),
    ("direction=a2b&samples=1&seed=5&format=jpg", "WEBP", ["--samples", "1", "--seed", "5", "--format", "jpg"]),
    ("direction=a2b&strength=&samples=&seed=&model=&format=", "JPEG", ["--format", "same"]),
]


@pytest.mark.parametrize(("query", "image_format", "options"), CASES)
def test_an_answer_is_what_the_command_line_writes(
    query: str, image_format: str, options: list[str], client: Client, models: dict[str, Translator], tmp_path: Path
) -> None:
    body = encoded(make_image(23, 17), image_format)
    suffix = {"JPEG": ".jpg", "TIFF": ".tif"}.get(image_format, f".{image_format.lower()}")
    (expected,) = by_command(tmp_path, models["first"], body, suffix, *options)
    answer = client.translate(body, query)
    assert answer.image.size == (23, 17)
    assert answer.image.format == expected.format
    assert answer.headers["content-type"] == Image.MIME[str(expected.format)]
    assert difference(answer.image, expected) <= 1
    assert difference(answer.image.convert("RGB"), make_image(23, 17)) > 10, "it is not the input"


def test_detail_is_carried_to_a_large_image(client: Client, models: dict[str, Translator], tmp_path: Path) -> None:
    body = encoded(make_image(64, 48))
    (expected,) = by_command(tmp_path, models["first"], body, ".png", "--detail", "guided")
    assert difference(client.translate(body, "direction=a2b&detail=guided").image, expected) <= 1
    assert difference(client.translate(body, "direction=a2b&detail=native").image, expected) > 1


def test_several_samples_come_as_an_archive(client: Client, models: dict[str, Translator], tmp_path: Path) -> None:
    body = encoded(make_image())
    expected = by_command(tmp_path, models["first"], body, ".png", "--samples", "3", "--seed", "4")
    answer = client.translate(body, "direction=a2b&samples=3&seed=4")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.namelist() == ["1.png", "2.png", "3.png"]
        samples = [Image.open(io.BytesIO(archive.read(name))) for name in archive.namelist()]
    assert [difference(one, two) <= 1 for one, two in zip(samples, expected, strict=True)] == [True] * 3
    assert difference(samples[0], samples[1]) > 1


def test_the_model_is_chosen_by_name(client: Client, models: dict[str, Translator], tmp_path: Path) -> None:
    body = encoded(make_image())
    (expected,) = by_command(tmp_path, models["second"], body, ".png")
    assert difference(client.translate(body, "direction=day2night&model=second").image, expected) <= 1
    assert difference(client.translate(body, "direction=a2b").image, expected) > 1
    assert client.translate(body, "direction=day2night").error.startswith("--direction day2night")


def test_metadata_is_kept_and_the_answer_is_marked(client: Client, models: dict[str, Translator]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    exif[ExifTags.Base.Orientation] = 6
    image = client.translate(encoded(make_image(24, 16), "JPEG", exif=exif, dpi=(300, 300)), "direction=a2b").image
    assert image.size == (16, 24), "upright"
    assert image.getexif()[ExifTags.Base.Artist] == "somebody"
    assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert image.info["dpi"] == (300, 300)
    provenance = models["first"].provenance(Domain.A)
    assert image.getexif()[ExifTags.Base.Software] == provenance.software
    assert provenance.digital_source_type.encode() in image.info["xmp"]
    sampled = client.translate(encoded(make_image()), "direction=a2b&samples=1").image
    assert models["first"].provenance(Domain.A, sampled=True).digital_source_type in str(sampled.info["xmp"])


def test_frames_alpha_and_depth_are_kept(client: Client) -> None:
    frames = [make_image(seed=k) for k in range(3)]
    animation = client.translate(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=70)).image
    assert (animation.format, animation.n_frames, animation.info["duration"]) == ("GIF", 3, 70)  # type: ignore[attr-defined]
    transparent = make_image().convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    assert (
        client.translate(encoded(transparent)).image.getchannel("A").tobytes() == transparent.getchannel("A").tobytes()
    )


# Mistakes


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "direction: missing"),
        ("direction=sideways", "--direction sideways"),
        ("direction=a2b&model=third", "model=third: no such model; one of first, second"),
        ("direction=a2b&model=../../etc/passwd", "model=../../etc/passwd: no such model"),
        ("direction=a2b&url=http://example.org", "url: no such parameter"),
        ("direction=a2b&strength=2", "strength=2"),
    ],
)
def test_wrong_parameters(query: str, said: str, client: Client) -> None:
    answer = client.translate(encoded(make_image()), query)
    assert answer.status == 400
    assert answer.error.startswith(said)


PNG = encoded(make_image())


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "empty"),
        (PNG[:-40], 400, "damaged"),
        (encoded(make_image(300, 300), "JPEG")[:-500], 400, "damaged"),
        (b"http://example.org/image.png", 415, "not an image"),
        (b"/etc/hostname", 415, "not an image"),
        (b'{"image": "iVBORw0KGgo="}', 415, "not an image"),
        (b"%PDF-1.4 ...", 415, "not an image"),
        (PNG[:6], 415, "not an image"),
        (encoded(Image.new("RGB", (400, 300))), 413, "120000 pixels"),
        (bytes(LIMITS.bytes + 1), 413, "200 KB"),
    ],
)
def test_wrong_bodies(body: bytes, status: int, said: str, client: Client) -> None:
    answer = client.translate(body)
    assert answer.status == status
    assert said in answer.error


def test_a_body_of_unknown_length_is_cut_at_the_limit(client: Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(LIMITS.bytes // 10)

    assert client.translate(endless()).status == 413
    pieces = (PNG[k : k + 100] for k in range(0, len(PNG), 100))
    assert client.translate(pieces).image.size == (24, 16)


def test_frames_count_as_pixels(client: Client) -> None:
    frames = [Image.new("RGB", (200, 200), (k, 0, 0)) for k in range(4)]
    answer = client.translate(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert (answer.status, answer.error.split()[0]) == (413, "160000")


def test_a_bomb_is_refused_by_its_header(client: Client) -> None:
    bomb = encoded(Image.new("1", (8000, 8000)))
    assert len(bomb) < LIMITS.bytes
    assert client.translate(bomb).status == 413


def test_a_compressed_body_is_refused(client: Client) -> None:
    assert client.translate(PNG, content_encoding="gzip").status == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/translate", 405), ("POST", "/", 405), ("GET", "/nothing", 404), ("GET", "/../app.py", 404)],
)
def test_other_paths_and_methods(method: str, path: str, status: int, client: Client) -> None:
    answer = client.ask(method, path)
    assert answer.status == status
    assert answer.error


def test_other_sites_get_nothing(client: Client) -> None:
    assert client.translate(PNG, Host="evil.example").status == 403
    assert client.translate(PNG, Origin="http://evil.example").status == 403
    assert client.ask("OPTIONS", "/translate?direction=a2b", Origin="http://evil.example").status == 403
    answer = client.translate(PNG, Host="localhost:8000", Origin="http://localhost:8000")
    assert answer.status == 200
    assert not any(name.lower().startswith("access-control") for name in answer.headers)


# Load


class Slow(Translator):
    """Waits for the gate before each batch, and records its size."""

    gate: threading.Event
    entered: threading.Event
    batches: list[int]
    error: Exception | None = None

    def translate(self, images: Tensor, source: Domain, seed: int | None = None, **options: Any) -> Tensor:
        self.entered.set()
        assert self.gate.wait(timeout=30)
        self.batches.append(len(images))
        if self.error:
            raise self.error
        return super().translate(images, source, seed, **options)


@pytest.fixture
def slow() -> Iterator[tuple[Slow, Client]]:
    translator = make_translator()
    translator.__class__ = Slow
    assert isinstance(translator, Slow)
    translator.gate, translator.entered, translator.batches = threading.Event(), threading.Event(), []
    with serving({"slow": translator}, limits=LIMITS, hosts=["localhost"]) as client:
        yield translator, client
        translator.gate.set()


def together(client: Client, bodies: list[bytes]) -> tuple[list[threading.Thread], list[Any]]:
    answers: list[Any] = [None] * len(bodies)

    def ask(k: int) -> None:
        answers[k] = client.translate(bodies[k])

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(len(bodies))]
    for thread in threads:
        thread.start()
    return threads, answers


def wait_for_requests(client: Client, number: int) -> None:
    for _ in range(600):
        if client.get_json("/health")["requests"] == number:
            return
        time.sleep(0.02)
    raise AssertionError


def test_requests_that_wait_are_translated_together(slow: tuple[Slow, Client]) -> None:
    translator, client = slow
    first, _ = together(client, [PNG])
    assert translator.entered.wait(timeout=30)
    images = [make_image(seed=k) for k in range(3)]
    threads, answers = together(client, [encoded(image) for image in images])
    wait_for_requests(client, 4)
    time.sleep(0.5)  # until they are decoded
    translator.gate.set()
    for thread in first + threads:
        thread.join()
    assert translator.batches == [1, 3]
    for image, answer in zip(images, answers, strict=True):
        assert difference(answer.image, translator(image, "a2b")) <= 1


def test_a_full_queue_says_try_again_and_recovers(slow: tuple[Slow, Client]) -> None:
    translator, client = slow
    threads, answers = together(client, [PNG] * 4)
    wait_for_requests(client, 4)
    answer = client.translate(PNG)
    assert answer.status == 429
    assert answer.headers["retry-after"] == "1"
    assert "try again" in answer.error
    translator.gate.set()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [200] * 4
    client.wait_until_idle()
    assert client.translate(PNG).status == 200


def test_what_nobody_waits_for_is_not_translated(slow: tuple[Slow, Client]) -> None:
    translator, client = slow
    threads, _ = together(client, [PNG])
    wait_for_requests(client, 1)
    time.sleep(0.3)
    with socket.create_connection(("127.0.0.1", client.port)) as gone:
        head = f"POST /translate?direction=a2b HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(PNG)}\r\n\r\n"
        gone.sendall(head.encode() + PNG)
        wait_for_requests(client, 2)
        time.sleep(0.3)
    wait_for_requests(client, 1)
    time.sleep(0.3)  # the request is counted out a moment before it leaves the queue
    translator.gate.set()
    threads[0].join()
    client.wait_until_idle()
    assert translator.batches == [1]


def test_a_request_that_is_cut_off_frees_its_place(client: Client) -> None:
    for _ in range(2 * LIMITS.requests):
        client.cut_off(PNG[: len(PNG) // 2], len(PNG))
    client.wait_until_idle()
    assert client.translate(PNG).status == 200


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            UserError("out of memory on cpu for 24x16 pixels"),
            503,
            "out of memory on cpu for 24x16 pixels; send a smaller",
        ),
        (MemoryError(), 503, "out of memory; send a smaller image"),
        (ValueError("a mistake in the program at /home/me"), 500, "the server failed"),
    ],
)
def test_failures_of_the_server(
    error: Exception, status: int, said: str, slow: tuple[Slow, Client], caplog: pytest.LogCaptureFixture
) -> None:
    translator, client = slow
    translator.gate.set()
    translator.error = error
    answer = client.translate(PNG)
    assert answer.status == status
    assert answer.error.startswith(said)
    assert "/home/me" not in answer.error
    for _ in range(100 if status == 500 else 0):  # the answer is sent before the log is written
        if caplog.text:
            break
        time.sleep(0.05)
    assert ("a mistake in the program" in caplog.text) == (status == 500)
    translator.error = None
    assert client.translate(PNG).status == 200


def test_an_image_that_cannot_be_decoded_in_the_free_memory(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unit.translation.server.images.available_memory", lambda: 1000)
    answer = client.translate(PNG)
    assert answer.status == 503
    assert answer.error.startswith("out of memory for 384 pixels")
    monkeypatch.undo()
    assert client.translate(PNG).status == 200


def test_nan_is_an_error_that_says_what_to_do(slow: tuple[Slow, Client]) -> None:
    translator, client = slow
    translator.gate.set()
    with torch.no_grad():
        next(translator.networks.parameters()).fill_(torch.nan)
    answer = client.translate(PNG)
    assert answer.status == 500
    assert "NaN" in answer.error


# Descriptions


def test_the_models_and_limits_are_listed(client: Client) -> None:
    assert client.get_json("/models") == {
        "models": [
            {"name": "first", "domains": {"a": "sunny", "b": "rainy"}, "size": 20, "step": 7},
            {"name": "second", "domains": {"a": "day", "b": "night"}, "size": 20, "step": 7},
        ],
        "limits": {"bytes": LIMITS.bytes, "pixels": LIMITS.pixels},
    }
    assert client.get_json("/health") == {"status": "ok", "requests": 0}


def test_openapi_describes_what_the_server_does(client: Client) -> None:
    found = client.get_json("/openapi.json")
    assert found["openapi"].startswith("3.1")
    for path, methods in found["paths"].items():
        for method in methods:
            assert client.ask(method.upper(), path).status != 404
            assert client.ask(method.upper(), path).status != 405
    parameters = {entry["name"]: entry for entry in found["paths"]["/translate"]["post"]["parameters"]}
    assert parameters.keys() == Options.model_fields.keys()
    assert [name for name, entry in parameters.items() if entry["required"]] == ["direction"]
    assert parameters["model"]["schema"]["enum"] == ["first", "second"]
    assert all(entry["description"] for entry in parameters.values())
    assert json.dumps(found).count("#/components/schemas/Error") == json.dumps(found).count('"$ref"') > 0
    documented = set(found["paths"]["/translate"]["post"]["responses"])
    assert {"200", "400", "403", "408", "413", "415", "429", "500", "503"} == documented
