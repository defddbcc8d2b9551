"""A loaded model translates as the saved one, images of any size, or is refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import struct
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.tiny import TINY, tiny
from unit.config import Config
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError, ImageError, ModelError, UserError
from unit.images import to_image, to_rgb, to_tensor
from unit.model.networks import build_autoencoders, parameter_count
from unit.translation import translator as module
from unit.translation.translator import MODEL_FILE, Translator

NAMES = PerDomain("sunny", "rainy")


def make(config: Config = TINY, names: PerDomain[str] = NAMES, step: int = 7, precision: str = "fp32") -> Translator:
    return Translator(build_autoencoders(config.model), config, names, step, "cpu", precision)


def load(path: Path) -> Translator:
    return Translator.load(path, "cpu", "fp32")


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / MODEL_FILE
    make().save(path)
    return path.read_bytes()


@pytest.fixture
def model(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / MODEL_FILE
    path.write_bytes(content)
    return path


def through(translator: Translator, x: Tensor, source: Domain, target: Domain, eta: Tensor | float = 0.0) -> Tensor:
    networks = translator.networks
    z = networks.encoder({source: x})[source] + eta
    return networks.generator({source: z}, [(source, target)])[source, target]


def direct(translator: Translator, x: Tensor, source: Domain) -> Tensor:
    with torch.inference_mode():
        return through(translator, x, source, source.other)


# The file


@pytest.mark.parametrize("config", [TINY, tiny(model={"normalization": "group", "shared_blocks": 0})])
def test_a_loaded_model_translates_bitwise_the_same(tmp_path: Path, config: Config) -> None:
    saved = make(config)
    saved.save(tmp_path / "x.safetensors")
    loaded = load(tmp_path / "x.safetensors")
    assert (loaded.config, loaded.names, loaded.step) == (config, NAMES, 7)
    for source in Domain:
        x = noise(2, 3, 17, 22)
        assert torch.equal(loaded.translate(x, source), saved.translate(x, source))
        assert torch.equal(loaded.translate(x, source, 3), saved.translate(x, source, 3))
        assert torch.equal(loaded.reconstruct(x, source), saved.reconstruct(x, source))


def test_shared_layers_are_stored_once(model: Path) -> None:
    networks = load(model).networks
    unshared = build_autoencoders(tiny(model={"shared_blocks": 0}).model)
    stored = sum(tensor.numel() for tensor in load_file(model).values())
    assert stored == parameter_count(build_autoencoders(TINY.model)) < parameter_count(unshared)
    assert len(set(map(id, networks.parameters()))) == len(load_file(model))


def test_the_metadata_has_all_that_translating_needs(model: Path) -> None:
    with safe_open(model, "pt") as content:
        metadata = content.metadata()
    assert Config.from_dict(json.loads(metadata.pop("config"))) == TINY
    assert metadata == {"format_version": "2", "name_a": "sunny", "name_b": "rainy", "step": "7"}


def test_a_folder_stands_for_the_model_in_it(model: Path) -> None:
    assert load(model.parent).step == load(model).step == 7


def test_loading_leaves_the_random_state_alone_and_needs_no_gradients(model: Path) -> None:
    before = torch.get_rng_state()
    translator = load(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(p.requires_grad for p in translator.networks.parameters())
    assert not any(p.is_meta for p in translator.networks.parameters())


def test_saving_is_atomic(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space"):
        make().save(model)
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]


def test_a_model_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "new\nline 'quoted' ☂"
    make().save(folder / MODEL_FILE)
    assert load(folder).step == 7


def test_an_undecodable_name_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.safetensors")
    make().save(path)
    assert "not valid UTF-8" in refusal(path)


# Sizes


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2), (3, 3), (4, 4), (4, 1), (5, 4), (3, 500), (63, 65), (64, 64), (17, 18)]
)
@pytest.mark.parametrize("downsamples", [1, 2, 3])
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_the_output_has_the_inputs_size(size: tuple[int, int], norm: str, downsamples: int) -> None:
    translator = make(tiny(model={"normalization": norm, "downsamples": downsamples}))
    for seed in (None, 0):
        out = translator.translate(noise(2, 3, *size), Domain.A, seed)
        assert out.shape == (2, 3, *size)
        assert out.dtype == torch.float32
        assert out.isfinite().all()
        assert out.abs().max() <= 1


@pytest.mark.parametrize("size", [(64, 64), (4, 8), (8, 4), (12, 20), (4, 100)])
@pytest.mark.parametrize("source", list(Domain))
def test_multiples_of_four_are_not_padded(size: tuple[int, int], source: Domain) -> None:
    translator, x = make(), noise(2, 3, *size)
    assert torch.equal(translator.translate(x, source), direct(translator, x, source))


def test_other_sizes_are_padded_at_the_right_and_bottom_and_cropped_back() -> None:
    translator, x = make(), noise(1, 3, 9, 10)
    padded = torch.cat([x, *[x[:, :, -1:]] * 3], 2)
    padded = torch.cat([padded, *[padded[..., -1:]] * 2], 3)
    assert torch.equal(translator.translate(x, Domain.A), direct(translator, padded, Domain.A)[..., :9, :10])


def test_a_batch_equals_its_images_one_by_one() -> None:
    translator, x = make(), noise(3, 3, 13, 18)
    for seed in (None, 5):
        together = translator.translate(x, Domain.B, seed)
        apart = torch.cat([translator.translate(x[n : n + 1], Domain.B, seed) for n in range(3)])
        assert torch.allclose(together, apart, atol=1e-5)


# Noise


def test_noise_is_off_even_after_training() -> None:
    networks = build_autoencoders(TINY.model).train()
    translator, x = Translator(networks, TINY, NAMES, 0, "cpu", "fp32"), noise(1, 3, 16, 16)
    assert torch.equal(translator.translate(x, Domain.A), translator.translate(x, Domain.A))
    assert torch.equal(translator.reconstruct(x, Domain.A), translator.reconstruct(x, Domain.A))


def test_a_seed_adds_repeatable_noise_to_the_code() -> None:
    translator, x = make(), noise(1, 3, 15, 16)
    plain, first, second = (translator.translate(x, Domain.A, seed) for seed in (None, 0, 1))
    assert torch.equal(first, translator.translate(x, Domain.A, 0))
    assert not torch.equal(plain, first)
    assert not torch.equal(first, second)
    twice = translator.translate(x.repeat(2, 1, 1, 1), Domain.A, 0)
    assert torch.allclose(twice[0], twice[1], atol=1e-6)


def test_the_noise_is_added_to_the_code_with_unit_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    translator, x = make(), noise(1, 3, 8, 8)
    eta = noise(1, 16, 2, 2)
    monkeypatch.setattr(module, "gaussian", lambda shape, seeds, device: eta.reshape(len(seeds), *shape))
    with torch.inference_mode():
        expected = through(translator, x, Domain.A, Domain.B, eta)
    assert torch.equal(translator.translate(x, Domain.A, 0), expected)


def test_reconstruction_stays_in_its_domain() -> None:
    translator, x = make(), noise(1, 3, 8, 8)
    for source in Domain:
        with torch.inference_mode():
            expected = through(translator, x, source, source)
        assert torch.equal(translator.reconstruct(x, source), expected)


def test_bf16_returns_fp32() -> None:
    out = make(precision="bf16").translate(noise(1, 3, 10, 10), Domain.A, 3)
    assert out.dtype == torch.float32
    assert out.shape == (1, 3, 10, 10)


# Directions


@pytest.mark.parametrize(
    ("direction", "source"),
    [("a2b", Domain.A), ("b2a", Domain.B), ("sunny2rainy", Domain.A), ("rainy2sunny", Domain.B)],
)
def test_directions(direction: str, source: Domain) -> None:
    assert make().source(direction) is source


@pytest.mark.parametrize("direction", ["", "a", "a2a", "A2B", "sunny", "sunny2sunny", "a2rainy", "x\ny", "\udcff"])
def test_an_invalid_direction_is_refused_with_the_valid_ones(direction: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make().source(direction)
    assert all(valid in str(caught.value) for valid in ("a2b", "b2a", "sunny2rainy", "rainy2sunny", "--direction"))
    assert str(caught.value).isprintable()


def test_a2b_is_from_a_to_b_whatever_the_names() -> None:
    swapped = make(names=PerDomain("b", "a"))
    assert swapped.source("a2b") is Domain.A
    assert swapped.source("b2a") is Domain.B


@pytest.mark.parametrize("names", [("day2night", "2"), ("1", "21"), ("2a", "a2"), ("a2b", "b")])
def test_names_may_contain_a_2(names: tuple[str, str]) -> None:
    translator = make(names=PerDomain(*names))
    assert translator.source(f"{names[0]}2{names[1]}") is Domain.A
    assert translator.source(f"{names[1]}2{names[0]}") is Domain.B


@pytest.mark.parametrize("names", [("x", "x2x"), ("2", "22")])
def test_ambiguous_directions_are_refused(names: tuple[str, str]) -> None:
    translator = make(names=PerDomain(*names))
    with pytest.raises(ConfigError, match=r"a2b .*b2a"):
        translator.source(f"{names[0]}2{names[1]}")
    assert translator.source("b2a") is Domain.B


# One image


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "I;16"])
@pytest.mark.parametrize("size", [(65, 63), (1, 1)])
def test_a_pil_image_gives_one_of_its_size(mode: str, size: tuple[int, int]) -> None:
    translator = make()
    steps = {"LA": ("RGBA",), "RGBA": (), "I;16": ("L",)}.get(mode, ())
    image = to_image(noise(3, size[1], size[0]))
    for step in (*steps, mode):
        image = image.convert(step)
    out = translator(image, "sunny2rainy")
    assert isinstance(out, Image.Image)
    assert (out.mode, out.size) == ("RGB", size)
    expected = translator.translate(to_tensor(to_rgb(image))[None], Domain.A)[0]
    assert np.array_equal(np.asarray(out), np.asarray(to_image(expected)))


def test_a_tensor_gives_a_tensor() -> None:
    translator, x = make(), noise(3, 65, 63)
    out = translator(x, "b2a")
    assert isinstance(out, Tensor)
    assert torch.equal(out, translator.translate(x[None], Domain.B)[0])


def test_numbers_without_a_known_white_are_refused() -> None:
    with pytest.raises(ImageError, match="no known white"):
        make()(Image.new("F", (8, 8)), "a2b")


# Memory


def test_an_image_too_large_for_the_memory_is_refused_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: 10_000_000)
    translator = make()
    translator.translate(noise(1, 3, 100, 100), Domain.A)
    with pytest.raises(UserError, match=r"for 640x480 pixels: 34 MB are needed, and 10 MB are free$"):
        translator.translate(torch.empty(1, 3, 480, 640), Domain.A)
    with pytest.raises(UserError, match=r"32 images of 100x100 "):
        translator.translate(torch.empty(32, 3, 100, 100), Domain.A)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_running_out_of_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Translator, "require_memory", lambda *_: None)
    translator, x = make(), torch.zeros(1, 3, 3000, 3000)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 150_000_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"out of memory on cpu for 3000x3000 pixels"):
            translator.translate(x, Domain.A)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_other_errors_are_not_taken_for_out_of_memory() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        make().translate(noise(1, 4, 8, 8), Domain.A)


# Files that are not models


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500 + len(str(path))
    assert not path.name.isprintable() or path.name in message
    assert caught.value.exit_status == 2
    return message


def with_metadata(path: Path, **changes: str | None) -> Path:
    with safe_open(path, "pt") as content:
        metadata = {k: v for k, v in (content.metadata() | changes).items() if v is not None}
    save_file(load_file(path), path, metadata)
    return path


def with_config(path: Path, section: str, **keys: Any) -> Path:
    config = TINY.to_dict()
    config.setdefault(section, {}).update(keys)
    return with_metadata(path, config=json.dumps(config))


def with_weights(path: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    with safe_open(path, "pt") as content:
        metadata = content.metadata()
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata)
    return path


def test_missing_files(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.safetensors")
    assert "no such file" in refusal(tmp_path / ("x" * 300))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert MODEL_FILE in refusal(empty)
    (empty / MODEL_FILE).mkdir()
    assert "not a regular file" in refusal(empty)


def test_links_and_pipes_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("pipe", "loop", "broken"):
        assert "not a regular file" in refusal(tmp_path / name)


def test_names_are_escaped_to_one_line(tmp_path: Path) -> None:
    path = tmp_path / "new\nline\x1b[31m.safetensors"
    assert r"new\nline\x1b[31m" in refusal(path)
    path.write_text("text")
    assert r"new\nline\x1b[31m" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"Just a text file, and a long enough one.\n" * 9,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**12) + b"{}",
        struct.pack("<Q", 99_999_999) + b"{}",
        struct.pack("<Q", 8) + b"no json!",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 20_000) + b"[" * 20_000,
        struct.pack("<Q", 8) + b"\xff" * 8,
    ],
)
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert "not a safetensors file" in refusal(path)


def test_a_truncated_model(model: Path) -> None:
    complete = model.read_bytes()
    for part in range(50):
        model.write_bytes(complete[: len(complete) * part // 50])
        assert "not a safetensors file" in refusal(model)
    model.write_bytes(complete + b"more")
    refusal(model)


class Hostile:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("kind", ["torch", "old torch", 2, 3, 4, 5, 0])
def test_a_pickle_runs_no_code_and_is_refused_with_the_reason(tmp_path: Path, kind: int | str) -> None:
    path, proof = tmp_path / "model.pt", tmp_path / "proof"
    if isinstance(kind, int):
        path.write_bytes(pickle.dumps(Hostile(proof), protocol=kind))
    else:
        torch.save({"x": Hostile(proof)}, path, _use_new_zipfile_serialization=kind == "torch")
    message = refusal(path)
    assert not proof.exists()
    if kind != 0:  # plain text, like any other
        assert "pickle, refused because opening one can run code" in message


def test_a_zip_is_not_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.safetensors", "w") as archive:
        archive.writestr("x", "x")
    assert "pickle" in refusal(tmp_path / "x.safetensors")


def test_a_model_of_another_program(model: Path) -> None:
    save_file({"x": torch.zeros(3)}, model)
    assert "not a model of this program" in refusal(model)
    for version in ("", "one", "-1", "0", "1.0", "1\n", "9" * 5000):
        make().save(model)
        assert "not a model of this program" in refusal(with_metadata(model, format_version=version))


def test_a_newer_model_asks_for_an_update(model: Path) -> None:
    message = refusal(with_metadata(model, format_version="3"))
    assert "newer than this program supports" in message
    assert "update" in message


@pytest.mark.parametrize("key", ["config", "name_a", "name_b", "step"])
def test_missing_metadata(model: Path, key: str) -> None:
    assert f"no '{key}'" in refusal(with_metadata(model, **{key: None}))


@pytest.mark.parametrize(
    "config",
    [
        "",
        "no json",
        "[]",
        "[1]",
        "null",
        "1",
        '"text"',
        '{"model": 1}',
        '{"model": [1]}',
        '{"model": null}',
        '{"mdoel": {}}',
        '{"model": {"chanels": 4}}',
        '{"model": {"channels": "4"}}',
        '{"model": {"channels": null}}',
        '{"model": {"channels": [4]}}',
        '{"model": {"channels": -1}}',
        '{"model": {"channels": 4.5}}',
        '{"model": {"channels": NaN}}',
        '{"model": {"channels": Infinity}}',
        '{"model": {"\\n\\u001b[31m": 1}}',
        '{"data": {"name_a": 5}}',
        '{"train": {"device": 5}}',
        "[" * 100_000,
        '{"model": {"channels": ' + "9" * 5000 + "}}",
        '{"model": {"channels": ' + "9" * 1000 + "}}",
    ],
)
def test_invalid_configs(model: Path, config: str) -> None:
    refusal(with_metadata(model, config=config))


@pytest.mark.parametrize("value", [10**5, 10**9, 2**31, 10**18, 2**62, 2**64, 10**400])
@pytest.mark.parametrize("key", ["channels", "residual_blocks"])
def test_hostile_sizes_do_not_hang(model: Path, key: str, value: int) -> None:
    refusal(with_config(model, "model", **{key: value}))


def test_hostile_sizes_are_not_allocated(model: Path) -> None:
    with_config(model, "model", channels=800)  # 368 MB a convolution
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 50_000  # KB


def test_discriminators_are_not_built(model: Path) -> None:
    """The largest that the configuration allows, which no memory would hold."""
    load(with_config(model, "model", discriminator_channels=10_000, discriminator_layers=12, discriminator_scales=12))


def test_both_sizes_hostile(model: Path) -> None:
    refusal(with_config(model, "model", residual_blocks=10**9, shared_blocks=10**9, channels=10**9))


@pytest.mark.parametrize(
    "keys", [{"channels": 6}, {"residual_blocks": 3}, {"shared_blocks": 0}, {"residual_blocks": 1}]
)
def test_weights_of_another_configuration(model: Path, keys: dict[str, int]) -> None:
    assert "do not fit its configuration" in refusal(with_config(model, "model", **keys))


def first(weights: dict[str, Tensor]) -> str:
    return next(iter(weights))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.clear(), "configuration"),
        (lambda w: w.pop(first(w)), "do not fit"),
        (lambda w: w.update(extra=torch.zeros(1)), "do not fit .*extra"),
        (lambda w: w.update({"new\nline\x1b": torch.zeros(1)}), "do not fit"),
        (lambda w: w.update({first(w): torch.zeros(2, 3)}), "do not fit"),
        (lambda w: w.update({first(w): torch.zeros(())}), "do not fit"),
        (lambda w: w.update({k: t.half() for k, t in w.items()}), "do not fit"),
        (lambda w: w.update({k: t.double() for k, t in w.items()}), "do not fit"),
        (lambda w: w.update({first(w): w[first(w)].to(torch.int32)}), "do not fit"),
        (lambda w: w[first(w)].view(-1)[-1:].fill_(float("nan")), "NaN or Inf"),
        (lambda w: w[list(w)[-1]].view(-1)[0:1].fill_(float("inf")), "NaN or Inf"),
        (lambda w: w[list(w)[-1]].view(-1)[0:1].fill_(-float("inf")), "NaN or Inf"),
    ],
)
def test_wrong_weights(model: Path, change: Callable[[dict[str, Tensor]], object], words: str) -> None:
    assert re.search(words, refusal(with_weights(model, change)))


@pytest.mark.parametrize("names", [("x\ny", "b"), ("", "b"), (" ", "b"), ("a", "\x1b[31m"), ("same", "same")])
def test_invalid_names(model: Path, names: tuple[str, str]) -> None:
    assert "names" in refusal(with_metadata(model, name_a=names[0], name_b=names[1]))


@pytest.mark.parametrize("step", ["", "x", "1.5", "9" * 5000])
def test_invalid_steps(model: Path, step: str) -> None:
    assert "metadata" in refusal(with_metadata(model, step=step))


def test_flipped_bits_never_raise_another_error(model: Path) -> None:
    original = bytearray(model.read_bytes())
    header = 8 + struct.unpack("<Q", original[:8])[0]
    rng = np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(original)
        changed[rng.integers(header)] ^= 1 << int(rng.integers(8))
        model.write_bytes(changed)
        with suppress(ModelError):  # some bits change nothing, or a name
            load(model)


def test_the_file_may_change_after_loading(model: Path) -> None:
    translator, x = load(model), noise(1, 3, 8, 8)
    before = translator.translate(x, Domain.A)
    with model.open("r+b") as file:
        file.write(b"\0" * model.stat().st_size)
    assert torch.equal(translator.translate(x, Domain.A), before)


def test_a_translator_leaves_its_input_alone() -> None:
    x = noise(1, 3, 8, 8)
    before = x.clone()
    make().translate(x, Domain.A, 1)
    assert torch.equal(x, before)


def test_later_training_takes_effect() -> None:
    translator, x = make(), noise(1, 3, 8, 8)
    before = translator.translate(x, Domain.A)
    with torch.no_grad():
        nn.init.ones_(next(translator.networks.generator.private["b"].parameters()))
    assert not torch.equal(translator.translate(x, Domain.A), before)
