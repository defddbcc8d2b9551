import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.tiny import tiny
from unit.data.datasets import HeldOut, open_datasets, open_held_out
from unit.domains import Domain, PerDomain
from unit.errors import ImageError, OutOfMemoryError
from unit.evaluation import metrics
from unit.evaluation.evaluate import Evaluator, affordable_count, evaluate, resize_like
from unit.evaluation.grids import contact_sheet
from unit.evaluation.held_out import load_held_out
from unit.evaluation.metric_table import NAMES, PAIRED, verdict
from unit.image_source import ImageSource
from unit.images import read_image, to_tensor
from unit.model.networks import build_autoencoders
from unit.translation.files.image_files import Settings, translate_images
from unit.translation.files.jobs import find_images, plan_jobs
from unit.translation.translator import Translator

CONFIG = tiny(data={"streets_test": 19, "load_size": 16})
STREETS = open_datasets(CONFIG.data).test
KID, KID_VGG = (tuple(f"{name}{end}" for end in ("", "_low", "_high")) for name in ("kid", "kid_vgg"))


@dataclass
class Corners:
    """Features that need no network, and count what they were asked for."""

    name: str = "Corners"
    dimension: int = 3 * 4
    asked: list[int] = field(default_factory=list)

    def __call__(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        return images[:, :, :2, :2].flatten(1).cpu() + 1


@dataclass
class Patch:
    """Vectors and distances that need no network, in place of ST-LPIPS's."""

    asked: list[int] = field(default_factory=list)

    def __call__(self, images: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        self.asked.append(len(images))
        distances = None if targets is None else (images.cpu() - targets).abs().amax(dim=(1, 2, 3))
        return images[:, :, 3:6, 3:6].flatten(1).cpu() - 1, distances


@dataclass
class Source(ImageSource):
    """The first images of another source; those in `bad` can't be read."""

    source: ImageSource
    count: int
    bad: set[int] = field(default_factory=set)
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return self.source.name(index)

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        self.read.append(index)
        if index in self.bad:
            raise ImageError(f"image {index} is damaged")
        return self.source.image(index, short_side)


def unpaired(a: int, b: int, bad: set[int] | None = None) -> HeldOut:
    return HeldOut(PerDomain(Source(STREETS.images.a, a, bad or set()), Source(STREETS.images.b, b)), paired=False)


def make_translator(seed: int = 0) -> Translator:
    torch.manual_seed(seed)
    networks = build_autoencoders(CONFIG.model).requires_grad_(False)
    return Translator(networks, CONFIG, PerDomain("sunny", "rainy"), 0, "cpu", "fp32")


@pytest.fixture(scope="module")
def translator() -> Translator:
    return make_translator()


def paired_metrics(images: Tensor, target: Tensor) -> dict[str, float]:
    features = Corners()
    values = {
        "psnr": metrics.psnr(images, target),
        "ssim": metrics.ssim(images, target),
        "pixel_accuracy": metrics.pixel_accuracy(images, target),
        "st_lpips": (metrics.quantize(images) - target).abs().amax(dim=(1, 2, 3)),
        "feature_distance": metrics.feature_distance(features(metrics.quantize(images)), features(target)),
    }
    return {name: float(value.mean()) for name, value in values.items()}


def select(values: dict[str, float | None], names: tuple[str, ...]) -> dict[str, float | None]:
    return {name: values[name] for name in names}


def test_paired_metrics_in_batches_are_those_of_all_at_once(translator: Translator) -> None:
    results = evaluate(translator, STREETS, Corners(), Patch())
    images = load_held_out(STREETS.images, range(19), CONFIG.data)
    assert STREETS.rerendered is not None
    redrawn = load_held_out(STREETS.rerendered, range(19), CONFIG.data)
    for i in Domain:
        candidates = {"translated": translator.translate(images[i], i), "identity": images[i], "real": redrawn[i.other]}
        for group, candidate in candidates.items():
            assert results[i.direction][group].keys() == set(NAMES)
            expected = paired_metrics(candidate, images[i.other])
            assert select(results[i.direction][group], PAIRED) == pytest.approx(expected, rel=1e-4)


def test_metrics_against_the_input_are_those_of_all_at_once(translator: Translator) -> None:
    results = evaluate(translator, STREETS, Corners())
    images = load_held_out(STREETS.images, range(19), CONFIG.data)
    by_name = {
        "colour_correlation": metrics.color_correlation,
        "identity_distance": metrics.identity_distance,
        "spread": metrics.diversity,
    }
    for i in Domain:
        translation = translator.translate(images[i], i)
        candidates = {"translated": translation, "identity": images[i], "real": images[i.other]}
        for group, candidate in candidates.items():
            candidate = metrics.quantize(candidate)
            expected = {name: float(torch.as_tensor(by_name[name](candidate, images[i])).mean()) for name in by_name}
            assert select(results[i.direction][group], tuple(by_name)) == pytest.approx(expected, rel=1e-4)
        assert results[i.direction]["identity"]["identity_distance"] == 0
        backs = {
            "cycle_psnr": float(metrics.psnr(translator.translate(translation, i.other), images[i]).mean()),
            "reconstruction_psnr": float(metrics.psnr(translator.reconstruct(images[i], i), images[i]).mean()),
        }
        assert select(results[i.direction]["translated"], tuple(backs)) == pytest.approx(backs, rel=1e-4)
        assert select(results[i.direction]["real"], tuple(backs)) == dict.fromkeys(backs)


@pytest.mark.parametrize("test", [STREETS, unpaired(18, 5), unpaired(3, 19)], ids=["pairs", "18-5", "3-19"])
def test_sets_are_compared_with_the_held_out_images_of_the_other_domain(translator: Translator, test: HeldOut) -> None:
    """Both KIDs and sharpness; a third of 3 images leaves one for the odd half, of which there is no KID."""
    results = evaluate(translator, test, Corners(), Patch())
    images = load_held_out(test.images, range(19), CONFIG.data)
    for i in Domain:
        real = images[i.other]
        sets = {
            "translated": (metrics.quantize(translator.translate(images[i], i)), real),
            "identity": (images[i], real),
            "real": (real[::2], real[1::2]),
        }
        for group, (candidate, reference) in sets.items():
            values = results[i.direction][group]
            assert (values["images"], values["reference_images"]) == (len(candidate), len(reference))
            for names, extract in ((KID, Corners()), (KID_VGG, lambda x: Patch()(x)[0])):
                one, other = extract(candidate), extract(reference)
                if min(len(one), len(other)) < 2:
                    assert select(values, names) == dict.fromkeys(names)
                else:
                    expected = (metrics.kid(one, other), *metrics.kid_interval(one, other))
                    assert tuple(select(values, names).values()) == pytest.approx(expected, rel=1e-4)
            energies = (metrics.laplacian_energy(x).mean() for x in (candidate, reference))
            assert values["sharpness"] == pytest.approx(float(next(energies) / next(energies)), rel=1e-4)


@pytest.mark.parametrize("size", [None, 20])
def test_what_translate_writes_is_evaluated(tmp_path: Path, size: int | None) -> None:
    """Photos of all sizes, larger than any in training, compared with the files of the verb."""
    random = np.random.default_rng(0)
    for folder, sizes in (("a", ((37, 23), (24, 50), (30, 30))), ("b", ((41, 33), (37, 23), (29, 64)))):
        (tmp_path / folder).mkdir()
        for k, (height, width) in enumerate(sizes):
            image = Image.fromarray(random.integers(256, size=(height, width, 3), dtype=np.uint8))
            image.save(tmp_path / folder / f"{k}.png")
    translator, test = make_translator(), open_held_out(PerDomain(tmp_path / "a", tmp_path / "b"), paired=True)
    results = Evaluator(test, CONFIG.data, Corners(), native=True, size=size).metrics(translator)
    for i in Domain:
        out = tmp_path / f"out-{i}"
        images, _ = find_images([str(tmp_path / i)], out)
        assert all(
            outcome.status == "done"
            for outcome in translate_images(translator, plan_jobs(images, out, ".png", None), Settings(i, size))
        )
        written, inputs, truths = (
            [to_tensor(read_image(folder / f"{k}.png"))[None] for k in range(3)]
            for folder in (out, tmp_path / i, tmp_path / i.other)
        )
        truths = [resize_like(truth, image) for truth, image in zip(truths, inputs, strict=True)]
        for name, group, others in (
            ("identity_distance", written, inputs),
            ("psnr", written, truths),
            ("ssim", written, truths),
        ):
            values = [float(getattr(metrics, name)(x, y)) for x, y in zip(group, others, strict=True)]
            assert results[i.direction]["translated"][name] == pytest.approx(sum(values) / 3, rel=1e-4)
        without = [float(metrics.psnr(x, y)) for x, y in zip(inputs, truths, strict=True)]
        assert results[i.direction]["identity"]["psnr"] == pytest.approx(sum(without) / 3, rel=1e-4)
        real = torch.cat([Corners()(to_tensor(read_image(tmp_path / i.other / f"{k}.png"))[None]) for k in range(3)])
        kid = metrics.kid(torch.cat([Corners()(x) for x in written]), real)
        assert results[i.direction]["translated"]["kid"] == pytest.approx(kid, rel=1e-4)


def refusing(monkeypatch: pytest.MonkeyPatch, translator: Translator, heights: set[int]) -> None:
    """Let images of these heights be too large for the memory."""

    def require_memory(batch: int, height: int, width: int) -> None:
        if height in heights:
            raise OutOfMemoryError("out of memory")

    monkeypatch.setattr(translator, "require_memory", require_memory)


def test_an_image_too_large_for_the_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    translator = make_translator()
    refusing(monkeypatch, translator, {16})
    with pytest.raises(OutOfMemoryError, match=r"^scene-\d+\.png: out of memory; --size N "):
        evaluate(translator, STREETS)


@pytest.mark.parametrize("paired", [True, False])
def test_only_images_too_large_for_the_memory_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, paired: bool
) -> None:
    """The metrics are those without them."""
    translator = make_translator()
    names = [f"{k}.png" for k in range(5)]
    for i in Domain:
        for k, name in enumerate(names):
            large = name == names[2 if i is Domain.A else 3]
            image = STREETS.images[i].image(k).resize((16, 24) if large else (16, 20))
            (tmp_path / i).mkdir(exist_ok=True)
            image.save(tmp_path / i / name)
            if k not in (2, 3):
                (tmp_path / f"few-{i}").mkdir(exist_ok=True)
                image.save(tmp_path / f"few-{i}" / name)
    few, whole = (
        Evaluator(
            open_held_out(PerDomain(tmp_path / f"{prefix}a", tmp_path / f"{prefix}b"), paired),
            CONFIG.data,
            Corners(),
            native=True,
        )
        for prefix in ("few-", "")
    )
    expected = few.metrics(translator)
    refusing(monkeypatch, translator, {24})
    assert whole.metrics(translator) == whole.metrics(translator) == expected
    assert (few.left_out, whole.left_out) == (0, 2)
    assert "a/2.png" in caplog.text or "2.png: out of memory" in caplog.text
    sheet = contact_sheet(translator, whole.test)
    monkeypatch.undo()
    assert torch.equal(sheet, contact_sheet(translator, few.test))


def test_evaluating_files_shows_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    Evaluator(STREETS, CONFIG.data, Corners()).metrics(make_translator())
    assert terminal.getvalue() == ""
    evaluate(make_translator(), STREETS)
    assert "/19 " in terminal.getvalue()


def test_images_that_take_long_are_evaluated_in_part_where_nobody_asked_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Large(Source):
        def image(self, index: int, short_side: int | None = None) -> Image.Image:
            return super().image(index).resize((1000, 500))

    clock = [0.0]

    def translate(images: Tensor, source: Domain) -> Tensor:
        clock[0] += images.numel() / 3 / 1e6  # a second for a megapixel
        return images

    translator = make_translator()
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(translator, "translate", translate)
    small: ImageSource = Source(STREETS.images.a, 19, bad={0})
    assert affordable_count(PerDomain(small, small), translator) == 200
    large: PerDomain[ImageSource] = PerDomain(*[Large(STREETS.images.a, 19, bad={0})] * 2)
    assert affordable_count(large, translator) == 120 / (4 * 0.5 * 2)
    assert affordable_count(large, translator, size=250) == 120 / (4 * 0.125 * 2)
    assert affordable_count(large, translator, size=50_000) == 2

    def judge(images: Tensor) -> None:
        clock[0] += 0.25

    assert affordable_count(large, translator, st_lpips=judge) == 120 / ((4 * 0.5 + 4 * 0.25) * 2)


def test_swapped_folders_are_noticed() -> None:
    """A translator that brightens the dark images of A and darkens those of B, just enough."""
    translator = make_translator()
    change = PerDomain(0.5, -0.5)
    translator.translate = lambda x, i, seed=None, strength=1.0: x + change[i]  # type: ignore[method-assign]

    class Shifted(Source):
        shift = 0

        def image(self, index: int, short_side: int | None = None) -> Image.Image:
            return self.source.image(index).point(lambda value: value // 4 + self.shift)

    class Bright(Shifted):
        shift = 64

    right = HeldOut(PerDomain(Shifted(STREETS.images.a, 12), Bright(STREETS.images.a, 12)), paired=False)
    for test, swapped in ((right, False), (HeldOut(right.images.swapped(), paired=False), True)):
        evaluator = Evaluator(test, CONFIG.data, Corners(), native=True)
        results = evaluator.metrics(translator)
        assert evaluator.fits_swapped(translator, results) == swapped
        for groups in results.values():
            assert ("are the folders swapped?" in verdict(groups, swapped)) == swapped
            assert ("better than the input by" in verdict(groups, swapped)) != swapped


def test_the_identity_baseline_keeps_its_old_name_beside_the_new_one(translator: Translator) -> None:
    for groups in evaluate(translator, unpaired(3, 2), Corners()).values():
        assert groups.keys() == {"translated", "identity", "do_nothing", "real"}
        assert groups["do_nothing"] == groups["identity"]


def test_unpaired_images_have_no_paired_metrics(translator: Translator) -> None:
    results = evaluate(translator, unpaired(18, 5), Corners())
    for groups in results.values():
        for values in groups.values():
            assert select(values, PAIRED) == dict.fromkeys(PAIRED)
            assert values["spread"] is not None
        assert groups["real"]["identity_distance"] is None
        assert groups["translated"]["cycle_psnr"] is not None


def test_pairs_in_folders_have_true_counterparts_but_no_upper_bound(translator: Translator) -> None:
    results = evaluate(translator, replace(STREETS, rerendered=None), Corners())
    complete = evaluate(translator, STREETS, Corners())
    for direction, groups in results.items():
        assert groups["real"] == complete[direction]["real"] | dict.fromkeys(PAIRED)
        assert {k: v for k, v in groups.items() if k != "real"} == {
            k: v for k, v in complete[direction].items() if k != "real"
        }


def test_without_either_network_the_other_metrics_remain(translator: Translator) -> None:
    complete = evaluate(translator, STREETS, Corners(), Patch())
    for networks, gone in (
        ((None, Patch()), (*KID, "fid", "feature_distance")),
        ((Corners(), None), (*KID_VGG, "st_lpips")),
    ):
        for direction, groups in evaluate(translator, STREETS, *networks).items():
            for group, values in groups.items():
                assert values == complete[direction][group] | dict.fromkeys(gone)


@pytest.mark.parametrize(("dimension", "known"), [(9, True), (10, False)])
def test_fid_needs_twice_as_many_images_as_features(translator: Translator, dimension: int, known: bool) -> None:
    class Few(Corners):
        def __call__(self, images: Tensor) -> Tensor:
            return super().__call__(images)[:, :dimension]

    results = evaluate(translator, STREETS, Few())  # 19 images
    for groups in results.values():
        assert (groups["translated"]["fid"] is not None) == known
        assert (groups["identity"]["fid"] is not None) == known
        assert groups["real"]["fid"] is None


def test_a_second_translator_extracts_features_of_its_translations_alone() -> None:
    features, st_lpips, test = Corners(), Patch(), unpaired(18, 5)
    evaluator = Evaluator(test, CONFIG.data, features, st_lpips=st_lpips)
    first = evaluator.metrics(make_translator(1))
    assert sum(features.asked) == sum(st_lpips.asked) == 2 * (18 + 5)
    second = evaluator.metrics(make_translator(2))
    assert sum(features.asked) == sum(st_lpips.asked) == 3 * (18 + 5)
    assert second == Evaluator(test, CONFIG.data, Corners(), st_lpips=Patch()).metrics(make_translator(2))
    assert first == Evaluator(test, CONFIG.data, Corners(), st_lpips=Patch()).metrics(make_translator(1))
    assert first["a2b"]["translated"] != second["a2b"]["translated"]
    assert evaluator.metrics(make_translator(1)) == first


def test_redrawn_images_are_drawn_once(translator: Translator) -> None:
    again = PerDomain.of(lambda i: Source(STREETS.images[i], 19))
    evaluator = Evaluator(replace(STREETS, rerendered=PerDomain(again.a, again.b)), CONFIG.data, Corners())
    assert evaluator.metrics(translator) == evaluator.metrics(translator)
    assert again.a.read == again.b.read == list(range(19))


def test_long_lists_are_subsampled_evenly(translator: Translator) -> None:
    test = unpaired(18, 5)
    results = Evaluator(test, CONFIG.data, at_most=6).metrics(translator)
    assert (results["a2b"]["translated"]["images"], results["a2b"]["translated"]["reference_images"]) == (6, 5)
    assert isinstance(test.images.a, Source)
    assert test.images.a.read == [0, 3, 6, 9, 12, 15]


def test_unreadable_images_are_skipped_where_the_configuration_says_so(translator: Translator) -> None:
    skipping = replace(CONFIG.data, on_bad_image="skip")
    damaged = Source(STREETS.images.a, 19, {0, 17})
    test = replace(STREETS, images=PerDomain(damaged, STREETS.images.b))
    evaluator = Evaluator(test, skipping, Corners())
    values = evaluator.metrics(translator)
    good = [k for k in range(19) if k not in damaged.bad]
    images = load_held_out(STREETS.images, range(19), CONFIG.data).map(lambda images: images[good])
    assert values["a2b"]["translated"]["images"] == 17
    assert values["a2b"]["identity"]["psnr"] == pytest.approx(float(metrics.psnr(images.a, images.b).mean()), rel=1e-5)
    damaged.bad.add(3)
    assert evaluator.metrics(translator) == evaluate_with(translator, test)
    with pytest.raises(ImageError, match="image 0 is damaged"):
        evaluate(translator, test)


def evaluate_with(translator: Translator, test: HeldOut) -> object:
    return Evaluator(test, replace(CONFIG.data, on_bad_image="skip"), Corners()).metrics(translator)


def test_a_domain_without_a_readable_image_is_an_error(translator: Translator) -> None:
    with pytest.raises(ImageError, match="image 2 is damaged"):
        evaluate_with(translator, unpaired(3, 19, {0, 1, 2}))
    # later batches have none of A either, and nothing is wrong with that
    evaluate_with(translator, unpaired(3, 19, {0, 1}))


@pytest.mark.parametrize("size", [8, 12])
def test_images_smaller_than_its_window_have_no_ssim(size: int) -> None:
    config = tiny(data={"streets_test": 2, "load_size": size, "crop_size": size})
    networks = build_autoencoders(config.model).requires_grad_(False)
    small = Translator(networks, config, PerDomain("sunny", "rainy"), 0, "cpu", "fp32")
    values = evaluate(small, open_datasets(config.data).test)["a2b"]["translated"]
    assert (values["ssim"] is None) == (size < 11)
    assert values["psnr"] is not None


def test_one_image_each_is_enough_for_metrics_that_do_not_compare_images(translator: Translator) -> None:
    groups = evaluate(translator, unpaired(1, 1), Corners(), Patch())["a2b"]
    missing = {name for name, value in groups["translated"].items() if value is None}
    assert missing == {*KID, *KID_VGG, "fid", "spread", *PAIRED}
    assert groups["real"]["sharpness"] is None  # it has no other half
