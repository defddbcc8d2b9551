"""The networks: what they share, their shapes, and that running domains together or by layer changes no result."""

import copy
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from unit.config import ModelConfig
from unit.domains import Domain, PerDomain
from unit.model.layers import BlurPool, Downsample, initialize, normalization, upsample
from unit.model.networks import (
    RECONSTRUCTIONS,
    TRANSLATIONS,
    Direction,
    Discriminator,
    build_autoencoders,
    build_discriminators,
    parameter_count,
)

SMALL = ModelConfig(channels=4, residual_blocks=3, shared_blocks=2)


def make_images(height: int = 16, width: int = 24, batch: int = 2) -> PerDomain[Tensor]:
    return PerDomain.of(lambda _: torch.rand(batch, 3, height, width) * 2 - 1)


def by_domain(pair: PerDomain[Tensor]) -> dict[Domain, Tensor]:
    return {i: pair[i] for i in Domain}


def test_the_papers_networks_have_the_papers_number_of_parameters() -> None:
    assert parameter_count(build_autoencoders(ModelConfig())) == 18_017_286
    assert parameter_count(build_discriminators(ModelConfig())) == 9_308_934


def test_frozen_parameters_count_too() -> None:
    discriminators = build_discriminators(SMALL)
    count = parameter_count(discriminators)
    assert parameter_count(discriminators.requires_grad_(False)) == count > 0


@pytest.mark.parametrize("shared", [0, 1, 3])
def test_shared_layers_stand_once_beside_private_ones_of_each_domain(shared: int) -> None:
    networks = build_autoencoders(ModelConfig(channels=4, residual_blocks=3, shared_blocks=shared))
    for network in (networks.encoder, networks.generator):
        assert {name for name, _ in network.named_children()} == {"shared", "private"}
        assert len(list(network.shared.children())) == shared
        assert list(network.private) == ["a", "b"]
        private = [{id(p) for p in network.private[i.value].parameters()} for i in Domain]
        assert private[0]
        assert not private[0] & private[1]
    names = [name for name, _ in networks.named_parameters(remove_duplicate=False)]
    assert len(names) == len(list(networks.parameters())), "a state lists no tensor twice"


def test_shared_blocks_change_only_how_many_parameters_are_shared() -> None:
    block = 2 * (16 * 16 * 9 + 16)
    counts = [
        parameter_count(build_autoencoders(ModelConfig(channels=4, residual_blocks=3, shared_blocks=n)))
        for n in range(4)
    ]
    # Each shared block saves one copy in the encoders and one in the generators.
    assert [counts[n] - counts[n + 1] for n in range(3)] == [2 * block] * 3


def test_a_copy_shares_its_own_layers() -> None:
    networks = build_autoencoders(SMALL)
    clone = copy.deepcopy(networks)
    assert parameter_count(clone) == parameter_count(networks)
    with torch.no_grad():
        for p in clone.encoder.shared.parameters():
            p.zero_()
    x = by_domain(make_images())
    assert all(not torch.equal(clone.encoder(x)[i], networks.encoder(x)[i]) for i in Domain), "both domains changed"


def test_encoding_both_domains_together_equals_encoding_each_alone() -> None:
    encoder, x = build_autoencoders(SMALL).encoder, by_domain(make_images())
    together = encoder(x)
    for i in Domain:
        torch.testing.assert_close(together[i], encoder.shared(encoder.private[i.value](x[i])))
        torch.testing.assert_close(together[i], encoder({i: x[i]})[i])


def test_domains_may_have_batches_of_different_sizes() -> None:
    networks = build_autoencoders(SMALL)
    x = {Domain.A: make_images(batch=1).a, Domain.B: make_images(batch=3).b}
    mu = networks.encoder(x)
    out = networks.generator(mu, RECONSTRUCTIONS + TRANSLATIONS)
    for i in Domain:
        torch.testing.assert_close(mu[i], networks.encoder({i: x[i]})[i])
        for j in Domain:
            torch.testing.assert_close(out[i, j], networks.generator({i: mu[i]}, [(i, j)])[i, j])


@pytest.mark.parametrize(
    "directions",
    [RECONSTRUCTIONS + TRANSLATIONS, RECONSTRUCTIONS, TRANSLATIONS, TRANSLATIONS[:1]],
    ids=["both", "reconstructions", "translations", "one direction"],
)
def test_decoding_together_equals_decoding_each_direction_alone(directions: tuple[Direction, ...]) -> None:
    generator = build_autoencoders(SMALL).generator
    z = {i: torch.randn(2, 16, 4, 6) for i in Domain}
    images = generator(z, directions)
    assert images.keys() == set(directions)
    for i, j in directions:
        torch.testing.assert_close(images[i, j], generator.private[j.value](generator.shared(z[i])))
        torch.testing.assert_close(images[i, j], generator({i: z[i]}, [(i, j)])[i, j])


