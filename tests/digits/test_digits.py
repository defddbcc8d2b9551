"""MNIST, USPS and SVHN are read from small files in their formats; each mistake is one line that names the file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.digits.small_sets import COUNTS, labels, pixels, write_mnist, write_svhn, write_usps
from unit.config_file import write_config
from unit.digits.config import RECIPES, SETS, AdaptationConfig, DigitsConfig, make_config, read_adaptation_config
from unit.digits.source import open_digits, require_digits
from unit.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_mnist(tmp_path)
    write_usps(tmp_path)
    write_svhn(tmp_path, monkeypatch)
    return tmp_path


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_is_read_as_it_was_written(root: Path, split: str) -> None:
    digits = open_digits(root, "mnist", split, 28)
    of = labels(COUNTS[split])
    assert np.array_equal(digits.pixels[:, 0], pixels(of, 28, 1))
    assert digits.labels is not None
    assert np.array_equal(digits.labels, of)


@pytest.mark.parametrize("split", ["train", "test"])
def test_usps_is_scaled_and_its_labels_are_the_digits(root: Path, split: str) -> None:
    digits, of = open_digits(root, "usps", split, 16), labels(COUNTS[split])
    assert digits.labels is not None
    assert np.array_equal(digits.labels, of)
    assert np.abs(digits.pixels[:, 0].astype(int) - pixels(of, 16, 2)).max() <= 1
    scaled = open_digits(root, "usps", split, 28)
    assert scaled.pixels.shape == (len(of), 1, 28, 28)
    assert abs(scaled.pixels.mean() - digits.pixels.mean()) < 3


@pytest.mark.parametrize("split", ["train", "test"])
def test_svhn_has_colors_and_its_label_10_is_the_digit_0(root: Path, split: str) -> None:
    digits, of = open_digits(root, "svhn", split, 32), labels(COUNTS[split])
    assert digits.labels is not None
    assert np.array_equal(digits.labels, of)
    assert np.array_equal(digits.pixels, np.stack([pixels(of, 32, seed) for seed in (3, 4, 5)], axis=1))


def test_without_labels_nothing_of_them_is_left(root: Path) -> None:
    assert open_digits(root, "usps", "train", 28, labelled=False).labels is None


def test_inverted_images_come_after_the_others_with_their_labels(root: Path) -> None:
    from dataclasses import replace

    digits = open_digits(root, "mnist", "train", 32)
    both = replace(digits, inverted_too=True)
    assert len(both) == 2 * len(digits) == 2 * COUNTS["train"]
    images, known = both.batch([3, COUNTS["train"] + 3])
    assert np.array_equal(images[1], 255 - images[0])
    assert np.array_equal(images[0], digits.pixels[3]), "the images themselves are not changed"
    assert digits.labels is not None
    assert known is not None
    assert known.tolist() == [digits.labels[3]] * 2


def test_a_digit_is_an_image_like_any_other(root: Path) -> None:
    digits = open_digits(root, "svhn", "test", 32)
    assert np.array_equal(np.asarray(digits.image(2)).transpose(2, 0, 1), digits.pixels[2])
    assert open_digits(root, "usps", "test", 28).image(0).mode == "RGB"
    assert digits.name(2) == "svhn-test-00002"


@pytest.mark.parametrize("name", SETS)
def test_a_missing_file_is_one_line(tmp_path: Path, name: str) -> None:
    for check in (lambda: require_digits(tmp_path, name), lambda: open_digits(tmp_path, name, "train", 28)):
        with pytest.raises(DataError, match=rf"^{tmp_path}/.*: no such file; add --download, or give another --root$"):
            check()


DAMAGED = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
    "usps": "USPS/usps.bz2",
    "svhn": "SVHN/extra_32x32.mat",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_file_is_one_line(root: Path, name: str, content: bytes | None) -> None:
    path = root / DAMAGED[name]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    with pytest.raises(DataError, match=rf"^{path.parent}: {name}'s train images ") as refused:
        open_digits(root, name, "train", 28)
    assert str(refused.value).isprintable()


def test_labels_that_are_no_digits_are_refused(root: Path) -> None:
    write_mnist(root, labels(COUNTS["train"]) + 1)
    with pytest.raises(DataError, match="do not fit each other"):
        open_digits(root, "mnist", "train", 28)


def test_svhn_without_scipy_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ConfigError, match=r"scipy.* is not installed, which SVHN needs; pip install scipy$"):
        open_digits(root, "svhn", "test", 32)


def test_the_recipes_say_what_they_are() -> None:
    def made(recipe: str, source: str = "usps", target: str = "mnist") -> AdaptationConfig:
        return make_config(DigitsConfig("x", source, target), recipe, seed=3)  # type: ignore[arg-type]

    assert all(made(recipe).train.seed == 3 for recipe in RECIPES)
    assert made("paper").data.size == 28
    assert made("paper", "svhn").data.size == 32
    assert made("paper", "svhn").train.steps == 200_000
    assert [recipe for recipe in RECIPES if made(recipe).data.labels == "target"] == ["supervised"]
    assert [recipe for recipe in RECIPES if not made(recipe).loss.adversarial] == ["source_only", "supervised"]
    assert made("paper").model.ema_decay == 0
    with pytest.raises(ConfigError, match="mnist"):
        made("paper", "mnist", "mnist")


def test_a_written_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = make_config(DigitsConfig(str(tmp_path), "usps", "mnist"), "modern", seed=2, steps=None)
    write_config(config, tmp_path / "config.yaml")
    assert read_adaptation_config(tmp_path / "config.yaml") == config
    assert read_adaptation_config(tmp_path / "nothing.yaml") is None
    (tmp_path / "config.yaml").write_text("data: {a: x}\n")
    assert read_adaptation_config(tmp_path / "config.yaml") is None
    (tmp_path / "config.yaml").write_text("a: &a [*a]\n")
    assert read_adaptation_config(tmp_path / "config.yaml") is None
