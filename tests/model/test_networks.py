import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from unit.config import ModelConfig
from unit.domains import Domain, PerDomain
from unit.model.layers import BlurPool, Downsample
from unit.model.networks import (
    Discriminator,
    build_autoencoders,
    build_discriminators,
    parameter_count,
)

SMALL = ModelConfig(channels=4, residual_blocks=3, shared_blocks=2)


def images(height: int = 16, width: int = 24, batch: int = 2) -> PerDomain[torch.Tensor]:
    return PerDomain.of(lambda _: torch.rand(batch, 3, height, width) * 2 - 1)


def test_the_papers_networks_have_the_papers_number_of_parameters() -> None:
    assert parameter_count(build_autoencoders(ModelConfig())) == 18_017_286
    assert parameter_count(build_discriminators(ModelConfig())) == 9_308_934


@pytest.mark.parametrize("shared", [0, 1, 3])
def test_both_domains_hold_the_same_shared_modules(shared: int) -> None:
    networks = build_autoencoders(ModelConfig(channels=4, residual_blocks=3, shared_blocks=shared))
    assert networks.encoder(Domain.A).shared is networks.encoder(Domain.B).shared
    assert networks.generator(Domain.A).shared is networks.generator(Domain.B).shared
    assert networks.encoder(Domain.A).private is not networks.encoder(Domain.B).private
    for shared_part in (networks.encoder(Domain.A).shared, networks.generator(Domain.A).shared):
        assert len(list(shared_part.children())) == shared


def test_shared_blocks_change_only_how_many_parameters_are_shared() -> None:
    block = 2 * (16 * 16 * 9 + 16)
    counts = [
        parameter_count(build_autoencoders(ModelConfig(channels=4, residual_blocks=3, shared_blocks=n)))
        for n in range(4)
    ]
    # Each block that is shared saves one copy in the encoders and one in the generators.
    assert [counts[n] - counts[n + 1] for n in range(3)] == [2 * block] * 3


def test_a_copy_still_shares() -> None:
    networks = copy.deepcopy(build_autoencoders(SMALL))
    assert networks.encoder(Domain.A).shared is networks.encoder(Domain.B).shared
    assert parameter_count(networks) == parameter_count(build_autoencoders(SMALL))


def test_running_both_domains_together_equals_running_each_encoder_alone() -> None:
    networks, x = build_autoencoders(SMALL), images()
    together = networks.encode(x)
    for i in Domain:
        torch.testing.assert_close(together[i], networks.encoder(i)(x[i]))


@pytest.mark.parametrize(("own", "other"), [(True, True), (True, False), (False, True)])
def test_decoding_together_equals_running_each_generator_alone(own: bool, other: bool) -> None:
    networks = build_autoencoders(SMALL)
    z = PerDomain.of(lambda _: torch.randn(2, 16, 4, 6))
    decoded = networks.decode(z, own=own, other=other)
    assert (decoded.own is not None, decoded.other is not None) == (own, other)
    for i in Domain:
        if decoded.own:
            torch.testing.assert_close(decoded.own[i], networks.generator(i)(z[i]))
        if decoded.other:
            torch.testing.assert_close(decoded.other[i], networks.generator(i.other)(z[i]))


def test_the_shared_layers_run_once_for_both_domains() -> None:
    networks, x, batches = build_autoencoders(SMALL), images(), []
    for part in (networks.encoder(Domain.A).shared, networks.generator(Domain.A).shared):
        part.register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0])))
    networks.decode(networks.encode(x), own=True, other=True)
    assert batches == [4, 4]