def test_shared_layers_run_once_for_both_domains_and_private_layers_once_for_each() -> None:
    networks, x = build_autoencoders(SMALL), by_domain(make_images())
    batch_sizes: list[int] = []
    for part in (networks.encoder.shared, networks.generator.shared, *networks.generator.private.values()):
        part.register_forward_hook(lambda _, inputs, __: batch_sizes.append(len(inputs[0])))
    networks.generator(networks.encoder(x), RECONSTRUCTIONS + TRANSLATIONS)
    assert batch_sizes == [4, 4, 4, 4]


@pytest.mark.parametrize("downsamples", [1, 2, 3])
def test_each_downsampling_halves_the_code_and_doubles_its_channels(downsamples: int) -> None:
    networks = build_autoencoders(ModelConfig(channels=4, residual_blocks=1, downsamples=downsamples))
    x, scale = by_domain(make_images(16, 24)), 2**downsamples
    features, mu = networks.encoder.features(x)[Domain.B], networks.encoder(x)
    assert networks.scale == scale
    assert mu[Domain.A].shape[1:] == networks.code_shape(16, 24) == (4 * scale, 16 // scale, 24 // scale)
    strides = [1, *(2**n for n in range(1, downsamples + 1)), scale]
    assert [16 // f.shape[2] for f in features] == list(networks.feature_strides) == strides
    assert [f.shape[1] for f in features] == list(networks.feature_channels) == [4 * stride for stride in strides]
    assert all(image.shape == x[Domain.A].shape for image in networks.generator(mu, TRANSLATIONS).values())


def test_generated_images_have_the_inputs_size_and_range_in_fp32_also_under_autocast() -> None:
    networks, x = build_autoencoders(SMALL), by_domain(make_images())
    with torch.autocast("cpu", torch.bfloat16):
        mu = networks.encoder(x)
        images = networks.generator(mu, RECONSTRUCTIONS)
    assert mu[Domain.A].dtype == torch.bfloat16
    assert mu[Domain.A].shape[1:] == networks.code_shape(16, 24)
    for image in images.values():
        assert image.shape == x[Domain.A].shape
        assert image.dtype == torch.float32
        assert image.abs().max() <= 1


def test_group_normalization_keeps_what_instance_normalization_removes() -> None:
    # Of an image constant in each channel, instance normalization leaves 0; group keeps the channels' differences.
    x = torch.arange(16.0)[None, :, None, None].expand(1, 16, 4, 4)
    assert normalization("instance", 16)(x).abs().max() < 1e-3
    assert normalization("group", 16)(x).abs().max() > 0.9


@pytest.mark.parametrize("size", [8, 9, 16])
def test_blur_pool_keeps_constants_and_ramps_and_rounds_sizes_up(size: int) -> None:
    blur_pool = BlurPool()
    assert torch.allclose(blur_pool(torch.full((1, 3, size, size), 0.7)), torch.tensor(0.7))
    ramp = torch.arange(float(size)).expand(1, 3, size, size)
    out = blur_pool(ramp)
    assert out.shape[-2:] == ((size + 1) // 2,) * 2
    torch.testing.assert_close(out[..., 1:-1], ramp[..., ::2, ::2][..., 1:-1])


def test_blur_pool_by_hand() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 2, 2] = 16.0
    assert BlurPool()(x)[0, 0].tolist() == [[0.0, 0.0], [0.0, 4.0]]
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 1] = 16.0  # between the sampled pixels in both axes: a sixteenth to each of the four
    assert BlurPool()(x)[0, 0].tolist() == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 5), (4, 6), (7, 9)])
def test_blur_pool_is_a_mean_of_neighbouring_2x2_means(size: tuple[int, int]) -> None:
    x = torch.randn(2, 5, *size)
    means = functional.avg_pool2d(x, 2, stride=1, padding=1, count_include_pad=False)
    torch.testing.assert_close(BlurPool()(x), functional.avg_pool2d(means, 2))
    assert tuple(BlurPool()(x).shape[2:]) == tuple((side + 1) // 2 for side in size)


def test_each_scale_of_a_discriminator_sees_images_at_half_the_size() -> None:
    logits = Discriminator(channels=4, layers=2, scales=3)(torch.rand(2, 3, 32, 64))
    assert [tuple(scale.shape) for scale in logits] == [(2, 1, 8, 16), (2, 1, 4, 8), (2, 1, 2, 4)]


def test_comparing_real_and_fake_in_one_batch_equals_two_forward_passes() -> None:
    discriminators = build_discriminators(ModelConfig(channels=4, discriminator_layers=2, discriminator_scales=2))
    real, fake = make_images(), make_images()
    for together, x in zip(discriminators.real_and_fake_logits(real, fake), (real, fake), strict=True):
        alone = discriminators(x)
        for i in Domain:
            for logits, expected in zip(together[i], alone[i], strict=True):
                torch.testing.assert_close(logits, expected)


def test_initialization_has_its_nominal_standard_deviation() -> None:
    weights = build_autoencoders(ModelConfig()).encoder.shared[0].body[0].weight
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    weights = build_autoencoders(ModelConfig(initialization="kaiming")).encoder.shared[0].body[0].weight
    assert weights.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


def test_kaiming_keeps_the_variance_through_a_transposed_convolution() -> None:
    layer = upsample(64, 32, "transposed")
    initialize(layer, "kaiming")
    x = torch.randn(4, 64, 16, 16)
    assert layer(x).square().mean().item() == pytest.approx(x.square().mean().item(), rel=0.15)


def fill_freed_memory_with_nan() -> None:
    """Allocate and free NaN, so that uninitialized memory is likely to contain it."""
    for power in range(12, 23):
        torch.full((2**power,), torch.nan)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 2), (3, 1), (2, 2), (5, 8)])
