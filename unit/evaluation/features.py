"""Feature networks trained on ImageNet, whose vectors KID and FID compare."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from unit.errors import ConfigError
from unit.model.pretrained import lite0_input, load_lite0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Features:
    """A network that maps images to vectors, in batches and without gradients."""

    name: str
    """to display beside the metrics, e.g. "Lite0" """
    batch_size: int
    network: Callable[[Tensor], Tensor]

    def __call__(self, images: Tensor) -> Tensor:
        """Map (n, 3, H, W) in [-1, 1], on any device, to (n, d), float32 on the CPU."""
        with torch.inference_mode():
            return torch.cat([self.network(batch).float().cpu() for batch in images.split(self.batch_size)])


def load_features(kind: str, device: torch.device) -> Features:
    """Load "lite0" or "inception"; raises `ConfigError` if its package or weights are unavailable."""
    return _lite0(device) if kind == "lite0" else _inception(device)


def features_if_installed(device: torch.device) -> Features | None:
    """Load Lite0; None, with a line of advice in the log, where its packages are missing."""
    try:
        return load_features("lite0", device)
    except ConfigError as error:
        log.warning("%s; KID is not computed", error)
        return None


@cache
def _lite0(device: torch.device) -> Features:
    """EfficientNet-Lite0 (Apache-2.0), 1280 features averaged over the image."""
    network = load_lite0(device)

    def extract(images: Tensor) -> Tensor:
        images = functional.interpolate(images.to(device).float(), (224, 224), mode="bicubic", antialias=True)
        features: Tensor = network.extract_features(lite0_input(images.clamp(-1, 1)))  # type: ignore[operator]
        return features.mean(dim=(2, 3))

    # On a CPU, batches that fit its cache are twice as fast as batches of 16.
    return Features("Lite0", 64 if device.type == "cuda" else 4, extract)


@cache
def _inception(device: torch.device) -> Features:
    """The Inception network of the published KID and FID, by torch-fidelity: 2048 features."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ConfigError("--features inception needs torch-fidelity: pip install torch-fidelity") from error
    try:
        network: nn.Module = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    except (OSError, RuntimeError) as error:  # a failed download, or a file it left incomplete
        reason = f"its weights can't be downloaded ({' '.join(str(error).split())[:200]})"
        advice = "connect to the internet once, or take --features lite0"
        raise ConfigError(f"--features inception: {reason}; {advice}") from error
    network.to(device)

    def extract(images: Tensor) -> Tensor:
        levels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(device, torch.uint8)
        features: Tensor = network(levels)[0]
        return features

    return Features("Inception", 16, extract)