@pytest.mark.parametrize("downsamples", [1, 2, 3])
def test_each_halving_halves_the_code_and_doubles_its_channels(downsamples: int) -> None:
    networks = build_autoencoders(ModelConfig(channels=4, residual_blocks=1, downsamples=downsamples))
    x, scale = images(16, 24), 2**downsamples
    layers, mu = networks.encode_by_layer(x), networks.encode(x)
    assert networks.scale == scale
    assert mu.a.shape[1:] == networks.code_shape(16, 24) == (4 * scale, 16 // scale, 24 // scale)
    strides = [1, *(2**n for n in range(1, downsamples + 1)), scale]
    assert [16 // f.shape[2] for f in layers.b] == list(networks.feature_strides) == strides
    assert [f.shape[1] for f in layers.b] == list(networks.feature_channels) == [4 * stride for stride in strides]
    assert networks.generator(Domain.B)(mu.a).shape == x.a.shape


def test_images_come_out_in_their_size_and_range_in_fp32_also_under_autocast() -> None:
    networks, x = build_autoencoders(SMALL), images()
    with torch.autocast("cpu", torch.bfloat16):
        mu = networks.encode(x)
        out = networks.generator(Domain.A)(mu.a)
    assert mu.a.shape[1:] == networks.code_shape(16, 24)
    assert out.shape == x.a.shape
    assert out.dtype == torch.float32
    assert out.abs().max() <= 1


def test_group_normalization_keeps_what_instance_normalization_removes() -> None:
    # A block's normalization over a constant image: instance gives 0 whatever the constant, group tells channels apart.
    x = torch.arange(16.0)[None, :, None, None].expand(1, 16, 4, 4)
    from unit.model.layers import normalization

    assert normalization("instance", 16)(x).abs().max() < 1e-3
    assert normalization("group", 16)(x).abs().max() > 0.9


@pytest.mark.parametrize("size", [8, 9, 16])
def test_half_size_keeps_constants_and_ramps_and_rounds_up(size: int) -> None:
    half = BlurPool()
    assert torch.allclose(half(torch.full((1, 3, size, size), 0.7)), torch.tensor(0.7))
    ramp = torch.arange(float(size)).expand(1, 3, size, size)
    out = half(ramp)
    assert out.shape[-2:] == ((size + 1) // 2,) * 2
    torch.testing.assert_close(out[..., 1:-1], ramp[..., ::2, ::2][..., 1:-1])


def test_half_size_by_hand() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 2, 2] = 16.0
    assert BlurPool()(x)[0, 0].tolist() == [[0.0, 0.0], [0.0, 4.0]]
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 1] = 16.0  # half a pixel off the grid in both axes: a sixteenth to each of four
    assert BlurPool()(x)[0, 0].tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_each_scale_of_a_discriminator_sees_half_the_size() -> None:
    logits = Discriminator(channels=4, layers=2, scales=3)(torch.rand(2, 3, 32, 64))
    assert [tuple(scale.shape) for scale in logits] == [(2, 1, 8, 16), (2, 1, 4, 8), (2, 1, 2, 4)]


def test_comparing_equals_judging_each_alone() -> None:
    discriminators = build_discriminators(ModelConfig(channels=4, discriminator_layers=2, discriminator_scales=2))
    real, fake = images(), images()
    together = discriminators.compare(real, fake)
    for verdict, x in zip(together, (real, fake), strict=True):
        alone = discriminators(x)
        for i in Domain:
            for scale, expected in zip(verdict[i], alone[i], strict=True):
                torch.testing.assert_close(scale, expected)


def test_initialization_has_the_deviation_it_names() -> None:
    weights = build_autoencoders(ModelConfig()).encoder(Domain.A).shared[0].body[0].weight
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    weights = build_autoencoders(ModelConfig(initialization="kaiming")).encoder(Domain.A).shared[0].body[0].weight
    assert weights.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


def test_kaiming_keeps_the_scale_through_a_transposed_convolution() -> None:
    from unit.model.layers import initialize, upsample

    layer = upsample(64, 32, "transposed")
    initialize(layer, "kaiming")
    x = torch.randn(4, 64, 16, 16)
    assert layer(x).square().mean().item() == pytest.approx(x.square().mean().item(), rel=0.15)


def leave_no_numbers_in_memory() -> None:
    """Memory that is given back is given out again, with what is in it."""
    for power in range(12, 23):
        torch.full((2**power,), torch.nan)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 2), (3, 1), (2, 2), (5, 8)])
