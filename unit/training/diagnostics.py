"""What tells a healthy run from a sick one, measured on a probe_batch of images; `unit.training.alarms` judges it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
_AT_ONCE = 8
"""as many as a sample grid has: there is memory for them"""
_JPEG_QUALITY = 75
_ACTIVE = 0.01


def probe_batch(sources: PerDomain[ImageSource], data: DataConfig) -> PerDomain[Tensor]:
    """Up to 16 images (n, 3, crop, crop) of each domain, from all over its list; always the same ones.

    Raises:
        ImageError: an image can't be read, and `data.on_bad_image` is "stop"; or none of a domain's can.
    """
    counts = list(sources.map(len))
    return load_held_out(sources, range(0, max(counts), max(1, min(counts) // _IMAGES)), data, _IMAGES)


def diagnostics(
    translator: Translator, discriminators: Discriminators, held_out: PerDomain[Tensor], training: PerDomain[Tensor]
) -> dict[str, float]:
    """The signs by their tags, e.g. ``vital/spread_a2b``; what so few images can't show is left out.

    So are the discriminators where λ0 is 0, which never trains them.

    Args:
        translator: of the averaged networks.
        discriminators: left as they are, state included.
        held_out: (n, 3, H, W) in [-1, 1] that training never saw, one of each domain at least.
        training: images that it saw.
    """
    translations = PerDomain.of(lambda i: _in_parts(lambda x: translator.translate(x, i).cpu(), held_out[i]))
    signs: dict[str, float] = {}
    for i in Domain:
        found = _of_translations(translator, i, held_out[i], translations[i])
        signs |= {f"vital/{name}_{i.direction}": value for name, value in found.items()}
        found = _of_codes(translator, i, held_out[i])
        if translator.config.loss.lambda0:
            judged = (held_out[i], training[i], translations[i.other])
            found |= _of_verdicts(*_verdicts(translator, discriminators, i, *judged))
        signs |= {f"vital/{name}_{i}": value for name, value in found.items()}
    return signs


def _of_translations(translator: Translator, i: Domain, images: Tensor, translations: Tensor) -> dict[str, float]:
    """Of x_i^{i→j}.

    - identity_distance, colour_correlation, spread: as in `unit.evaluation.metrics`.
    - reconstruction_distance: mean |x_i^{i→i} - x_i|, in levels of 255: what any copy of the input lacks.
    - hidden_code: how many times larger the cycle's error becomes when the translation went through JPEG, relative to
      what JPEG makes of the error of reconstructing an image: 1 is no harm, and what is hidden in a translation
      (Chu, Zhmoginov, Sandler 2017) is lost then. Errors are mean |difference| + 1, in levels.
    """

    def back(x: Tensor) -> Tensor:
        return _in_parts(lambda part: translator.translate(part, i.other).cpu(), x)

    def again(x: Tensor) -> Tensor:
        return _in_parts(lambda part: translator.reconstruct(part, i).cpu(), x)

    def error(x: Tensor) -> float:
        return float(metrics.identity_distance(x, images).mean()) + 1

    reconstruction = error(again(images))
    cycle = error(back(_through_jpeg(translations))) / error(back(translations))
    ordinary = error(again(_through_jpeg(images))) / reconstruction
    signs = {
        "identity_distance": float(metrics.identity_distance(translations, images).mean()),
        "reconstruction_distance": reconstruction - 1,
        "colour_correlation": float(metrics.color_correlation(translations, images).mean()),
        "hidden_code": cycle / max(ordinary, 1.0),
    }
    return signs | ({"spread": metrics.diversity(translations, images)} if len(images) > 1 else {})


def _of_codes(translator: Translator, i: Domain, images: Tensor) -> dict[str, float]:
    """active_units: the share of the code's elements whose μ has a variance above .01 over images.

    The noise has the variance 1. From Burda, Grosse, Salakhutdinov 2016, "Importance Weighted Autoencoders".
    """
    if len(images) < 2:
        return {}
    with torch.inference_mode(), autocast(translator.device, translator.precision):
        mu = _in_parts(lambda x: translator.networks.encoder(i)(x.to(translator.device)).float().cpu(), images)
    return {"active_units": float((mu.var(dim=0) > _ACTIVE).float().mean())}


Verdict = list[Tensor]
"""A discriminator's logits (n, 1, h, w) at each scale."""


def _verdicts(translator: Translator, discriminators: Discriminators, i: Domain, *images: Tensor) -> Iterator[Verdict]:
    """D_i's of each of `images`, as it gives them outside of training."""
    judge = discriminators.by_domain[i.value]
    with _evaluating(judge), torch.inference_mode(), autocast(translator.device, translator.precision):
        for x in images:
            parts = [judge(part.to(translator.device)) for part in x.split(_AT_ONCE)]
            yield [torch.cat(scale).float().cpu() for scale in zip(*parts, strict=True)]


def _of_verdicts(real: Verdict, seen: Verdict, fake: Verdict) -> dict[str, float]:
    """Of D_i's verdicts on held-out images, on training images and on translations, whatever scale logits have.

    - discriminator_accuracy: how often D_i finds a patch of a held-out image more real than one of a translation; .5
      is rng. Mean over scales.
    - logit_deviation: the standard deviation of all logits, relative to 1 + |their mean|: 0 for a constant.
    - overfitting: Karras et al. 2020 (ADA), r_v = (E[D(seen)] - E[D(held out)]) / (E[D(seen)] - E[D(fake)]): 0 treats
      training images like held-out ones, 1 held-out ones like translations. Less two standard errors of so few.
    """
    signs = {
        "discriminator_accuracy": sum(map(_more_often, real, fake)) / len(real),
        "logit_deviation": max(_deviation(torch.cat(each)) for each in zip(real, seen, fake, strict=True)),
    }
    x, y, z = (torch.stack([s.mean(dim=(1, 2, 3)) for s in v]).mean(dim=0) for v in (seen, real, fake))
    if min(len(x), len(y)) < 2:
        return signs
    doubt = 2 * float(x.var() / len(x) + y.var() / len(y)) ** 0.5
    lead, whole = float(x.mean() - y.mean()) - doubt, float(x.mean() - z.mean())
    return signs | {"overfitting": min(lead / whole, 1.0) if lead > 0 and whole > 0 else 0.0}


def _more_often(x: Tensor, y: Tensor) -> float:
    """P(x > y) + P(x = y) / 2 over all pairs."""
    ordered, x = y.flatten().sort().values, x.flatten()
    below = torch.searchsorted(ordered, x) + torch.searchsorted(ordered, x, right=True)
    return float(below.double().mean() / 2 / len(ordered))


def _deviation(logits: Tensor) -> float:
    return float(logits.std() / (1 + logits.mean().abs()))


def _through_jpeg(images: Tensor) -> Tensor:
    return torch.stack([_jpeg(image) for image in images])


def _jpeg(image: Tensor) -> Tensor:
    file = io.BytesIO()
    to_image(image.nan_to_num()).save(file, "JPEG", quality=_JPEG_QUALITY)  # NaN shows in the other signs
    with Image.open(file) as decoded:
        return to_tensor(decoded)


def _in_parts(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([function(part) for part in images.split(_AT_ONCE)])


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Spectral normalization follows σ at each pass in training: looking must change nothing."""
    was = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was)
