"""Metrics against numbers worked out by hand, plain loops, closed forms and torchmetrics."""

import math

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from unit.evaluation import metrics


def plain(level: float, count: int = 1) -> Tensor:
    return torch.full((count, 3, 16, 16), level / 127.5 - 1)


def noise(count: int) -> Tensor:
    return torch.rand(count, 3, 16, 16) * 2 - 1


def normal(count: int, mean: float = 0.0, dimension: int = 8) -> Tensor:
    return torch.randn(count, dimension, dtype=torch.float64) + mean


class Given(nn.Module):
    """A feature network for torchmetrics that returns its input."""

    num_features = 8

    def forward(self, features: Tensor) -> Tensor:
        return features


def test_psnr_by_hand() -> None:
    # 8-bit images that differ by 51 everywhere: 20·log10(255 / 51) = 13.979 dB; by 5: 34.151 dB
    both = metrics.psnr(torch.cat([plain(51), plain(5)]), plain(0, 2))
    assert both.tolist() == pytest.approx([13.979, 34.151], abs=1e-3)


def test_psnr_of_equal_images_is_finite() -> None:
    values = metrics.psnr(torch.cat([plain(51), plain(7)]), torch.cat([plain(0), plain(7)]))
    assert values.tolist() == pytest.approx([13.979, 100], abs=1e-3)


def test_ssim_by_hand() -> None:
    """Constant images leave only the luminance term: (2ab + c) / (a² + b² + c), c = (0.01 · 255)²."""
    a, b, c = 51.0, 204.0, 2.55**2
    expected = (2 * a * b + c) / (a * a + b * b + c)
    assert metrics.ssim(plain(a, 2), plain(b, 2)).tolist() == pytest.approx([expected] * 2, rel=1e-3)
    image = noise(2)
    assert metrics.ssim(image, image).tolist() == pytest.approx([1, 1])


def test_metrics_are_those_of_8_bit_files() -> None:
    images, targets = noise(2), noise(2)
    rounded = [torch.round((x + 1) * 127.5) / 127.5 - 1 for x in (images, targets)]
    for metric in (metrics.psnr, metrics.ssim, metrics.pixel_accuracy, metrics.identity_distance):
        torch.testing.assert_close(metric(images, targets), metric(*rounded))
        torch.testing.assert_close(metric(images * 1e9, targets), metric(images.sign(), targets))
    torch.testing.assert_close(metrics.quantize(images), rounded[0])


def test_a_pixel_is_accurate_within_16_of_255_in_every_channel() -> None:
    image = plain(100)
    image[0, :, 0, 0] = plain(116)[0, :, 0, 0]
    image[0, :, 0, 1] = plain(84)[0, :, 0, 1]
    assert metrics.pixel_accuracy(image, plain(100)) == 1
    image[0, 2, 0, 0] = 117 / 127.5 - 1  # one channel of one pixel too far, by one level
    image[0, 1, 0, 1] = 83 / 127.5 - 1
    assert metrics.pixel_accuracy(image, plain(100)) == pytest.approx(254 / 256)


def test_identity_distance_is_in_levels() -> None:
    distances = metrics.identity_distance(torch.cat([plain(10), plain(40)]), plain(20, 2))
    assert distances.tolist() == pytest.approx([10, 20])


def test_color_correlation_of_preserved_unrelated_and_inverted_colours() -> None:
    image = noise(3)
    assert metrics.color_correlation(image, image).tolist() == pytest.approx([1] * 3)
    assert metrics.color_correlation(-image, image).tolist() == pytest.approx([-1] * 3, abs=1e-2)
    tinted = image * 0.5 + torch.tensor([0.3, -0.2, 0.1])[:, None, None]
    assert metrics.color_correlation(tinted, image).min() > 0.999
    assert metrics.color_correlation(plain(30, 3), image).tolist() == [0] * 3
    assert abs(metrics.color_correlation(noise(300), noise(300)).mean()) < 0.05