def test_halving_and_its_gradients_are_those_of_the_convolution(size: tuple[int, int], precision: torch.dtype) -> None:
    """In bf16 torch's own gradient for a single column is garbage, seen as a loss that is no number at random times."""
    layer, x = Downsample(16, 24), torch.randn(2, 16, *size)
    layer, x = layer.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    weight = layer.weight.detach().double().requires_grad_()
    expected = functional.conv2d(x.double(), weight, layer.bias.detach().double(), stride=2, padding=1)
    (gradient,) = torch.autograd.grad(expected.square().sum(), weight)
    for _ in range(5):
        leave_no_numbers_in_memory()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            out = layer(x).float()
        assert out.shape == expected.shape
        tolerance = 1e-5 if precision == torch.float32 else 0.05
        assert (out - expected).abs().max() < tolerance * 10
        (found,) = torch.autograd.grad(out.square().sum(), layer.weight)
        assert (found - gradient).norm() < tolerance * gradient.norm()


# -- what came after 2017 ----------------------------------------------------------------------------------------------


def test_layer_by_layer_ends_in_the_same_code() -> None:
    networks, x = build_autoencoders(SMALL), images()
    for again in (False, True):
        networks.checkpoint_activations = again
        layers, mu = networks.encode_by_layer(x), networks.encode(x)
        for i in Domain:
            assert torch.equal(layers[i][-1], mu[i])
            assert len(layers[i]) == 4
            for features, stride, channels in zip(layers[i], (1, 2, 4, 4), (4, 8, 16, 16), strict=True):
                assert tuple(features.shape) == (2, channels, 16 // stride, 24 // stride)
            first = networks.encoder(i).private[0](x[i])
            assert torch.equal(layers[i][0], first)
            assert torch.equal(layers[i][2], networks.encoder(i).private[2](networks.encoder(i).private[1](first)))


def test_a_discriminators_layers_end_in_its_logits() -> None:
    discriminators, x = build_discriminators(ModelConfig(channels=4, discriminator_layers=3)), images(32, 32)
    layers, logits = discriminators.by_layer(x), discriminators(x)
    for i in Domain:
        assert [[y.shape[1] for y in scale] for scale in layers[i]] == [[4, 8, 16, 1]] * 3
        for scale, expected in zip(layers[i], logits[i], strict=True):
            assert torch.equal(scale[-1], expected)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 5), (4, 6), (7, 9)])