def test_downsample_and_its_gradients_equal_the_convolution(size: tuple[int, int], precision: torch.dtype) -> None:
    """In bf16, torch's own gradient of a single column is uninitialized memory, seen as a NaN loss at random times."""
    layer, x = Downsample(16, 24), torch.randn(2, 16, *size)
    layer, x = layer.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    assert layer.bias is not None
    weight = layer.weight.detach().double().requires_grad_()
    expected = functional.conv2d(x.double(), weight, layer.bias.detach().double(), stride=2, padding=1)
    (gradient,) = torch.autograd.grad(expected.square().sum(), weight)
    for _ in range(5):
        fill_freed_memory_with_nan()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            out = layer(x).float()
        assert out.shape == expected.shape
        tolerance = 1e-5 if precision == torch.float32 else 0.05
        assert (out - expected).abs().max() < tolerance * 10
        (actual,) = torch.autograd.grad(out.square().sum(), layer.weight)
        assert (actual - gradient).norm() < tolerance * gradient.norm()


# -- what came after the paper -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_features_are_the_layers_outputs_and_end_in_the_code(checkpoint_activations: bool) -> None:
    networks, x = build_autoencoders(SMALL), by_domain(make_images())
    networks.checkpoint_activations(checkpoint_activations)
    features, mu = networks.encoder.features(x), networks.encoder(x)
    for i in Domain:
        assert torch.equal(features[i][-1], mu[i])
        assert len(features[i]) == 4
        for layer, stride, channels in zip(features[i], (1, 2, 4, 4), (4, 8, 16, 16), strict=True):
            assert tuple(layer.shape) == (2, channels, 16 // stride, 24 // stride)
        stem, *downsamples, _ = networks.encoder.private[i.value].children()
        first = stem(x[i])
        assert torch.equal(features[i][0], first)
        assert torch.equal(features[i][2], downsamples[1](downsamples[0](first)))


def test_a_discriminators_features_end_in_its_logits() -> None:
    discriminators, x = build_discriminators(ModelConfig(channels=4, discriminator_layers=3)), make_images(32, 32)
    features, logits = discriminators.features(x), discriminators(x)
    for i in Domain:
        assert [[y.shape[1] for y in scale] for scale in features[i]] == [[4, 8, 16, 1]] * 3
        for scale, expected in zip(features[i], logits[i], strict=True):
            assert torch.equal(scale[-1], expected)


def test_blurred_downsampling_is_more_shift_invariant() -> None:
    """When noise moves by a pixel, codes change less than with strides, relative to how each channel varies."""

    def change(kind: str) -> float:
        torch.manual_seed(3)
        config = ModelConfig(
            channels=8,
            residual_blocks=0,
            shared_blocks=0,
            initialization="kaiming",
            downsampling=kind,
        )
        encoder = build_autoencoders(config).encoder
        x = torch.rand(4, 3, 65, 65) * 2 - 1
        codes, moved = (
            encoder({Domain.A: part})[Domain.A][..., 2:-2, 2:-2] for part in (x[..., :64, :64], x[..., :64, 1:])
        )
        return ((codes - moved).std() / (codes - codes.mean((0, 2, 3), keepdim=True)).std()).item()

    assert change("blurred") < 0.5 * change("strided")


@pytest.mark.parametrize("kind", ["strided", "blurred"])
def test_the_kind_of_downsampling_changes_neither_sizes_nor_the_number_of_parameters(kind: str) -> None:
    config = ModelConfig(channels=4, downsampling=kind)
    networks = build_autoencoders(config)
    assert parameter_count(networks) == parameter_count(build_autoencoders(ModelConfig(channels=4)))
    logits = build_discriminators(config)(make_images(32, 64))
    assert [tuple(scale.shape) for scale in logits.a] == [(2, 1, 2, 4), (2, 1, 1, 2), (2, 1, 1, 1)]
    assert networks.encoder(by_domain(make_images()))[Domain.A].shape == (2, 16, 4, 6)
    downsample = list(networks.encoder.private["a"].children())[1]
    assert any(isinstance(module, BlurPool) for module in downsample.modules()) == (kind == "blurred")


def test_with_same_init_translations_start_as_reconstructions() -> None:
    networks, x = build_autoencoders(replace(SMALL, same_init=True)), by_domain(make_images())
    images = networks.generator(networks.encoder(x), RECONSTRUCTIONS + TRANSLATIONS)
    for i in Domain:
        assert torch.equal(images[i, i], images[i, i.other])


def assert_equal_tensors(first: Iterable[Tensor], second: Iterable[Tensor]) -> None:
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_with_same_init_each_domain_has_parameters_of_its_own() -> None:
    torch.manual_seed(1)
    plain = build_autoencoders(SMALL)
    torch.manual_seed(1)
    same = build_autoencoders(replace(SMALL, same_init=True))
    assert parameter_count(same) == parameter_count(plain)
    for network, expected in ((same.encoder, plain.encoder), (same.generator, plain.generator)):
        assert_equal_tensors(network.shared.parameters(), expected.shared.parameters())
        for i in Domain:
            assert_equal_tensors(network.private[i.value].parameters(), expected.private["a"].parameters())
    with torch.no_grad():
        next(same.generator.private["a"].parameters()).zero_()
    assert next(same.generator.private["b"].parameters()).any()


def test_models_have_no_buffers() -> None:
    """A model file holds weights only, so anything else a network computes with would be missing after loading."""
    for config in (SMALL, ModelConfig(channels=4, downsampling="blurred", upsampling="bilinear", spectral_norm=True)):
        assert not list(build_autoencoders(config).buffers())


SPECTRAL = ModelConfig(
    channels=4, discriminator_layers=3, discriminator_scales=2, initialization="kaiming", spectral_norm=True
)


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def test_spectral_norm_makes_every_largest_singular_value_1() -> None:
    discriminators = build_discriminators(SPECTRAL)
    for _ in range(100):
        discriminators(make_images())
    discriminators.eval()
    for module in convolutions(discriminators):
        assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(1, rel=1e-3)
        original = module.parametrizations.weight.original
        torch.testing.assert_close(
            module.weight * torch.linalg.matrix_norm(original.flatten(1), 2), original, rtol=1e-3, atol=1e-4
        )
    assert len(convolutions(discriminators)) == 2 * 2 * 4


def test_spectral_norm_starts_from_the_same_weights_and_changes_no_other_network() -> None:
    def build(spectral: bool) -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(1)
        config = replace(SPECTRAL, spectral_norm=spectral)
        return build_autoencoders(config), build_discriminators(config)

    (plain_model, plain), (model, spectral) = build(False), build(True)
    for conv, normalized in zip(convolutions(plain), convolutions(spectral), strict=True):
        assert torch.equal(conv.weight, normalized.parametrizations.weight.original)
    assert all(torch.equal(tensor, plain_model.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert parameter_count(spectral) == parameter_count(plain)


def test_spectral_norm_resumes_bit_for_bit_and_does_not_update_in_evaluation() -> None:
    first, x = build_discriminators(SPECTRAL), make_images()
    first(x)
    second = build_discriminators(SPECTRAL)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(3):
        assert_equal_tensors(first(x).a, second(x).a)
    first.eval()
    assert_equal_tensors(first(x).a, first(x).a)


def test_spectral_norm_does_not_depend_on_the_images() -> None:
    first = build_discriminators(SPECTRAL)
    second = copy.deepcopy(first)
    for _ in range(3):
        first(make_images())
        second(make_images(32, 32, batch=1))
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("config", [SPECTRAL, replace(SPECTRAL, spectral_norm=False, downsampling="blurred")])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_second_derivatives_pass_through_discriminators(config: ModelConfig, layout: torch.memory_format) -> None:
    """Double backward, which R1 needs, equals finite differences, also where a layer sees a single column."""
    discriminator = build_discriminators(config).by_domain["a"].to(memory_format=layout).double().eval()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64).contiguous(memory_format=layout)
    weight = next(p for name, p in discriminator.named_parameters() if p.ndim == 4)

    def squared_gradient(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(sum(s.sum() for s in discriminator(x)), x, create_graph=True)
            return gradient.square().sum()

    (actual,) = torch.autograd.grad(squared_gradient(x), weight)
    direction, step = torch.randn_like(weight), 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        values.append(squared_gradient(x).item())
        with torch.no_grad():
            weight -= sign * step * direction
    assert (actual * direction).sum().item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)