def test_color_correlation_is_per_image_and_ignores_detail() -> None:
    image = noise(2)
    half = torch.stack([image[0], -image[1]])
    assert metrics.color_correlation(half, image).tolist() == pytest.approx([1, -1], abs=1e-2)
    checkers = (torch.arange(16)[:, None] + torch.arange(16)) % 2 - 0.5  # averages out in 2 x 2 pixels
    assert metrics.color_correlation(image / 2 + checkers / 2, image).min() > 0.99


def test_diversity_of_a_collapse_is_0_and_of_twice_the_contrast_2() -> None:
    image = noise(5) / 4
    assert metrics.diversity(image[:1].expand(5, -1, -1, -1), image) == pytest.approx(0, abs=1e-6)
    assert metrics.diversity(image + 0.3, image) == pytest.approx(1, rel=1e-4)
    assert metrics.diversity(image * 2, image) == pytest.approx(2, rel=1e-4)
    assert metrics.diversity(image, plain(3, 5)) == 1


def test_diversity_is_the_rms_distance_between_two_different_images() -> None:
    translations, inputs = metrics.thumbnails(noise(4)), metrics.thumbnails(noise(6))

    def mean_square(x: Tensor) -> float:
        squares = [(x[i] - x[j]).square().sum().item() for i in range(len(x)) for j in range(len(x)) if i != j]
        return sum(squares) / len(squares)

    expected = math.sqrt(mean_square(translations) / mean_square(inputs))
    assert metrics.diversity(translations, inputs) == pytest.approx(expected, rel=1e-5)


def test_feature_distance_is_the_cosine_distance() -> None:
    features = torch.tensor([[1.0, 0], [1, 1], [2, 0]])
    targets = torch.tensor([[0.0, 3], [1, 0], [5, 0]])
    assert metrics.feature_distance(features, targets).tolist() == pytest.approx([1, 1 - math.sqrt(0.5), 0])


def test_laplacian_energy_by_hand() -> None:
    """A pixel 10 levels brighter: -40 there and 10 in its four neighbours, of 256 pixels."""
    image = plain(100, 2)
    image[1, :, 5, 9] = 110 / 127.5 - 1
    assert metrics.laplacian_energy(image).tolist() == pytest.approx([0, (40**2 + 4 * 10**2) / 256], rel=1e-5)
    ramp = (torch.arange(16) * 5 / 127.5 - 1).expand(1, 3, 16, 16)
    assert metrics.laplacian_energy(ramp).tolist() == pytest.approx([2 * 5**2 / 16], rel=1e-4)  # its two ends
    assert metrics.laplacian_energy(noise(1)[..., :1, :1]).tolist() == [0]


def test_real_images_are_as_sharp_as_real_ones_blurred_ones_less_and_noisy_ones_more() -> None:
    smooth = nn.functional.interpolate(noise(60)[..., :6, :6] / 2, 32, mode="bicubic")
    one, other = smooth[::2], smooth[1::2]

    def sharpness(images: Tensor) -> float:
        return metrics.sharpness(*(metrics.laplacian_energy(x) for x in (images, other))) or 0.0

    assert sharpness(other) == 1
    assert sharpness(one) == pytest.approx(1, abs=0.2)
    assert sharpness(nn.functional.avg_pool2d(one, 5, stride=1)) < 0.8 * sharpness(one)
    assert sharpness(one + 0.02 * torch.randn_like(one)) > 1.2 * sharpness(one)
    assert sharpness(one.flip(2, 3)) == pytest.approx(sharpness(one), rel=1e-5)
    assert sharpness(one / 2) == pytest.approx(sharpness(one) / 4, rel=0.2)


def test_sharpness_is_the_ratio_of_the_means_not_the_mean_of_ratios() -> None:
    energies, reference = torch.tensor([1.0, 3]), torch.tensor([8.0, 0, 0, 8])
    assert metrics.sharpness(energies, reference) == 0.5
    assert metrics.sharpness(energies[:0], reference) is None
    assert metrics.sharpness(energies, reference[:0]) is None
    assert metrics.sharpness(energies, reference[1:3]) is None


