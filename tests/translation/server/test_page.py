"""The page in Chromium, with real files: what people see, hear from a screen reader, and download."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.translation.server.serving import Client, difference, encoded, make_image, make_translator, serving
from unit.domains import Domain
from unit.images import to_image, to_tensor
from unit.translation.server.admission import Limits
from unit.translation.translator import Translator

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CAMERA)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def models() -> dict[str, Translator]:
    torch.manual_seed(0)
    return {"first": make_translator(), "second": make_translator("<b>day", "night\"'&")}


@pytest.fixture(scope="module")
def client(models: dict[str, Translator]) -> Iterator[Client]:
    with serving(models, limits=Limits(bytes=1_000_000, requests=2)) as client:  # so few that some have to try again
        yield client


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("one.png", "two.jpg", "<i>three.webp")]
    for k, path in enumerate(paths):
        make_image(40 + 8 * k, 32, seed=k).save(path)
    return paths


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


class Visit:
    """A page, what it complained of and what it asked for."""

    def __init__(self, browser: Browser, client: Client, **options: Any) -> None:
        self.page: Page = browser.new_context(permissions=["camera"], **options).new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("filechooser", lambda _: None)  # a chooser that opens before this is in force is missed
        self.address = f"http://localhost:{client.port}/"
        self.page.goto(self.address)
        expect(self.page).to_have_title("sunny ⇄ rainy: translate photos")

    def add(self, *files: Path) -> None:
        self.page.set_input_files("#files", files)
        self.wait()

    def wait(self) -> None:
        expect(self.page.locator(".busy")).to_have_count(0, timeout=30_000)

    def download(self, folder: Path) -> tuple[str, Image.Image]:
        """Click on Download; return the file's name and the image."""
        with self.page.expect_download() as download:
            self.page.get_by_role("link", name="Download", exact=True).click()
        path = folder / "downloads" / download.value.suggested_filename
        download.value.save_as(path)
        return path.name, opened(path)

    def thumbs(self, row: str) -> list[str]:
        return [str(thumb.get_attribute("aria-label")) for thumb in self.page.locator(f"#{row} button").all()]


@pytest.fixture
def visit(browser: Browser, client: Client) -> Iterator[Visit]:
    visit = Visit(browser, client)
    yield visit
    refused = "429 (Too Many Requests)"
    assert [text for text in visit.complaints if refused not in text] == []
    assert [url for url in visit.requests if not url.startswith((visit.address, f"blob:{visit.address}"))] == []
    visit.page.context.close()


def test_photos_are_translated_compared_and_downloaded(
    visit: Visit, files: list[Path], models: dict[str, Translator], tmp_path: Path
) -> None:
    visit.add(*files)
    assert visit.thumbs("photos") == ["one.png", "two.jpg", "<i>three.webp"]
    expect(visit.page.locator("#status")).to_have_text(re.compile(": translated to rainy$"))
    name, image = visit.download(tmp_path)
    assert name == "one-rainy.png"
    assert difference(image, models["first"](opened(files[0]), "a2b")) <= 1
    assert visit.page.get_by_alt_text("Original: one.png").is_visible()
    assert visit.page.get_by_alt_text("Translated to rainy: one.png").is_visible()

    visit.page.get_by_role("button", name="<i>three.webp").click()
    name, image = visit.download(tmp_path)
    assert name == "_i_three-rainy.webp"
    assert image.size == (56, 32)

    downloads = []
    visit.page.on("download", lambda download: downloads.append(download.suggested_filename))
    visit.page.get_by_role("button", name="Download all").click()
    visit.page.wait_for_timeout(1500)
    assert downloads == ["one-rainy.png", "two-rainy.jpg", "_i_three-rainy.webp"]


