"""The building blocks of all networks."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from unit.model.normalizing import is_bf16_inference, normalize_whole
from unit.model.precision import fp32

LEAK = 0.01
"""Slope of LeakyReLU below 0, in every network of the authors' code."""


def normalization(kind: str, channels: int) -> nn.Module:
    """Return the layer of `model.normalization`: instance (not affine) or group (8 groups, affine)."""
    if kind == "instance":
        return InstanceNorm(channels)
    return GroupNorm(8, channels)


class GroupNorm(nn.GroupNorm):
    """Normalize each group of channels of each image to mean 0 and variance 1, then scale and shift each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized images."""
        return normalize_whole(self, x) if is_bf16_inference(x) else super().forward(x)


class InstanceNorm(nn.InstanceNorm2d):
    """Normalize each channel of each image to mean 0 and variance 1: (B, C, H, W) → (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized images."""
        if x.device.type != "cpu" or torch.compiler.is_exporting():  # a loop over images would fix their number
            return super().forward(x)
        if is_bf16_inference(x):
            return normalize_whole(self, x)
        # On the CPU, torch 2.11 to 2.15 compute a wrong gradient for a batch of 1 when the output's gradient arrives in
        # channels_last, as it does from a convolution. Batch normalization of one image at a time is the same function,
        # correct for channels_last, and up to three times as fast.
        images = x.contiguous(memory_format=torch.channels_last).split(1)
        return torch.cat([functional.batch_norm(image, None, None, training=True, eps=self.eps) for image in images])


class ResidualBlock(nn.Module):
    """conv 3×3, norm, ReLU, conv 3×3, norm, plus the input: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            normalization(norm, channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            normalization(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus the residual."""
        out: Tensor = x + self.body(x)
        return out


class ResidualBlocks(nn.Sequential):
    """Blocks in a row, which change the features of a code: (B, pixels + channels, H, W) → the same shape.

    Args:
        count: of blocks; 0 are the identity.
        channels: of the features.
        norm: as of `normalization`.
        pixels: channels before the features, which pass unchanged: the image's own pixels, with `model.pixel_skip`.
    """

    def __init__(self, count: int, channels: int, norm: str, pixels: int = 0) -> None:
        super().__init__(*(ResidualBlock(channels, norm) for _ in range(count)))
        self.pixels = pixels

    def forward(self, code: Tensor) -> Tensor:
        """Return the code with changed features."""
        features: Tensor = super().forward(code[:, self.pixels :])  # type: ignore[no-untyped-call]
        if not self.pixels:
            return features
        return torch.cat([code[:, : self.pixels], features.to(code.dtype)], 1)


PIXEL_SCALE = 32.0
"""The pixels' scale in a code, so that its noise of variance 1 is small beside them."""


class PixelStem(nn.Module):
    """An encoder's first layers with `model.pixel_skip`: images (B, 3, H, W) → codes (B, 3s² + channels, H/s, W/s).

    The first 3s² channels are the image's pixels, s × s by s × s, times `PIXEL_SCALE`; the rest are features of them.
    """

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(scale)
        self.features = nn.Sequential(nn.Conv2d(3 * scale**2, channels, 3, padding=1), nn.LeakyReLU(LEAK, inplace=True))

    def forward(self, images: Tensor) -> Tensor:
        """Return the code before the residual blocks, in fp32 also under autocast, for the pixels' sake."""
        pixels = self.unshuffle(images)
        return torch.cat([fp32(pixels) * PIXEL_SCALE, fp32(self.features(pixels))], 1)


class PixelHead(nn.Module):
    """A generator's last layers with `model.pixel_skip`: codes (B, 3s² + inputs, H/s, W/s) → images (B, 3, H, W).

    For each channel of each pixel, the features decide a gain and an offset: pixel · (1 + gain) + offset, clamped to
    [-1, 1]. A network that
    begins as the identity returns the code's image.
    """

    def __init__(self, inputs: int, channels: int, downsamples: int, upsampling: str) -> None:
        super().__init__()
        self.pixels = 3 * 4**downsamples
        self.shuffle = nn.PixelShuffle(2**downsamples)
        widths = [inputs, *[channels * 2**n for n in reversed(range(downsamples))]]
        self.upsamples = nn.Sequential(*(upsample(*pair, upsampling) for pair in pairwise(widths)))
        self.gain_and_offset = nn.Conv2d(channels, 6, 1)

    def begin_as_identity(self) -> None:
        """Set gain and offset to 0, whatever the features."""
        nn.init.zeros_(self.gain_and_offset.weight)
        assert isinstance(self.gain_and_offset.bias, Tensor)
        nn.init.zeros_(self.gain_and_offset.bias)

    def forward(self, code: Tensor) -> Tensor:
        """Return the image, in fp32 also under autocast."""
        pixels = self.shuffle(fp32(code[:, : self.pixels]) / PIXEL_SCALE)
        features = self.upsamples(code[:, self.pixels :])
        with torch.autocast(code.device.type, enabled=False):
            gain, offset = self.gain_and_offset(features.to(self.gain_and_offset.weight.dtype)).chunk(2, 1)
        return clamp_straight_through(pixels * (1 + gain) + offset)