def test_kid_is_the_mean_over_pairs_of_different_images() -> None:
    x, y = normal(5), normal(7, 0.4)

    def mean_kernel(x: Tensor, y: Tensor) -> float:
        pairs = [(float(a @ b) / 8 + 1) ** 3 for i, a in enumerate(x) for j, b in enumerate(y) if x is not y or i != j]
        return sum(pairs) / len(pairs)

    expected = 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
    assert metrics.kid(x, y) == pytest.approx(expected)
    assert metrics.kid(x, y) == pytest.approx(metrics.kid(y, x))


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all:UserWarning")
def test_kid_matches_torchmetrics_with_one_subset_of_all_images() -> None:
    x, y = normal(20), normal(20, 0.5)
    theirs = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=20)
    theirs.update(x, real=False)
    theirs.update(y, real=True)
    assert metrics.kid(x, y) == pytest.approx(1000 * float(theirs.compute()[0]))


def test_kid_is_unbiased_however_few_the_images() -> None:
    """For x ~ N(μ, 1), y ~ N(ν, 1) in d dimensions, E[(x·y / d + 1)³] follows from the cumulants of x·y / d."""
    d, shift, x, y = 8, 0.5, normal(4 * 2000), normal(4 * 2000, 0.5)

    def kernel(mu: float, nu: float) -> float:
        m, v, third = 1 + mu * nu, (1 + mu * mu + nu * nu) / d, 6 * mu * nu / d**2
        return m**3 + 3 * m * v + third

    closed = 1000 * (kernel(0, 0) + kernel(shift, shift) - 2 * kernel(0, shift))
    few = torch.tensor([metrics.kid(x[k : k + 4], y[k : k + 4]) for k in range(0, len(x), 4)])
    same = torch.tensor([metrics.kid(x[k : k + 4], x[k + 4 : k + 8]) for k in range(0, len(x), 8)])
    for kids, expected in ((few, closed), (same, 0.0)):
        assert abs(kids.mean() - expected) < 3 * kids.std() / len(kids) ** 0.5


def test_the_interval_covers_the_true_kid_as_often_as_it_claims() -> None:
    true = metrics.kid(normal(4000), normal(4000, 0.7))
    held = 0
    for _ in range(100):
        low, high = metrics.kid_interval(x := normal(30), y := normal(30, 0.7), resamples=200)
        assert low < metrics.kid(x, y) < high
        held += low <= true <= high
    assert 85 <= held <= 100


def test_the_interval_is_deterministic_and_leaves_the_global_generator_alone() -> None:
    x, y = normal(10), normal(12)
    state = torch.get_rng_state()
    assert metrics.kid_interval(x, y) == metrics.kid_interval(x, y)
    assert torch.equal(torch.get_rng_state(), state)
    low, high = metrics.kid_interval(x, y)
    narrow_low, narrow_high = metrics.kid_interval(x, y, level=0.5)
    assert low < narrow_low < narrow_high < high


def test_fid_of_normal_distributions_is_the_closed_form() -> None:
    """With commuting covariances: |μ - ν|² + Σ (√aₖ - √bₖ)²."""
    a, b = torch.tensor([1.0, 4, 9, 0.25]).double(), torch.tensor([4.0, 1, 1, 0.25]).double()
    raw = normal(200, dimension=4)
    raw = raw - raw.mean(dim=0)
    white = raw @ torch.linalg.inv(torch.linalg.cholesky(raw.T.cov())).T  # the identity for its covariance, exactly
    mean = torch.tensor([1.0, 0, 0, 2]).double()
    turned = torch.linalg.qr(normal(4, dimension=4)).Q
    expected = 5 + (a.sqrt() - b.sqrt()).square().sum().item()
    x, y = (white * a.sqrt() + mean) @ turned, white.flip(0) * b.sqrt() @ turned
    assert metrics.fid(x, y) == pytest.approx(expected)
    assert metrics.fid(x, x) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("count", [6, 60])
def test_fid_matches_torchmetrics(count: int) -> None:
    x, y = normal(count) @ normal(8), normal(count + 3, 0.3)
    theirs = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    theirs.update(x, real=False)
    theirs.update(y, real=True)
    assert metrics.fid(x, y) == pytest.approx(float(theirs.compute()), rel=1e-5, abs=1e-5)