def test_the_settings_change_what_is_downloaded(
    visit: Visit, files: list[Path], models: dict[str, Translator], tmp_path: Path
) -> None:
    visit.add(files[0])
    image = opened(files[0])
    visit.page.get_by_role("radio", name="rainy → sunny").check()
    visit.wait()
    name, full = visit.download(tmp_path)
    assert name == "one-sunny.png"
    assert difference(full, models["first"](image, "b2a")) <= 1

    visit.page.get_by_label("File format").select_option("JPEG")
    visit.wait()
    assert visit.download(tmp_path)[1].format == "JPEG"
    visit.page.get_by_label("File format").select_option("as the photo")
    visit.page.get_by_label("Strength").fill("50")
    expect(visit.page.locator("#strength-value")).to_have_text("50 %")
    visit.wait()
    half = visit.download(tmp_path)[1]
    assert difference(half, full) > 1
    x = to_tensor(image)[None]
    assert difference(half, to_image(models["first"].translate(x, Domain.B, strength=0.5)[0])) <= 1

    visit.page.get_by_label("Strength").fill("100")
    visit.page.get_by_label("Model").select_option("second")
    visit.page.get_by_role("radio", name="<b>day → night\"'&").check()
    visit.wait()
    expect(visit.page).to_have_title("<b>day ⇄ night\"'&: translate photos")
    assert difference(visit.download(tmp_path)[1], models["second"](image, "a2b")) <= 1


def test_variations_differ_and_others_can_be_drawn(visit: Visit, files: list[Path], tmp_path: Path) -> None:
    visit.add(files[0])
    assert not visit.page.locator("#variations").is_visible()
    visit.page.get_by_role("radio", name="4").check()
    visit.wait()
    assert visit.thumbs("variations") == ["Without noise", *(f"Variation {k}" for k in range(1, 5))]
    contents = []
    for k in (1, 2):
        visit.page.get_by_role("button", name=f"Variation {k}").click()
        name, image = visit.download(tmp_path)
        assert name == f"one-rainy-{k}.png"
        contents.append(image)
    visit.page.get_by_role("button", name="Draw new ones").click()
    visit.wait()
    name, image = visit.download(tmp_path)
    assert name == "one-rainy-6.png"
    contents.append(image)
    assert all(difference(a, b) > 1 for a, b in zip(contents, contents[1:] + contents[:1], strict=True))
    visit.page.get_by_role("radio", name="Off").check()
    visit.wait()
    assert not visit.page.locator("#variations").is_visible()
    assert visit.download(tmp_path)[0] == "one-rainy.png"


def test_the_slider_shows_both_images_and_follows_the_keyboard(visit: Visit, files: list[Path]) -> None:
    visit.add(files[0])
    slider = visit.page.get_by_role("slider", name="Divider between original and translation")
    shown = visit.page.locator("#after")
    expect(shown).to_have_css("clip-path", "inset(0px 0px 0px 50%)")
    slider.press("ArrowRight")
    expect(shown).to_have_css("clip-path", "inset(0px 0px 0px 51%)")
    expect(slider).to_have_attribute("aria-valuetext", "51 % original")
    slider.press("Home")
    expect(shown).to_have_css("clip-path", "inset(0px 0px 0px 0%)")
    box = visit.page.locator("#compare").bounding_box()
    assert box
    visit.page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
    assert abs(float(slider.input_value()) - 75) <= 2


def test_all_of_it_works_by_keyboard(visit: Visit, files: list[Path]) -> None:
    """Tab reaches every control, and shows where it is."""
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Tab")
    expect(visit.page.get_by_role("button", name="Choose photos")).to_be_focused()
    with visit.page.expect_file_chooser() as chooser:
        visit.page.keyboard.press("Enter")
    chooser.value.set_files(files[:2])
    expect(visit.page.locator("#photos button")).to_have_count(2)
    visit.wait()
    reached = set()
    for _ in range(30):
        visit.page.keyboard.press("Tab")
        focused = visit.page.evaluate(
            """() => { const e = document.activeElement, label = e.labels?.[0]?.innerText.trim().split('\\n')[0];
            const marked = e.matches('input') && getComputedStyle(e).opacity === '0' ? e.parentElement : e;
            const candidates = [marked, ...marked.querySelectorAll('*')];
            const outlined = candidates.some((x) => getComputedStyle(x).outlineStyle !== 'none');
            return [e.ariaLabel || label || e.innerText, outlined || e === document.body]; }"""
        )
        reached.add(focused[0])
        assert focused[1], f"{focused[0]} shows no focus"
    expected = {
        "Model",
        "Divider between original and translation",
        "one.png",
        "two.jpg",
        "Add photos",
        "sunny → rainy",
    }
    expected |= {"Strength", "Off", "File format", "Download", "Download all", "Take a photo", "Remove this photo"}
    assert expected <= reached
    visit.page.get_by_role("button", name="Remove this photo").press("Enter")
    assert visit.thumbs("photos") == ["two.jpg"]
    expect(visit.page.get_by_role("button", name="two.jpg")).to_be_focused()
    visit.page.get_by_role("button", name="Remove this photo").press("Enter")
    expect(visit.page.get_by_role("button", name="Choose photos")).to_be_focused()


