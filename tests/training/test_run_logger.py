"""A run's logs, read back from the event files and seen in TensorBoard's page by a browser."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import sync_playwright
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tiny import TINY, metrics, tiny
from unit.domains import Domain, PerDomain
from unit.training.loop import train
from unit.training.run_logger import RunLogger

METRICS = {
    *("kid", "kid_low", "kid_high", "psnr", "ssim", "feature_distance", "pixel_accuracy", "colour_correlation"),
    *("identity_distance", "spread", "cycle_psnr", "reconstruction_psnr", "kid_vgg", "kid_vgg_low", "kid_vgg_high"),
    *("sharpness", "st_lpips"),
}
DIAGNOSTICS = ("identity_distance", "reconstruction_distance", "colour_correlation", "hidden_code", "spread")
DOMAIN_DIAGNOSTICS = ("active_units", "discriminator_accuracy", "logit_deviation", "overfitting")
SCALARS = {
    *(f"loss/{part}_total" for part in ("generator", "discriminator")),
    *(
        f"loss/{term}_{i}"
        for term in ("adversarial", "reconstruction", "kl", "cycle", "cycle_kl", "discriminator")
        for i in Domain
    ),
    *(
        f"optimizer/{what}_{part}"
        for what in ("learning_rate", "gradient_norm")
        for part in ("generator", "discriminator")
    ),
    *(f"discriminator/{verdict}_logit_{i}" for verdict in ("real", "fake") for i in Domain),
    *(f"vital/{name}_{i.direction}" for name in DIAGNOSTICS for i in Domain),
    *(f"vital/{name}_{i}" for name in DOMAIN_DIAGNOSTICS for i in Domain),
    *(f"val/{metric}_{i.direction}" for metric in METRICS for i in Domain),
    "perf/images_per_second",
    "perf/data_wait_fraction",
}
"""The tags of the scalar page; scripts and habits depend on them."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TINY in two parts, the second of which resumes from before the end of the first, as after a crash."""
    path = tmp_path_factory.mktemp("logger") / "run"
    train(tiny(train={"steps": 4}), path)
    (path / "checkpoints" / "step-00000004.pt").unlink()
    train(TINY, path)
    return path


def board(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    return events


def test_the_event_files_hold_every_tag(run: Path) -> None:
    tags = board(run).Tags()
    first = {"loss_generator", "loss_discriminator", "kid_sunny_to_rainy", "kid_rainy_to_sunny"}
    scalars = {tag for tag in tags["scalars"] if not tag.startswith("alarm/")}
    assert scalars == SCALARS | {f"_overview/{name}" for name in first}
    samples = {f"_overview/samples_{way}" for way in ("sunny_to_rainy", "rainy_to_sunny")}
    assert set(tags["images"]) == {"samples/a2b", "samples/b2a"} | samples
    assert {tag.removesuffix("/text_summary") for tag in tags["tensors"]} == {"config", "environment", "dataset"}


def test_alarms_are_curves_only_while_they_are_on(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, None)
    for step, value in enumerate((0.0, 1.0, 0.0)):
        logger.scalars(step, {"alarm/quiet_a": 0.0, "alarm/loud_a": value, "perf/zero": 0.0})
    logger.close()
    assert board(tmp_path).Tags()["scalars"] == ["perf/zero", "alarm/loud_a"]
    assert [event.step for event in board(tmp_path).Scalars("alarm/loud_a")] == [1]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["alarm/loud_a"] for line in lines] == [0, 1, 0]


def test_a_resumed_run_logs_no_step_twice_and_leaves_none_out(run: Path) -> None:
    events = board(run)
    assert [event.step for event in events.Scalars("loss/kl_a")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("val/psnr_a2b")] == [3, 6]
    assert [event.step for event in events.Images("samples/a2b")] == [0, 3, 6]


