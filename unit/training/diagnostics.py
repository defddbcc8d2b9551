"""Measures on a few images that tell a healthy run from a failing one; `unit.training.alarms` interprets them."""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn

from unit.config import DataConfig
from unit.devices import autocast
from unit.domains import Domain, PerDomain
from unit.evaluation import metrics
from unit.evaluation.held_out import load_held_out
from unit.image_source import ImageSource
from unit.images import to_image, to_tensor
from unit.model.networks import Discriminators
from unit.translation.translator import Translator

_IMAGES = 16
_CHUNK = 8
"""Images at once: as many as in a sample grid, for which there is memory."""
_JPEG_QUALITY = 75
_ACTIVE_VARIANCE = 0.01


def probe_batch(sources: PerDomain[ImageSource], data: DataConfig) -> PerDomain[Tensor]:
    """Up to 16 images (n, 3, crop, crop) of each domain, spread over its list and always the same.

    Raises:
        ImageError: an image can't be read and `data.on_bad_image` is "stop", or no image of a domain can be read.
    """
    counts = list(sources.map(len))
    return load_held_out(sources, range(0, max(counts), max(1, min(counts) // _IMAGES)), data, _IMAGES)


def diagnostics(
    translator: Translator, discriminators: Discriminators, held_out: PerDomain[Tensor], training: PerDomain[Tensor]
) -> dict[str, float]:
    """Return values by their tags, e.g. ``vital/spread_a2b`` or ``vital/overfitting_a``.

    Diagnostics that need more images than given are left out, and so are those of the discriminators where λ0 is 0,
    since they are not trained.

    Args:
        translator: with the EMA weights.
        discriminators: in training mode; their state stays as it is.
        held_out: (n, 3, H, W) in [-1, 1], at least one image of each domain, none seen in training.
        training: images seen in training.
    """
    translations = PerDomain.of(lambda i: _in_chunks(lambda x: translator.translate(x, i).cpu(), held_out[i]))
    scalars: dict[str, float] = {}
    for i in Domain:
        of_direction = _translation_diagnostics(translator, i, held_out[i], translations[i])
        of_domain = _code_diagnostics(translator, i, held_out[i])
        if translator.config.loss.lambda0:
            # In training mode, spectral normalization would update its state in each pass.
            discriminator = discriminators.by_domain[i.value].eval()
            images = (held_out[i], training[i], translations[i.other])
            of_domain |= _discriminator_diagnostics(*(_logits(translator, discriminator, x) for x in images))
            discriminator.train()
        scalars |= {f"vital/{name}_{i.direction}": value for name, value in of_direction.items()}
        scalars |= {f"vital/{name}_{i}": value for name, value in of_domain.items()}
    return scalars


def _translation_diagnostics(
    translator: Translator, i: Domain, images: Tensor, translations: Tensor
) -> dict[str, float]:
    """Diagnostics of the translations x_i^{i→j}.

    - identity_distance, colour_correlation, spread: as in `unit.evaluation.metrics`.
    - reconstruction_distance: mean |x_i^{i→i} - x_i|, in levels of 255: what any copy of the input loses.
    - hidden_code: the factor by which the cycle's error grows if the translation goes through JPEG, which destroys what
      is hidden in it (Chu, Zhmoginov, Sandler 2017), divided by the factor for a reconstruction of an image that goes
      through JPEG; 1: nothing is hidden. Errors are mean |difference| + 1, in levels.
    """

    def distance(outputs: Tensor) -> float:
        return float(metrics.identity_distance(outputs, images).mean())

    def cycle_distance(inputs: Tensor) -> float:
        return distance(_in_chunks(lambda x: translator.translate(x, i.other).cpu(), inputs))

    def reconstruction_distance(inputs: Tensor) -> float:
        return distance(_in_chunks(lambda x: translator.translate(x, i, strength=0.0).cpu(), inputs))

    reconstruction = reconstruction_distance(images)
    cycle_factor = (cycle_distance(_through_jpeg(translations)) + 1) / (cycle_distance(translations) + 1)
    reconstruction_factor = (reconstruction_distance(_through_jpeg(images)) + 1) / (reconstruction + 1)
    scalars = {
        "identity_distance": distance(translations),
        "reconstruction_distance": reconstruction,
        "colour_correlation": float(metrics.color_correlation(translations, images).mean()),
        "hidden_code": cycle_factor / max(reconstruction_factor, 1.0),
    }
    return scalars | ({"spread": metrics.diversity(translations, images)} if len(images) > 1 else {})


def _code_diagnostics(translator: Translator, i: Domain, images: Tensor) -> dict[str, float]:
    """active_units: the fraction of the code's elements whose μ has a variance above .01 over images (the noise: 1).

    From Burda, Grosse, Salakhutdinov 2016, "Importance Weighted Autoencoders".
    """
    if len(images) < 2:
        return {}
    with torch.inference_mode(), autocast(translator.device, translator.precision):
        mu = _in_chunks(lambda x: translator.networks.encoder({i: x.to(translator.device)})[i].float().cpu(), images)
    return {"active_units": float((mu.var(dim=0) > _ACTIVE_VARIANCE).float().mean())}


Logits = list[Tensor]
"""A discriminator's logits (n, 1, h, w) at each scale."""


def _logits(translator: Translator, discriminator: nn.Module, images: Tensor) -> Logits:
    with torch.inference_mode(), autocast(translator.device, translator.precision):
        chunks = [discriminator(chunk.to(translator.device)) for chunk in images.split(_CHUNK)]
    return [torch.cat(scale).float().cpu() for scale in zip(*chunks, strict=True)]


def _discriminator_diagnostics(held_out: Logits, training: Logits, fake: Logits) -> dict[str, float]:
    """Diagnostics of D_i, from its logits of held-out images, training images and translations, whatever their scale.

    - discriminator_accuracy: how often a patch of a held-out image has a higher logit than one of a translation; .5 is
      chance. The mean over scales.
    - logit_deviation: the standard deviation of all logits, relative to 1 + |their mean|; 0 for a constant.
    - overfitting: Karras et al. 2020 (ADA), r_v = (E[D(train)] - E[D(held out)]) / (E[D(train)] - E[D(fake)]): 0 if
      held-out images are treated like training images, 1 if like translations. Less two standard errors of the means.
    """
    scales = [torch.cat(logits) for logits in zip(held_out, training, fake, strict=True)]
    scalars = {
        "discriminator_accuracy": sum(map(_probability_greater, held_out, fake)) / len(held_out),
        "logit_deviation": max(float(logits.std() / (1 + logits.mean().abs())) for logits in scales),
    }
    x, y, z = (
        torch.stack([s.mean(dim=(1, 2, 3)) for s in logits]).mean(dim=0) for logits in (training, held_out, fake)
    )
    if min(len(x), len(y)) < 2:
        return scalars
    uncertainty = 2 * float(x.var() / len(x) + y.var() / len(y)) ** 0.5
    gap, full_gap = float(x.mean() - y.mean()) - uncertainty, float(x.mean() - z.mean())
    return scalars | {"overfitting": min(gap / full_gap, 1.0) if gap > 0 and full_gap > 0 else 0.0}


def _probability_greater(x: Tensor, y: Tensor) -> float:
    """P(x > y) + P(x = y) / 2 over all pairs."""
    ordered, x = y.flatten().sort().values, x.flatten()
    below = torch.searchsorted(ordered, x) + torch.searchsorted(ordered, x, right=True)
    return float(below.double().mean() / 2 / len(ordered))


def _through_jpeg(images: Tensor) -> Tensor:
    decoded = []
    for image in images.nan_to_num():  # NaN shows in the other diagnostics
        file = io.BytesIO()
        to_image(image).save(file, "JPEG", quality=_JPEG_QUALITY)
        decoded.append(to_tensor(Image.open(file)))
    return torch.stack(decoded)


def _in_chunks(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([function(chunk) for chunk in images.split(_CHUNK)])