def test_half_size_of_features_is_a_mean_of_means_of_neighbours(size: tuple[int, int]) -> None:
    x = torch.randn(2, 5, *size)
    means = functional.avg_pool2d(x, 2, stride=1, padding=1, count_include_pad=False)
    torch.testing.assert_close(BlurPool()(x), functional.avg_pool2d(means, 2))
    assert tuple(BlurPool()(x).shape[2:]) == tuple((side + 1) // 2 for side in size)


def test_blurred_networks_follow_a_shift_better() -> None:
    """Where noise is moved by a pixel, the codes change less than with strides, relative to how each channel varies."""

    def change(kind: str) -> float:
        torch.manual_seed(3)
        config = ModelConfig(
            channels=8, residual_blocks=0, shared_blocks=0, initialization="kaiming", downsampling=kind
        )
        encoder = build_autoencoders(config).encoder(Domain.A)
        x = torch.rand(4, 3, 65, 65) * 2 - 1
        codes, moved = (encoder(half)[..., 2:-2, 2:-2] for half in (x[..., :64, :64], x[..., :64, 1:]))
        return ((codes - moved).std() / (codes - codes.mean((0, 2, 3), keepdim=True)).std()).item()

    assert change("blurred") < 0.5 * change("strided")


@pytest.mark.parametrize("kind", ["strided", "blurred"])
def test_the_kind_of_halving_changes_no_size_nor_number_of_weights(kind: str) -> None:
    config = ModelConfig(channels=4, downsampling=kind)
    assert parameter_count(build_autoencoders(config)) == parameter_count(build_autoencoders(ModelConfig(channels=4)))
    logits = build_discriminators(config)(images(32, 64))
    assert [tuple(scale.shape) for scale in logits.a] == [(2, 1, 2, 4), (2, 1, 1, 2), (2, 1, 1, 1)]
    assert build_autoencoders(config).encode(images()).a.shape == (2, 16, 4, 6)
    down = build_autoencoders(config).encoder(Domain.A).private[1]
    assert any(isinstance(module, BlurPool) for module in down) == (kind == "blurred")


def test_with_an_equal_start_a_translation_begins_as_a_reconstruction() -> None:
    networks, x = build_autoencoders(replace(SMALL, same_init=True)), images()
    decoded = networks.decode(networks.encode(x), own=True, other=True)
    assert decoded.own
    assert decoded.other
    for i in Domain:
        assert torch.equal(decoded.own[i], decoded.other[i])


def test_an_equal_start_leaves_the_domains_their_own_weights() -> None:
    torch.manual_seed(1)
    plain = build_autoencoders(SMALL)
    torch.manual_seed(1)
    equal = build_autoencoders(replace(SMALL, same_init=True))
    assert parameter_count(equal) == parameter_count(plain)
    for i in Domain:
        assert all(
            torch.equal(x, y)
            for x, y in zip(equal.encoder(i).parameters(), plain.encoder(Domain.A).parameters(), strict=True)
        )
        assert all(
            torch.equal(x, y)
            for x, y in zip(equal.generator(i).parameters(), plain.generator(Domain.A).parameters(), strict=True)
        )
    with torch.no_grad():
        next(equal.generator(Domain.A).private.parameters()).zero_()
    assert next(equal.generator(Domain.B).private.parameters()).any()


def test_models_have_no_state_but_weights() -> None:
    """A finished model is its weights; what else it computes with would be missing after loading."""
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
        discriminators(images())
    discriminators.eval()
    for module in convolutions(discriminators):
        assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(1, rel=1e-3)
        original = module.parametrizations.weight.original
        torch.testing.assert_close(
            module.weight * torch.linalg.matrix_norm(original.flatten(1), 2), original, rtol=1e-3, atol=1e-4
        )
    assert len(convolutions(discriminators)) == 2 * 2 * 4


def test_spectral_norm_begins_with_the_weights_without_it_and_changes_no_other_network() -> None:
    def built(spectral: bool) -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(1)
        config = replace(SPECTRAL, spectral_norm=spectral)
        return build_autoencoders(config), build_discriminators(config)

    (plain_model, plain), (model, spectral) = built(False), built(True)
    for one, two in zip(convolutions(plain), convolutions(spectral), strict=True):
        assert torch.equal(one.weight, two.parametrizations.weight.original)
    assert all(torch.equal(tensor, plain_model.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert parameter_count(spectral) == parameter_count(plain)


def test_spectral_norm_goes_on_bit_for_bit_from_its_state_and_rests_in_evaluation() -> None:
    first, x = build_discriminators(SPECTRAL), images()
    first(x)
    second = build_discriminators(SPECTRAL)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(3):
        assert all(torch.equal(one, two) for one, two in zip(first(x).a, second(x).a, strict=True))
    first.eval()
    assert all(torch.equal(one, two) for one, two in zip(first(x).a, first(x).a, strict=True))


def test_spectral_norm_does_not_depend_on_the_images() -> None:
    first = build_discriminators(SPECTRAL)
    second = copy.deepcopy(first)
    for _ in range(3):
        first(images())
        second(images(32, 32, batch=1))
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("config", [SPECTRAL, replace(SPECTRAL, spectral_norm=False, downsampling="blurred")])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_gradients_pass_through_discriminators(config: ModelConfig, layout: torch.memory_format) -> None:
    """What R1 needs, against finite differences; also where a layer sees a single column."""
    discriminator = build_discriminators(config).by_domain["a"].to(memory_format=layout).double().eval()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64).contiguous(memory_format=layout)
    weight = next(p for name, p in discriminator.named_parameters() if p.ndim == 4)

    def slope(x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(sum(s.sum() for s in discriminator(x)), x, create_graph=True)
            return gradient.square().sum()

    (found,) = torch.autograd.grad(slope(x), weight)
    direction, step = torch.randn_like(weight), 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        values.append(slope(x).item())
        with torch.no_grad():
            weight -= sign * step * direction
    assert (found * direction).sum().item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)
