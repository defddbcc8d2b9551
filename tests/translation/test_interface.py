"""The methods for images of all kinds give what the networks give for the same batch, also from several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tests.tiny import TINY, tiny
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError, DataError, ImageError, UserError
from unit.images import to_image, to_tensor
from unit.model.networks import build_autoencoders
from unit.translation.translator import Tile, Translator

A, B = Domain


@pytest.fixture(scope="module")
def translator() -> Translator:
    return make()


def make(tile: Tile = None, precision: str = "fp32") -> Translator:
    torch.manual_seed(0)
    return Translator(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 7, "cpu", precision, tile)


def pixels(height: int = 13, width: int = 18, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tensor(height: int = 13, width: int = 18, seed: int = 0) -> Tensor:
    return to_tensor(Image.fromarray(pixels(height, width, seed)))


KINDS: dict[str, Callable[[], Any]] = {
    "PIL": lambda: Image.fromarray(pixels()),
    "array": pixels,
    "tensor": tensor,
    "batch": lambda: torch.stack([tensor(), tensor(seed=1)]),
}


def levels(result: Any) -> NDArray[Any]:
    if isinstance(result, Tensor):
        return np.stack([np.asarray(to_image(x)) for x in result]) if result.ndim == 4 else levels(to_image(result))
    return np.asarray(result)


@pytest.mark.parametrize("kind", KINDS)
def test_each_method_takes_each_kind_and_returns_it(translator: Translator, kind: str) -> None:
    image = KINDS[kind]()
    x = image if kind == "batch" else tensor()[None]

    def same(result: Any, expected: Tensor) -> bool:
        assert type(result) is type(image)
        return np.array_equal(levels(result), levels(expected if kind == "batch" else expected[0]))

    assert same(translator(image, "sunny2rainy"), translator.translate(x, A))
    assert same(translator(image, "b2a", strength=0.25), translator.translate(x, B, strength=0.25))
    assert same(translator.reconstruct(image, "rainy"), translator.translate(x, B, strength=0))
    samples = translator.sample(image, "a2b", 3, 5)
    assert len(samples) == 3
    assert all(same(sample, translator.translate(x, A, 5 + k)) for k, sample in enumerate(samples))
    (weak,) = translator.sample(image, "a2b", 1, 5, strength=0.25)
    assert same(weak, translator.translate(x, A, 5, strength=0.25))
    code = translator.encode(image, "sunny", 4)
    assert code.shape == ((2,) if kind == "batch" else ()) + (16, 4, 5)
    assert same_image(translator.decode(code, "rainy", (13, 18)), translator.translate(x, A, 4), kind)


def same_image(result: Tensor, expected: Tensor, kind: str) -> bool:
    return torch.equal(result, expected if kind == "batch" else expected[0])


def test_a_list_gives_what_its_images_give(translator: Translator) -> None:
    images = [tensor(), tensor(8, 9), tensor(seed=1), tensor(20, 4), tensor(8, 9, 2)]
    methods: list[Callable[[Any], Any]] = [
        lambda x: translator(x, "a2b"),
        lambda x: translator.reconstruct(x, "b"),
        lambda x: translator.encode(x, "a"),
    ]
    for method in methods:
        together = method(images)
        assert len(together) == 5
        for image, result in zip(images, together, strict=True):
            assert torch.allclose(result, method(image), rtol=0, atol=1e-3)
    first, second = translator.sample(tuple(images), "a2b", 2)
    assert torch.allclose(second[3], translator.sample(images[3], "a2b", 2)[1], rtol=0, atol=1e-3)
    assert not torch.equal(first[3], second[3])
    assert translator([], "a2b") == []


def test_a_list_may_mix_kinds(translator: Translator) -> None:
    images: list[Any] = [Image.fromarray(pixels()), pixels(), tensor()]
    results = translator(images, "a2b")
    assert [type(result) for result in results] == [type(image) for image in images]
    for result in results:
        assert np.abs(levels(result).astype(int) - levels(translator(tensor(), "a2b"))).max() <= 1


@pytest.mark.parametrize("tile", [None, 8])
@pytest.mark.parametrize("source", list(Domain))
def test_decoding_the_code_in_the_other_domain_is_the_translation(source: Domain, tile: Tile) -> None:
    translator, x = make(tile), torch.stack([tensor(), tensor(seed=1)])
    code = translator.encode(x, source)
    kept = code.clone()
    for domain, expected in (
        (source.other, translator.translate(x, source)),
        (source, translator.reconstruct(x, source)),
    ):
        assert torch.equal(translator.decode(code, domain, (13, 18)), expected)
        assert torch.equal(translator.decode(code, domain)[..., :13, :18], expected)
    assert torch.equal(code, kept)
    assert translator.decode(code, "a").shape == (2, 3, 16, 20)


def test_domains_by_letter_and_name(translator: Translator) -> None:
    assert torch.equal(translator.encode(tensor(), "rainy"), translator.encode(tensor(), "b"))
    assert torch.equal(translator.encode(tensor(), "sunny"), translator.encode(tensor(), A))
    assert not torch.equal(translator.encode(tensor(), "a"), translator.encode(tensor(), "b"))


@pytest.mark.parametrize(
    ("mistake", "error", "words"),
    [
        (lambda t: t(tensor(), "sunny"), ConfigError, "direction sunny: must be a2b"),
        (lambda t: t.reconstruct(tensor(), "sunny2rainy"), ConfigError, r"domain sunny2rainy: must be a \(sunny\)"),
        (lambda t: t.encode(tensor(), "\n"), ConfigError, "domain"),
        (lambda t: t(tensor(), "a2b", strength=1.5), ConfigError, "strength 1.5: must be from 0"),
        (lambda t: t(tensor(), "a2b", strength=float("nan")), ConfigError, "strength nan"),
        (lambda t: t("x.png", "a2b"), ImageError, "str is no image; give"),
        (lambda t: t([tensor(), "x.png"], "a2b"), ImageError, r"images\[1\]: str is no image"),
        (lambda t: t.encode([tensor(), None], "a"), ImageError, r"images\[1\]: NoneType"),
        (lambda t: t.decode(torch.zeros(4, 4), "a"), DataError, r"code of torch.float32 \(1, 4, 4\).*\(16, h, w\)"),
        (lambda t: t.decode(torch.zeros(15, 4, 4), "a"), DataError, "code"),
        (lambda t: t.decode(torch.zeros(16, 4, 4).int(), "a"), DataError, "code of torch.int32"),
        (lambda t: t.decode(torch.zeros(16, 0, 4), "a"), DataError, "code"),
        (lambda t: t.decode(torch.full((16, 4, 4), torch.nan), "a"), DataError, "NaN or Inf"),
    ],
)
def test_mistakes_are_one_line(
    translator: Translator, mistake: Callable[[Translator], object], error: type[UserError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        mistake(translator)
    assert str(caught.value).isprintable()


# Strength


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tile", [None, 8])
@pytest.mark.parametrize("source", list(Domain))
def test_strength_goes_from_the_reconstruction_to_the_translation(source: Domain, tile: Tile, precision: str) -> None:
    translator, x = make(tile, precision), torch.stack([tensor(), tensor(seed=1)])
    for seed in (None, 3):
        code = translator.encode(x, source, seed)
        ends = [translator.translate(x, source, seed, strength=strength) for strength in (0.0, 1.0)]
        assert torch.equal(ends[1], translator.translate(x, source, seed))
        assert torch.equal(translator.translate(x, source, strength=0.0), translator.reconstruct(x, source))
        assert not torch.equal(*ends)
        if precision == "fp32":
            assert torch.equal(ends[0], translator.decode(code, source, (13, 18)))
        for strength in (0.25, 0.5, 1e-6):
            between = translator.translate(x, source, seed, strength=strength)
            assert torch.allclose(between, (1 - strength) * ends[0] + strength * ends[1], rtol=0, atol=1e-6)


def test_strength_leaves_the_weights_alone(translator: Translator) -> None:
    before = {name: weights.clone() for name, weights in translator.networks.state_dict().items()}
    translator(tensor(), "a2b", strength=0.5)
    after = translator.networks.state_dict()
    assert all(torch.equal(weights, after[name]) for name, weights in before.items())


# Threads


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_threads_that_share_a_translator_get_what_each_would_get_alone(precision: str) -> None:
    """In both directions and at several strengths, so that whatever one left in the networks would reach another."""
    config = tiny(model={"channels": 8})
    shared = Translator(build_autoencoders(config.model), config, PerDomain("a", "b"), 0, "cpu", precision, None)
    calls: list[Callable[[], Any]] = [
        lambda direction=direction, strength=strength, size=size: shared(tensor(*size), direction, strength=strength)
        for direction in ("a2b", "b2a")
        for strength in (0.0, 0.3, 1.0)
        for size in ((32, 40), (17, 9))
    ]
    calls += [lambda k=k: shared.sample(tensor(24, 24), "a2b", 2, k)[1] for k in range(3)]
    alone = [call() for call in calls]
    with ThreadPoolExecutor(6) as threads:
        for _ in range(4):
            together = list(threads.map(lambda call: call(), calls))
            assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))