def clamp_straight_through(x: Tensor) -> Tensor:
    """Clamp to [-1, 1], with the gradient of the identity, so that values beyond can come back."""
    return x.clamp(-1, 1).detach() + (x - x.detach())


class Downsample(nn.Conv2d):
    """conv 3×3 of stride 2: (B, inputs, H, W) → (B, outputs, ⌈H/2⌉, ⌈W/2⌉)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the downsampled features."""
        if x.shape[-1] > 1:
            return super().forward(x)
        # On a single column the outer taps see only padding. Their gradient is 0, but in bf16 on the CPU, torch 2.11 to
        # 2.15 leave it uninitialized: whatever was in memory, NaN included.
        return functional.conv2d(x, self.weight[..., 1:2], self.bias, stride=(2, 1), padding=(1, 0))


class BlurPool(nn.Module):
    """Blur with [1 2 1]/4 in each axis (edges replicated), then take every second pixel (Zhang 2019).

    (B, C, H, W) → (B, C, ⌈H/2⌉, ⌈W/2⌉)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the images at half the size."""
        channels = x.shape[1]
        kernel = x.new_full((channels, 1, 3, 3), 1 / 16)  # no buffer: a model file holds weights only
        kernel[:, :, 1] *= 2
        kernel[..., 1] *= 2
        x = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        return functional.conv2d(x, kernel, stride=2, groups=channels)


def downsample(inputs: int, outputs: int, kind: str) -> nn.Sequential:
    """Return the layers of `model.downsampling`: (B, inputs, H, W) → (B, outputs, ⌈H/2⌉, ⌈W/2⌉)."""
    if kind == "strided":
        return nn.Sequential(Downsample(inputs, outputs), nn.LeakyReLU(LEAK, inplace=True))
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(LEAK, inplace=True), BlurPool())


def upsample(inputs: int, outputs: int, kind: str) -> nn.Sequential:
    """Return the layers of `model.upsampling`: (B, inputs, H, W) → (B, outputs, 2H, 2W)."""
    if kind == "transposed":
        layers: list[nn.Module] = [nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)]
    else:
        layers = [nn.Upsample(scale_factor=2, mode=kind), nn.Conv2d(inputs, outputs, 3, padding=1)]
    return nn.Sequential(*layers, nn.LeakyReLU(LEAK, inplace=True))


class ToRGB(nn.Module):
    """conv 1×1, tanh: (B, inputs, H, W) → (B, channels, H, W) in [-1, 1], in fp32 also under autocast.

    bf16 has only 128 steps between ½ and 1, which would show as bands in a smooth sky.
    """

    def __init__(self, inputs: int, channels: int = 3) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the image."""
        with torch.autocast(x.device.type, enabled=False):
            image: Tensor = self.convolution(x.to(self.convolution.weight.dtype)).tanh()
            return image


def initialize(network: nn.Module, kind: str) -> None:
    """Initialize every convolution's weights as `model.initialization` says; biases keep PyTorch's default."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            std = 0.02 if kind == "normal" else (2 / (1 + LEAK**2) / _fan_in(module)) ** 0.5
            nn.init.normal_(module.weight, 0.0, std)


def apply_spectral_norm(network: nn.Module) -> None:
    """Divide every convolution's weight by its largest singular value σ (Miyato et al. 2018); call `initialize` first.

    Each forward pass in training refines σ by one power iteration, from vectors that are part of the state. It does not
    depend on the images, so ranks stay equal; with several microbatches σ is more accurate.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            spectral_norm(module)


def _fan_in(module: nn.Conv2d | nn.ConvTranspose2d) -> float:
    """Return the average fan-in of one output; a transposed convolution's stride divides it."""
    area = float(module.kernel_size[0] * module.kernel_size[1])
    if isinstance(module, nn.ConvTranspose2d):
        area /= module.stride[0] * module.stride[1]
    return module.in_channels * area