def test_photos_can_be_dropped_and_pasted(visit: Visit) -> None:
    content = list(encoded(make_image()))
    for number, (event, holder) in enumerate((("drop", "dataTransfer"), ("paste", "clipboardData")), 1):
        visit.page.evaluate(
            """([event, holder, content]) => { const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(content)], `${event}.png`, { type: "image/png" }));
            const Kind = event === "drop" ? DragEvent : ClipboardEvent;
            document.body.dispatchEvent(new Kind(event, { [holder]: data, bubbles: true, cancelable: true })); }""",
            [event, holder, content],
        )
        expect(visit.page.locator("#photos button")).to_have_count(number)
        visit.wait()
    assert visit.thumbs("photos") == ["drop.png", "paste.png"]


def test_a_photo_is_taken_with_the_camera(visit: Visit, tmp_path: Path) -> None:
    visit.page.get_by_role("button", name="Take a photo").click()
    visit.page.get_by_role("button", name="Take it").click()
    expect(visit.page.locator("#photos button")).to_have_count(1)
    visit.wait()
    (name,) = visit.thumbs("photos")
    assert re.fullmatch(r"photo-\d\d-\d\d-\d\d\.jpg", name)
    assert not visit.page.get_by_role("dialog").is_visible()
    assert min(visit.download(tmp_path)[1].size) >= 100


def test_a_bad_file_is_told_and_the_others_are_done(browser: Browser, client: Client, tmp_path: Path) -> None:
    visit = Visit(browser, client)
    (tmp_path / "notes.png").write_text("no image")
    (tmp_path / "large.png").write_bytes(bytes(1_000_001))
    make_image().save(tmp_path / "good.png")
    make_image().save(tmp_path / "scan.tif")
    visit.add(*(tmp_path / name for name in ("notes.png", "large.png", "good.png", "scan.tif")))
    assert visit.thumbs("photos") == ["notes.png, failed", "large.png, failed", "good.png", "scan.tif"]
    expect(visit.page.locator("#reason")).to_have_text(re.compile("not an image"))
    visit.page.get_by_role("button", name="large.png").click()
    expect(visit.page.locator("#reason")).to_have_text("The file is larger than 1 MB; make the photo smaller")
    assert visit.page.locator("#download").get_attribute("aria-disabled") == "true"
    visit.page.get_by_role("button", name="good.png").click()
    expect(visit.page.locator("#failure")).to_be_hidden()
    visit.page.get_by_role("button", name="scan.tif").click()  # no browser shows TIFF
    expect(visit.page.get_by_text("This browser does not show this format")).to_be_visible()
    assert visit.download(tmp_path)[1].format == "TIFF"
    visit.page.get_by_role("button", name="good.png").click()
    expect(visit.page.get_by_text("This browser does not show this format")).to_be_hidden()
    assert sum("413" in text or "415" in text for text in visit.complaints) == 1, "too large a file is not sent"
    visit.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(scheme: Any, browser: Browser, client: Client, files: list[Path]) -> None:
    visit = Visit(browser, client, viewport={"width": 390, "height": 844}, has_touch=True, color_scheme=scheme)
    visit.add(*files)
    visit.page.get_by_role("radio", name="8").check()
    visit.wait()
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 390
    heights = visit.page.evaluate(
        """[...document.querySelectorAll("button:not(.link), .button, select, .choice")]
        .filter((element) => element.offsetParent).map((element) => element.offsetHeight)"""
    )
    assert min(heights) >= 36, "large enough for a finger"
    paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper))) < 60) == (scheme == "dark")
    visit.page.context.close()
