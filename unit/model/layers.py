"""The building blocks of all networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

LEAK = 0.01
"""Slope of LeakyReLU below 0, in every network of the authors' code."""


def normalization(kind: str, channels: int) -> nn.Module:
    """The normalization named by `model.normalization`; instance is without, group with a learned scale and shift."""
    if kind == "instance":
        return InstanceNorm(channels)
    return nn.GroupNorm(8, channels)


class InstanceNorm(nn.InstanceNorm2d):
    """Each channel of each image to mean 0 and variance 1: (B, C, H, W) → (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The normalized images."""
        if x.device.type != "cpu":
            return super().forward(x)
        # On the CPU, torch 2.11 to 2.15 give a wrong gradient for a single image when that of the output comes in
        # channels_last, as it does from a convolution: as if its elements stood in another order. Batch normalization
        # of one image at a time is the same, right for inputs in channels_last, and up to three times as fast.
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
        """Add what the body makes of x to x."""
        out: Tensor = x + self.body(x)
        return out


def residual_blocks(count: int, channels: int, norm: str) -> nn.Sequential:
    """`count` blocks in a row; none: the identity."""
    return nn.Sequential(*(ResidualBlock(channels, norm) for _ in range(count)))


class Downsample(nn.Conv2d):
    """conv 3×3 of stride 2: (B, inputs, H, W) → (B, outputs, ⌈H/2⌉, ⌈W/2⌉)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution."""
        if x.shape[-1] > 1:
            return super().forward(x)
        # Of a single column the outer taps see nothing but padding. Their gradient is 0, but in bf16 on the CPU, torch
        # 2.11 to 2.15 leave it unwritten: whatever was in the memory, also what is no number.
        return functional.conv2d(x, self.weight[..., 1:2], self.bias, stride=(2, 1), padding=(1, 0))


class BlurPool(nn.Module):
    """(B, C, H, W) → (B, C, ⌈H/2⌉, ⌈W/2⌉): Gaussian [1 2 1]/4 in each axis, replicated edges, every second pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """Blur, then take every second pixel."""
        channels = x.shape[1]
        kernel = x.new_full((channels, 1, 3, 3), 1 / 16)  # made anew: a finished model holds weights and nothing else
        kernel[:, :, 1] *= 2
        kernel[..., 1] *= 2
        x = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        return functional.conv2d(x, kernel, stride=2, groups=channels)


def downsample(inputs: int, outputs: int, kind: str) -> nn.Sequential:
    """(B, inputs, H, W) → (B, outputs, ⌈H/2⌉, ⌈W/2⌉), as `model.downsampling` says; blurred is Zhang's (2019)."""
    if kind == "strided":
        return nn.Sequential(Downsample(inputs, outputs), nn.LeakyReLU(LEAK, inplace=True))
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(LEAK, inplace=True), BlurPool())


def upsample(inputs: int, outputs: int, kind: str) -> nn.Sequential:
    """Twice the size, as `model.upsampling` says: (B, inputs, H, W) → (B, outputs, 2H, 2W)."""
    if kind == "transposed":
        steps: list[nn.Module] = [nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)]
    else:
        steps = [nn.Upsample(scale_factor=2, mode=kind), nn.Conv2d(inputs, outputs, 3, padding=1)]
    return nn.Sequential(*steps, nn.LeakyReLU(LEAK, inplace=True))


class ToRGB(nn.Module):
    """conv 1×1, tanh: (B, inputs, H, W) → (B, 3, H, W) in [-1, 1], in fp32 also under autocast.

    bf16 has only 128 steps between ½ and 1, which would show as bands in a smooth sky.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The image."""
        with torch.autocast(x.device.type, enabled=False):
            image: Tensor = self.convolution(x.to(self.convolution.weight.dtype)).tanh()
            return image


def initialize(network: nn.Module, kind: str) -> None:
    """Set every convolution's weights as `model.initialization` says; biases keep PyTorch's default."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            deviation = 0.02 if kind == "normal" else (2 / (1 + LEAK**2) / _inputs(module)) ** 0.5
            nn.init.normal_(module.weight, 0.0, deviation)


def normalize_spectrally(network: nn.Module) -> None:
    """Every convolution's weight W becomes W/σ, σ its largest singular value (Miyato et al. 2018); `initialize` before.

    σ is followed by a step of the power method at each forward pass in training, from vectors that are part of the
    state. No image has a say, so processes stay equal; a batch in parts makes σ a little more exact.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            spectral_norm(module)


def _inputs(module: nn.Conv2d | nn.ConvTranspose2d) -> float:
    """How many numbers make one output, on average: a transposed convolution's stride spreads them."""
    area = float(module.kernel_size[0] * module.kernel_size[1])
    if isinstance(module, nn.ConvTranspose2d):
        area /= module.stride[0] * module.stride[1]
    return module.in_channels * area
