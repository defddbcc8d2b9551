import json
import re
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import Coarse
from tests.tiny import TINY, tiny
from unit.config import Config
from unit.config_file import write_config
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError
from unit.evaluation import metric_table, metrics
from unit.evaluation.report.charts import Curve, charts, draw
from unit.evaluation.report.images import Embedded, ScoredImage, evenly_spaced, score_images, worst_and_best
from unit.evaluation.report.run import Run
from unit.evaluation.report.write import macros, text, write_report, write_report_or_warn
from unit.images import to_tensor
from unit.model.networks import build_autoencoders
from unit.translation.translator import Translator

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = (
    "<img src=x onerror=hacked=1>.png",
    "\"'><svg onload=hacked=1>&amp;.png",
    "emoji 🌧 ünd.png",
    "undecodable \udcff.png",
    "turned \u202egnp.png",
)
NAMES = PerDomain("<b>sunny", "rainy\"'&")
STEPS = (0, 3, 10, 12)


@pytest.fixture(autouse=True)
def _quick_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unit.evaluation.report.sections.features_if_installed", lambda _: Coarse())


def make_run(run: Path, config: Config, names: PerDomain[str] = NAMES, step: int = 12) -> Path:
    """A run directory as training leaves it, of random networks; the log's last line is cut short."""
    torch.manual_seed(0)
    networks = build_autoencoders(config.model).requires_grad_(False)
    Translator(networks, config, names, step, "cpu", "fp32").save(run / "model.safetensors")
    write_config(config, run / "config.yaml")
    command = ["train.py", "<script>hacked=1</script>"]
    facts: dict[str, object] = {"command": command, "device": "cpu", "precision": "fp32", "ranks": 1}
    facts |= {"training_images": dict.fromkeys(names, 5), "test_images": dict.fromkeys(names, 4)}
    (run / "environment.json").write_text(json.dumps(facts))
    lines = [
        {"step": k, **{f"loss/kl_{i}": 1 / k**2 for i in Domain}, "perf/images_per_second": 4.0} for k in (1, 6, 12)
    ]
    lines += [{"step": 6, "alarm/<i>collapse": 1}, {"step": 12, "alarm/<i>collapse": 1, "val/psnr_a2b": float("nan")}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 99, "loss/k')
    (run / "samples").mkdir()
    for k in STEPS:
        Image.new("RGB", (60, 40), (20 * k, 0, 0)).save(run / "samples" / f"step-{k:08d}.png")
    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four folders of a few images with all kinds of names, below a folder with a hostile name."""
    root, random = tmp_path_factory.mktemp("photos") / "<script>hacked=1;'&", np.random.default_rng(0)
    for k, folder in enumerate(("trainA", "trainB", "testA", "testB")):
        (root / folder).mkdir(parents=True)
        for name in HOSTILE[: 4 + k % 2]:
            Image.fromarray(random.integers(256, size=(24, 30, 3), dtype=np.uint8)).save(root / folder / name, "PNG")
    return root


@pytest.fixture
def unpaired(tmp_path: Path, photos: Path) -> Path:
    return make_run(tmp_path / "run <x>", tiny(data={"root": str(photos)}))


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    return make_run(tmp_path / "streets", tiny(data={"streets_test": 5}), PerDomain("sunny", "rainy"))


def report(run: Path, **options: object) -> str:
    return write_report(run, "cpu", "fp32", **options).read_text(encoding="utf-8")  # type: ignore[arg-type]


def sections(content: str) -> dict[str, str]:
    return dict(re.findall(r'<section id="(\w+)">(.*?)</section>', content, re.DOTALL))


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


def open_report(browser: Browser, path: Path) -> tuple[Page, list[str], list[str]]:
    """Open the report: the page, its complaints, and its requests to elsewhere."""
    page, complaints, requests = browser.new_page(viewport={"width": 400, "height": 800}), list[str](), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    page.clock.install()
    page.goto(path.as_uri())
    assert requests.pop(0) == path.as_uri()
    return page, complaints, [url for url in requests if not url.startswith("data:")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unpaired", "streets"])
def test_in_a_browser_images_load_and_nothing_is_requested(
    kind: str, browser: Browser, request: pytest.FixtureRequest
) -> None:
    run: Path = request.getfixturevalue(kind)
    page, complaints, requests = open_report(browser, write_report(run, "cpu", "fp32"))
    widths = page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    shown = {"unpaired": 2 * (4 + 5 + 4 + 4), "streets": 3 * 2 * (5 + 2 + 2)}[kind]
    assert len(widths) == shown + len(STEPS)
    assert min(widths) > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert (complaints, requests) == ([], [])
    page.close()


@pytest.mark.slow
def test_the_slider_shows_its_step(streets: Path, browser: Browser) -> None:
    page, complaints, _ = open_report(browser, write_report(streets, "cpu", "fp32"))
    slider, label = page.get_by_role("slider"), page.locator(".controls output")

    def visible() -> list[str]:
        return page.eval_on_selector_all(
            ".frames img", "found => found.filter(i => i.checkVisibility()).map(i => i.dataset.step)"
        )

    assert (visible(), label.inner_text()) == (["12"], "step 12")
    for key, step in (("ArrowLeft", "10"), ("Home", "0"), ("ArrowRight", "3"), ("End", "12")):
        slider.press(key)
        assert (visible(), label.inner_text()) == ([step], f"step {step}")
    page.clock.pause_at(time.time() + 3600)  # else it runs on by itself
    page.get_by_role("button", name="play").click()
    assert visible() == ["0"]
    page.clock.run_for(700)
    assert (visible(), label.inner_text()) == (["10"], "step 10")
    page.get_by_role("button", name="pause").click()
    page.clock.run_for(5000)
    assert visible() == ["10"]
    page.get_by_role("button", name="play").click()
    page.clock.run_for(5000)
    assert visible() == ["12"]
    assert page.get_by_role("button", name="play").count() == 1
    assert complaints == []
    page.close()


@pytest.mark.slow
def test_the_legend_shows_the_values_under_the_pointer(streets: Path, browser: Browser) -> None:
    page, complaints, _ = open_report(browser, write_report(streets, "cpu", "fp32"))
    for title, last, middle in (("KL losses", ["0.00694"] * 2, 1 / 36), ("Images per second", ["4"], 4)):
        chart = page.locator(".chart").filter(has_text=title)
        assert chart.locator("b").all_inner_texts() == last
        chart.scroll_into_view_if_needed()
        box = chart.locator("svg").bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
        assert chart.locator("output").inner_text() == "step 6"
        under = [float(value) for value in chart.locator("b").all_inner_texts()]
        assert under == pytest.approx([middle] * len(last), rel=0.02)
        page.mouse.move(0, 0)
        assert chart.locator("b").all_inner_texts() == last
    assert complaints == []
    page.close()


@pytest.mark.slow
def test_names_given_by_users_stay_text(unpaired: Path, browser: Browser) -> None:
    page, complaints, requests = open_report(browser, write_report(unpaired, "cpu", "fp32"))
    assert page.evaluate("[typeof hacked, document.scripts.length, document.querySelectorAll('main b b').length]") == [
        *("undefined", 1),
        0,
    ]
    assert page.evaluate("document.querySelectorAll('[onerror], [onload], img[src=x], main i:not(.key)').length") == 0
    words = page.inner_text("body")
    escaped = [name.replace("\udcff", "\\udcff").replace("\u202e", "\\u202e") for name in HOSTILE]
    for name in (*escaped[:4], *NAMES, "<script>hacked=1</script>", "<i>collapse", "run <x>"):
        assert name in words
    assert "\u202e" not in words
    assert (complaints, requests) == ([], [])
    page.close()


# What is in it


def test_the_same_run_gives_the_same_bytes_and_nothing_else_is_touched(unpaired: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in unpaired.rglob("*")}
    first, second = report(unpaired), report(unpaired)
    assert first == second
    after = {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in unpaired.rglob("*")}
    assert after.pop(unpaired / "report.html")
    assert after == before


def test_the_first_sentence_summarizes_the_run(streets: Path) -> None:
    introduction = report(streets).partition("<nav>")[0]
    words = re.sub("<[^>]*>", "", introduction.partition("<header>")[2])
    assert "Run streets: 12 of 6 steps in less than a minute on cpu, fp32; finished." in words
    assert "&lt;i&gt;collapse: step 6 to 12" in words


@pytest.mark.parametrize(
    ("steps", "written", "ending"),
    [(12, 12, "finished"), (20, 12, "stopped there"), (20, 8, "still training, or interrupted")],
)
def test_how_a_run_ended_follows_from_its_steps(tmp_path: Path, steps: int, written: int, ending: str) -> None:
    run = make_run(tmp_path / "run", tiny(train={"steps": steps}), step=written)
    assert f"{ending}." in report(run)


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        (["model.safetensors"], {"images", "metrics", "extremes"}),
        (["metrics.jsonl"], {"curves"}),
        (["samples"], {"steps"}),
        (["environment.json"], {"environment"}),
        (["config.yaml"], set()),
        (["config.yaml", "model.safetensors"], {"images", "metrics", "extremes", "data", "configuration"}),
        (["metrics.jsonl", "samples", "environment.json", "config.yaml"], {"curves", "steps", "environment"}),
    ],
)
def test_a_missing_part_is_named_in_its_section(streets: Path, gone: list[str], missing: set[str]) -> None:
    for name in gone:
        path = streets / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    content = sections(report(streets))
    assert len(content) == 8
    assert {key for key, section in content.items() if "unavailable" in section} == missing


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.jsonl", "environment.json", "config.yaml"])
@pytest.mark.parametrize("content", [b"\xff<script>", b"[[[", b'{"step": 1e999}\n[1]\n{"step": 5, "x": [1]}'])
def test_a_damaged_part_leaves_the_others_intact(streets: Path, name: str, content: bytes) -> None:
    (streets / name).write_bytes(content)
    assert "unavailable" not in sections(report(streets))["steps"]


def test_without_the_image_folders_it_names_them(unpaired: Path, photos: Path) -> None:
    write_config(tiny(data={"root": str(photos / "moved")}), unpaired / "config.yaml")
    content = sections(report(unpaired))
    assert {key for key, section in content.items() if "unavailable" in section} == {"images", "metrics", "extremes"}
    assert text(photos / "moved") in content["images"]
    assert text(photos / "moved") in content["data"]


def test_an_unreadable_image_is_skipped(tmp_path: Path, photos: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    damaged = tmp_path / "photos" / "testA" / HOSTILE[0]
    damaged.write_bytes(b"none")
    (tmp_path / "photos" / "trainA" / HOSTILE[1]).write_bytes(b"none")
    content = sections(report(make_run(tmp_path / "run", tiny(data={"root": str(tmp_path / "photos")}))))
    assert not any("unavailable" in section for section in content.values())
    assert text(HOSTILE[0]) not in content["images"].partition("rainy")[0]
    assert "3 images vs. 4 real" in content["metrics"]


def test_given_metrics_are_displayed(streets: Path) -> None:
    group: dict[str, float | None] = dict.fromkeys(metric_table.NAMES)
    given = {
        i.direction: {name: {**group, "kid": 100 * k + n} for n, name in enumerate(metric_table.GROUPS)}
        for k, i in enumerate(Domain, 1)
    }
    content = sections(report(streets, metrics=given, features="Corners"))["metrics"]
    rows = [re.sub("<[^>]*>", " ", row).split() for row in re.findall("<tr>(.*?)</tr>", content)]
    wanted = [["KID", "x", "1000,", "Corners", "lower", *(f"{100 * k + n}.0" for n in range(3))] for k in (1, 2)]
    assert [row for row in rows if row[0] == "KID"] == wanted


def test_empty_cells_are_explained_and_a_sentence_says_what_the_metrics_mean(unpaired: Path) -> None:
    content = sections(report(unpaired))["metrics"]
    assert "<td></td>" not in content.replace('<th scope="row">  95 % bootstrap interval</th><td></td>', "")
    assert "–: " in content.partition("</table>")[2].rpartition("<p")[2]
    assert len(re.findall('<p class="verdict">(?:better|worse|no clear|are the folders)', content)) == 2


def test_the_images_are_those_that_translate_writes(streets: Path) -> None:
    """They are 20 px, and training saw 16."""
    content = sections(report(streets))
    for key in ("images", "extremes"):
        assert set(re.findall(r'width="(\d+)" height="(\d+)"', content[key])) == {("20", "20")}


def test_changed_keys_come_before_the_complete_configuration(streets: Path) -> None:
    first, _, complete = sections(report(streets))["configuration"].partition("<details>")
    changed = {key for key, value in TINY.to_flat_dict().items() if value != Config().to_flat_dict()[key]}
    assert set(re.findall(r'<th scope="row">([\w.]+)', first)) == changed | {"data.streets_test"}
    assert "weight_decay: 0.0001" in complete


def test_the_environment_says_how_each_part_ended(streets: Path) -> None:
    assert "ended" not in sections(report(streets))["environment"]  # there is no run.log
    log = """\
2026-11-24 10:00:00+00:00 START step 0: train.py
2026-11-24 10:12:07+00:00 END step 1234: SIGTERM
2026-11-24 11:00:00+00:00 START step 1234: train.py
2026-11-24 12:00:00+00:00 START step 1000: train.py
2026-11-24 12:30:00+00:00 END step 1500: error: <img src=x>\x1b.png: damaged
2026-11-24 13:00:00+00:00 START step 1500: train.py
"""
    (streets / "run.log").write_text(log + "".join(f"<b>line {k}\n" for k in range(30)))
    content = sections(report(streets))["environment"]
    rows = [re.findall(">(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", content)]
    assert rows[-5:] == [
        ["started", "ended", "at step", "reason"],
        ["2026-11-24 10:00", "2026-11-24 10:12", "1,234", "SIGTERM"],
        ["2026-11-24 11:00", "", "", "killed (no end is recorded)"],
        ["2026-11-24 12:00", "2026-11-24 12:30", "1,500", "error: &lt;img src=x&gt;\\x1b.png: damaged"],
        ["2026-11-24 13:00", "", "", "no end is recorded: still running, or killed"],
    ]
    assert re.findall("&lt;b&gt;line (\\d+)", content.partition("<details>")[2]) == [str(k) for k in range(20, 30)]
    (streets / "environment.json").unlink()
    content = sections(report(streets))["environment"]
    assert "unavailable" in content
    assert "SIGTERM" in content


def test_a_report_of_many_large_samples_stays_below_ten_megabytes(streets: Path) -> None:
    noise = np.random.default_rng(0).integers(256, size=(900, 1500, 3), dtype=np.uint8)
    first = streets / "samples" / "step-00000020.png"
    Image.fromarray(noise).save(first, compress_level=0)
    for k in range(21, 40):
        (first.parent / f"step-{k:08d}.png").hardlink_to(first)
    steps = [int(step) for step in re.findall('data-step="(.*?)"', report(streets))]
    assert (steps[0], steps[-1]) == (0, 39)
    assert len(steps) >= 3
    assert (streets / "report.html").stat().st_size < 10e6


def test_a_folder_that_is_not_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run directory"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_at_the_end_of_a_run_a_failure_is_one_line(
    streets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert write_report_or_warn(streets, "cpu", "fp32") == streets / "report.html"
    assert not caplog.records
    monkeypatch.setattr("unit.evaluation.report.sections.curves", lambda _: 1 / 0)
    assert write_report_or_warn(streets, "cpu", "fp32") is None
    assert len(caplog.records) == 1
    assert "division by zero" in caplog.text


# Images


def test_pairs_are_rated_against_the_target_and_others_by_their_cycle(streets: Path, unpaired: Path) -> None:
    for run in (Run(streets, "cpu", "fp32"), Run(unpaired, "cpu", "fp32")):
        test, translator = run.datasets.test, run.translator
        images = test.images.map(
            lambda source: torch.stack([to_tensor(source.image(k)) for k in range(len(source))])  # of one size here
        )
        for i, scores in zip(Domain, score_images(run), strict=True):
            assert [scored.index for scored in scores] == list(range(len(test.images[i])))
            translations = translator.translate(images[i], i)
            for k, scored in enumerate(scores):
                if test.paired:
                    expected = float(metrics.ssim(translations[k][None], images[i.other][k][None]))
                else:
                    expected = float(
                        metrics.psnr(translator.translate(translations, i.other)[k][None], images[i][k][None])
                    )
                assert scored.score == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_long_lists_are_rated_in_part(streets: Path) -> None:
    write_config(tiny(data={"streets_test": 5}), streets / "config.yaml")
    run = Run(streets, "cpu", "fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unit.evaluation.evaluate._MAX_IMAGES", 2)
        assert [scored.index for scored in score_images(run).a] == [0, 3]


def test_the_worst_come_first_and_no_image_is_both_worst_and_best() -> None:
    scores = [ScoredImage(score, k) for k, score in enumerate((0.5, 0.1, 0.9, 0.3, 0.7))]
    worst, best = worst_and_best(scores, 12)
    assert [scored.index for scored in worst] == [1, 3]
    assert [scored.index for scored in best] == [2, 4]
    assert worst_and_best(scores, 1) == ([scores[1]], [scores[2]])
    assert worst_and_best(scores[:1], 12) == ([], [])


@pytest.mark.parametrize("count", [2, 3, 40])
def test_evenly_spaced_keeps_the_first_and_the_last(count: int) -> None:
    items = [(k, Path()) for k in range(100)]
    chosen = [k for k, _ in evenly_spaced(items, count)]
    assert len(chosen) == count
    assert (chosen[0], chosen[-1]) == (0, 99)
    gaps = {b - a for a, b in pairwise(chosen)}
    assert max(gaps) - min(gaps) <= 1
    assert evenly_spaced(items[:count], count) == items[:count]


# Curves


def curve(values: object, stride: int = 1) -> Curve:
    array = np.asarray(values, dtype=float)
    return Curve("curve", stride * np.arange(len(array)), array)


def test_thinning_keeps_every_peak() -> None:
    values = np.random.default_rng(0).normal(size=12_345)
    values[7000], values[7001] = 50, -60
    points = curve(values, stride=7)
    thin = points.thinned()
    assert len(thin.steps) <= 500
    assert np.array_equal(thin.values, values[thin.steps // 7])
    assert (np.diff(thin.steps) > 0).all()
    assert {50.0, -60.0} <= set(thin.values)
    assert curve(values[:500]).thinned().values.tolist() == values[:500].tolist()


def test_smoothing_keeps_a_line_and_reduces_noise() -> None:
    line, zigzag = curve(3.0 * np.arange(400)), curve((-1.0) ** np.arange(400))
    assert np.allclose(line.smoothed().values, line.values)
    assert np.abs(zigzag.smoothed().values[4:-4]).max() < 0.15
    assert (line.noisy, zigzag.noisy, curve(zigzag.values[:20]).noisy) == (False, True, False)


def test_related_losses_share_axes_and_alarms_are_not_curves() -> None:
    tags = [f"loss/{term}_{i}" for i in Domain for term in ("cycle", "reconstruction", "kl", "cycle_kl", "brand_new")]
    tags += ["alarm/collapse", "optimizer/learning_rate_generator", "val/psnr_a2b", "perf/gpu_memory_gb"]
    tags += ["val/kid_vgg_low_b2a", "val/kid_vgg_b2a", "val/st_lpips_a2b", "val/sharpness_a2b"]
    drawn = charts({tag: {1: 2.0} for tag in tags} | {"val/empty": {}}, PerDomain("sun", "rain"))
    labels = {title: [curve.label for curve in curves] for title, curves in drawn.items()}
    assert labels == {
        "Reconstruction and cycle losses": ["reconstruction, sun", "reconstruction, rain", "cycle, sun", "cycle, rain"],
        "KL losses": ["KL, sun", "KL, rain", "cycle KL, sun", "cycle KL, rain"],
        "Learning rates": ["learning rate generator"],
        "Loss: brand new": ["brand new, sun", "brand new, rain"],
        "Held out: KID-VGG": ["KID VGG, rain → sun", "KID VGG low, rain → sun"],
        "Held out: ST-LPIPS": ["ST LPIPS, sun → rain"],
        "Held out: PSNR": ["PSNR, sun → rain"],
        "Held out: sharpness": ["sharpness, sun → rain"],
        "GPU memory GB": ["GPU memory GB"],
    }


@pytest.mark.parametrize(
    "values",
    [[5.0], [0.0, 0.0], [1e-9, 1e9], [-3.0, 4.0], [1e30, -1e30], [0.001] * 9, [0.0, 1e-30], [7.0, 8.0, 160.0]],
)
def test_curves_of_all_ranges_lie_inside_their_axes(values: list[float]) -> None:
    svg = macros().chart(draw("any", [Curve("<x>", np.arange(len(values)) + 10**6, np.array(values))]))
    spots = re.findall(r"([-\d.]+),([-\d.]+)", "".join(re.findall('points="(.*?)"', svg)))
    spots += re.findall(r'cx="(.*?)" cy="(.*?)"', svg)
    assert len(spots) >= len(values)
    assert all(52 <= float(x) <= 432 and 10 <= float(y) <= 204 for x, y in spots)
    assert "<x>" not in svg


def test_the_largest_value_is_at_the_top_and_the_last_step_on_the_right() -> None:
    svg = macros().chart(draw("any", [Curve("x", np.array([0, 5, 10]), np.array([1.0, 3.0, 2.0]))]))
    (points,) = re.findall('class="line c0" points="(.*?)"', svg)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points.split())
    assert (x0, x1, x2) == (52, 242, 432)
    assert y1 < y2 < y0
    assert y2 == (y0 + y1) / 2


def test_attributes_and_text_are_never_markup() -> None:
    nasty = "\"'<>&\n\udcff"
    assert text(nasty) == "&#34;&#39;&lt;&gt;&amp;\\n\\udcff"
    image = macros().image(Embedded("data:,", nasty, 1, 2, title=nasty))
    assert image.strip() == f'<img src="data:," alt="{text(nasty)}" width="1" height="2" title="{text(nasty)}">'
    assert text(nasty) in macros().table([], [[nasty, nasty]])