def test_the_curves_are_the_lines_of_the_metrics_file(run: Path) -> None:
    events = board(run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for tag in SCALARS - {"perf/images_per_second", "perf/data_wait_fraction"}:
        expected = {line["step"]: line[tag] for line in lines if tag in line}
        assert {event.step: event.value for event in events.Scalars(tag)} == pytest.approx(expected, rel=1e-6)


def test_the_terms_as_logged_sum_up_to_the_totals(run: Path) -> None:
    for line in metrics(run):
        if "loss/generator_total" not in line:
            continue
        for part, names in (
            ("generator", ("adversarial", "reconstruction", "kl", "cycle", "cycle_kl")),
            ("discriminator", ("discriminator",)),
        ):
            terms = [line[f"loss/{name}_{i}"] for name in names for i in Domain]
            assert sum(terms) == pytest.approx(line[f"loss/{part}_total"], rel=1e-5)


def test_the_configuration_is_there_as_text(run: Path) -> None:
    (event,) = board(run).Tensors("config/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert "lambda2: 100.0" in text
    assert "batch_size: 2" in text


def test_the_first_grid_shows_the_held_out_images_as_they_are(run: Path) -> None:
    """The leftmost column of the grid is the input; the image file is the grids of both directions side by side."""
    from unit.data.batches import held_out_image
    from unit.data.datasets import open_datasets
    from unit.images import to_image

    images = open_datasets(TINY.data).test.images
    sheet = Image.open(run / "samples" / "step-00000000.png")
    block, gap = 4 * 16 + 3 * 2, 2  # input, translation, cycle and reconstruction of 16 px
    assert sheet.size == (2 * block + 4 * gap, 2 * (2 * 16 + gap) + 12)
    for i, top in ((Domain.A, 0), (Domain.B, 2 * 16 + gap + 12)):
        for number, (column, row) in enumerate([(0, 0), (0, 1), (1, 0)]):
            left, upper = column * (block + 4 * gap), top + row * (16 + gap)
            cell = sheet.crop((left, upper, left + 16, upper + 16))
            expected = to_image(held_out_image(images[i], number, TINY.data))
            assert np.array_equal(np.asarray(cell), np.asarray(expected))


def test_names_are_shown_escaped(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, None)
    logger.text(0, "dataset", "a: <script>alert(1)</script>, 3 images\n# b")
    logger.close()
    (event,) = board(tmp_path).Tensors("dataset/text_summary")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the page's own sanitizer is deprecated
        from tensorboard.plugin_util import markdown_to_safe_html
    html = markdown_to_safe_html(event.tensor_proto.string_val[0])
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script>" not in html


def test_lines_after_the_start_and_broken_ones_are_dropped(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step}) for step in (1, 2, 3)]
    odd = ['{"step": 2, "lo', '{"step": 1e400}', '{"step": null}', "[" * 100_000, '{"step": NaN}', "\xff"]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, *odd]))
    RunLogger(tmp_path, 2).close()
    assert metrics(tmp_path) == [{"step": 1}, {"step": 2}]


def test_a_clock_set_back_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for start, step in ((None, 1), (1, 2)):
        logger = RunLogger(tmp_path, start)
        logger.scalars(step, {"x": 1.0})
        logger.close()
        monkeypatch.setattr("unit.training.run_logger.time.time_ns", lambda: 10**18)
    assert [event.step for event in board(tmp_path).Scalars("x")] == [1, 2]


def test_sample_colours_are_never_stretched(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, None)
    logger.samples(5, PerDomain(torch.full((3, 4, 4), -0.5), torch.full((3, 4, 4), 0.25)))
    logger.close()
    image = Image.open(tmp_path / "samples" / "step-00000005.png")
    assert image.getpixel((0, 0)) == (64, 64, 64)
    assert image.getpixel((0, image.height - 1)) == (159, 159, 159)
    content = board(tmp_path).Images("samples/a2b")[0].encoded_image_string
    (tmp_path / "one.png").write_bytes(content)
    assert Image.open(tmp_path / "one.png").getpixel((0, 0)) in ((63, 63, 63), (64, 64, 64))


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def tensorboard(run: Path) -> Iterator[str]:
    """The address of a TensorBoard that shows the run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(run),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/data/runs")
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=20)


def _wait_for(address: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(address)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_page_shows_scalars_and_images(tensorboard: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page(viewport={"width": 1600, "height": 9000})
        # The page draws the cards in view alone, twelve at most: those that a filter leaves, in a high window.
        page.goto(f"{tensorboard}/?tagFilter=total|learning_rate|psnr|samples#timeseries")
        for tag in ("loss/generator_total", "optimizer/learning_rate_generator", "val/psnr_a2b"):
            page.locator("scalar-card").filter(has_text=tag).first.wait_for(timeout=60_000)
        for tag in ("samples/a2b", "samples/b2a"):
            image = page.locator("image-card").filter(has_text=tag).locator("img")
            image.wait_for(timeout=60_000)
            assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0, tag
        browser.close()
