"""A second judge beside Lite0: the VGG16 of ST-LPIPS, for a KID of its own and for the perceptual distance of pairs."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from unit.devices import autocast, resolve_precision
from unit.errors import ConfigError, escape

log = logging.getLogger(__name__)

_PACKAGE, _WEIGHTS = "stlpips_pytorch", Path("weights/vST0.0/vgg_shift_tolerant.pth")
_MIN_SIDE, _MAX_SIDE = 64, 256
"""The side of the images it was trained on; one from which on a CPU would need seconds for each image."""
_PIXELS_ON_CPU, _PIXELS_ON_GPU = 2**15, 2**21
"""Pixels of a batch: 8 images of 64 px fit a CPU's cache."""


class StLpips:
    """VGG16 of ST-LPIPS (Ghildyal and Liu, "Shift-tolerant Perceptual Similarity Metric", ECCV 2022).

    It was trained from random weights, not on ImageNet, to judge as people do which of two distorted patches of 64 px
    is closer to the original (BAPPS): it sees colour, texture, edges and layout, but does not know what they depict.
    Its convolutions are those of torchvision's vgg16; each pooling takes the maximum at stride 1 and then blurs at
    stride 2, so that a shift by a pixel hardly matters. Images are normalized by LPIPS's mean and deviation (Zhang et
    al. 2018); a side shorter than 64 px is enlarged to that, one longer than 256 px reduced. Convolutions run in bf16
    where the device has instructions for it.

    Args:
        weights: the state of the package's own network; `KeyError`, `ValueError` or `RuntimeError` if it is another's.
        device: where to compute.
    """

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device) -> None:
        from torchvision.models import vgg16  # takes a second, which programs that measure nothing need not wait for

        self._device = device
        self._mean, self._deviation = (weights[f"scaling_layer.{name}"].to(device) for name in ("shift", "scale"))
        with torch.device("meta"):  # draws no random numbers
            self._layers: nn.Sequential = vgg16(init_weights=False).features[:-1]
        own = [tensor for name, tensor in weights.items() if name.startswith("net.") and not name.endswith(".filt")]
        self._layers.load_state_dict(dict(zip(self._layers.state_dict(), own, strict=True)), assign=True)
        self._layers.requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self._channel_weights = [weights[f"lin{k}.model.1.weight"].flatten().to(device) for k in range(5)]

    def __call__(self, images: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the vectors that KID compares and the distances from the targets, float32 on the CPU.

        The vectors are (n, 1472): the channels of all five stages, at each position of unit length within its stage,
        averaged over the image; scaled so that x·y / d in the kernel of `metrics.kid` is the stages' mean inner
        product, from 0 to 1.

        The distances are (n,), ST-LPIPS, 0 for equal images: per stage the squared differences of unit-length channels,
        times their learned weights, averaged over the image; summed over the stages (Zhang et al. 2018, equation 1).

        Args:
            images: (n, 3, H, W) in [-1, 1], on any device.
            targets: as many, of the same size; None: no distances.
        """
        pixels = _PIXELS_ON_CPU if self._device.type == "cpu" else _PIXELS_ON_GPU
        count = max(1, pixels // (_side(images.shape[2]) * _side(images.shape[3])))
        vectors, distances = [], []
        with torch.inference_mode():
            others = repeat(None) if targets is None else targets.split(count)
            for batch, other in zip(images.split(count), others, strict=False):
                stages = self._stages(batch)
                vectors.append(_pooled(stages).cpu())
                if other is not None:
                    distances.append(self._distance(stages, self._stages(other)).cpu())
        return torch.cat(vectors), torch.cat(distances) if distances else None

    def _stages(self, images: Tensor) -> list[Tensor]:
        """Return the activations before each pooling and at the end, with channels of unit length."""
        images = images.to(self._device).float()
        size = [_side(side) for side in images.shape[2:]]
        if size != list(images.shape[2:]):
            images = functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(-1, 1)
        x = ((images - self._mean) / self._deviation).contiguous(memory_format=torch.channels_last)
        stages = []
        with autocast(self._device, resolve_precision("auto", self._device)):
            for layer in self._layers:
                if isinstance(layer, nn.MaxPool2d):
                    stages.append(x)
                    x = _pool(x)
                else:
                    x = layer(x)
        return [functional.normalize(stage.float(), dim=1) for stage in [*stages, x]]

    def _distance(self, stages: list[Tensor], others: list[Tensor]) -> Tensor:
        distances = [
            ((x - y).square() * weights[:, None, None]).sum(dim=1).mean(dim=(1, 2))
            for x, y, weights in zip(stages, others, self._channel_weights, strict=True)
        ]
        return torch.stack(distances).sum(dim=0)


def _side(side: int) -> int:
    return min(max(side, _MIN_SIDE), _MAX_SIDE)


def _pool(x: Tensor) -> Tensor:
    """Maximum of 2 x 2 at stride 1, then a Gaussian [1 2 1]/4 in each axis at stride 2."""
    weights = x.new_tensor([0.25, 0.5, 0.25])
    kernel = (weights[:, None] * weights).expand(x.shape[1], 1, 3, 3)
    padded = functional.pad(functional.max_pool2d(x, 2, stride=1), (2, 2, 2, 2), mode="reflect")
    blurred: Tensor = functional.conv2d(padded, kernel, stride=2, groups=x.shape[1])
    return blurred


def _pooled(stages: list[Tensor]) -> Tensor:
    vectors = torch.cat([stage.mean(dim=(2, 3)) for stage in stages], dim=1)
    return vectors * math.sqrt(vectors.shape[1] / len(stages))


@cache
def load_st_lpips(device: torch.device) -> StLpips:
    """Load it; raises `ConfigError` if its package is missing or damaged."""
    # The package itself is not imported: it imports others that it does not declare.
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("ST-LPIPS needs a package: pip install stlpips-pytorch")
    file = Path(spec.submodule_search_locations[0]) / _WEIGHTS
    try:
        return StLpips(torch.load(file, map_location="cpu", weights_only=True), device)
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"{escape(file)}: missing or damaged; pip install --force-reinstall stlpips-pytorch==0.0.2"
        ) from error


def st_lpips_if_installed(device: torch.device) -> StLpips | None:
    """Load it; None, with a line of advice in the log, where its package is missing."""
    try:
        return load_st_lpips(device)
    except ConfigError as error:
        log.info("%s; KID-VGG and ST-LPIPS are not computed", error)
        return None
