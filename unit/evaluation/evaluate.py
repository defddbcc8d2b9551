"""How well a translator translates held-out images, beside doing nothing and beside real images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unit.config import DataConfig
from unit.data.batches import held_out_image
from unit.data.datasets import HeldOut
from unit.domains import Domain, PerDomain
from unit.errors import ImageError
from unit.evaluation import metrics
from unit.evaluation.features import Features
from unit.evaluation.held_out import load_held_out, readable, stacked
from unit.evaluation.metric_table import NAMES, Metrics, table
from unit.evaluation.sheets import contact_sheet, sample_grids
from unit.translation.translator import Translator

__all__ = [
    "Evaluator",
    "Metrics",
    "contact_sheet",
    "evaluate",
    "load_held_out",
    "sample_grids",
    "table",
]

_BATCH = 16
_FID_NEEDS = 2
"""images for each dimension of the features, on both sides: of fewer, the covariances are mostly chance"""


def evaluate(translator: Translator, test: HeldOut, features: Features | None = None) -> Metrics:
    """The metrics of both directions, once; see `Evaluator`."""
    return Evaluator(test, translator.config.data, features).metrics(translator)


class Evaluator:
    """Measures translators on the same test images; what depends on these alone is computed once.

    "do_nothing" takes the input for its own translation. "real" is what real images of the target domain get: KID and
    FID of every second of them beside the others, so of half as many; `spread` of all; the metrics of pairs from the
    embedded streets drawn again with other clouds and streaks, the most that a translator can reach (elsewhere None);
    those beside the input from its true counterpart. FID is None below twice as many images as features.

    Args:
        test: images that training never saw; KID and FID refer to all of the target domain's.
        data: how the translators' training saw its images; here too they are resized, and the middle is cut out.
        features: what KID, FID and feature_distance are computed with; None: without them.
        at_most: images a domain, spread evenly over longer lists; KID needs a matrix of so many rows and columns.
    """

    def __init__(self, test: HeldOut, data: DataConfig, features: Features | None = None, at_most: int = 5000) -> None:
        self.test, self.data, self.features = test, data, features
        self._chosen = test.images.map(lambda source: _evenly(len(source), at_most))
        self._known: _Known | None = None

    def metrics(self, translator: Translator) -> Metrics:
        """The metrics of both directions.

        Raises:
            ImageError: an image can't be read; where `data.on_bad_image` is "skip", none of a domain's can.
        """
        known = self._known or _Known(self._images(), self._images())
        translated = self._images()
        for images, redrawn in self._batches():
            for i in Domain:
                if len(images[i]):
                    truth = images[i.other] if self.test.paired else None
                    _add_translations(translated[i], translator, i, images[i], truth)
                    if self._known is None:
                        known.inputs[i].keep(images[i])
                        known.inputs[i].tally(_beside(images[i], images[i], truth), len(images[i]))
                        _add_real(known.real[i], images[i], truth, redrawn[i.other] if redrawn else None)
        if any(translated[i].count != known.inputs[i].count for i in Domain):
            self._known = None  # other files can be read than before
            return self.metrics(translator)
        if self._known is None:
            for i in Domain:
                known.results[i].update(do_nothing=self._of(known.inputs[i], i, known), real=self._real(i, known))
            self._known = known
        return {i.direction: {"translated": self._of(translated[i], i, known), **known.results[i]} for i in Domain}

    def _images(self) -> PerDomain[_Images]:
        return PerDomain.of(lambda _: _Images(self.features))

    def _batches(self) -> Iterator[tuple[PerDomain[Tensor], PerDomain[Tensor] | None]]:
        """The images, none of a domain that has no more; while they are unknown, the redrawn ones too."""
        failures: list[ImageError] = []
        seen: set[Domain] = set()
        for first in range(0, max(self._chosen.map(len)), _BATCH):
            chosen = self._chosen.map(lambda indices: indices[first : first + _BATCH])  # noqa: B023
            loaded = list(readable(self.test.images, chosen, self.data, failures))
            images = PerDomain.of(lambda i: stacked([it for _, pair in loaded for it in pair[i]], self.data))  # noqa: B023
            seen |= {i for i in Domain if len(images[i])}
            yield images, None if self._known else self._redrawn(chosen, [k for k, _ in loaded])
        if failures and len(seen) < len(Domain):
            raise failures[-1]

    def _redrawn(self, chosen: PerDomain[Sequence[int]], places: list[int]) -> PerDomain[Tensor] | None:
        sources = self.test.redrawn
        if sources is None:
            return None
        return PerDomain.of(
            lambda i: stacked([held_out_image(sources[i], chosen[i][k], self.data) for k in places], self.data)
        )

    def _of(self, images: _Images, i: Domain, known: _Known) -> dict[str, float | None]:
        """What is known of images made from the inputs of domain i."""
        reference = known.inputs[i.other]
        found = dict.fromkeys(NAMES) | images.means() | _spread(images, known.inputs[i])
        found |= {"images": images.count, "reference_images": reference.count}
        if self.features:
            found |= _distances(images.features, reference.features)
            if self.test.paired:
                found["feature_distance"] = metrics.feature_distance(images.features, reference.features)
        return found

    def _real(self, i: Domain, known: _Known) -> dict[str, float | None]:
        """What is known of the real images that the translations of domain i are to be like."""
        reference, redrawn = known.inputs[i.other], known.real[i]
        found = dict.fromkeys(NAMES) | redrawn.means() | _spread(reference, known.inputs[i])
        found |= {"images": (reference.count + 1) // 2, "reference_images": reference.count // 2}
        if self.features:
            found |= _distances(reference.features[::2], reference.features[1::2])
            if redrawn.count:
                found["feature_distance"] = metrics.feature_distance(redrawn.features, reference.features)
        return found


class _Images:
    """What stays of images that come in batches: features and thumbnails, and the means of metrics."""

    def __init__(self, extract: Features | None) -> None:
        self._extract = extract
        self._features: list[Tensor] = []
        self._thumbnails: list[Tensor] = []
        self._sums: dict[str, float] = {}
        self._tallied = 0

    def keep(self, images: Tensor) -> None:
        """Add (n, 3, H, W) in [-1, 1]."""
        self._thumbnails.append(metrics.thumbnails(images).cpu())
        if self._extract:
            self._features.append(self._extract(images))

    def tally(self, scores: Mapping[str, float], count: int) -> None:
        """Add means over `count` images."""
        self._tallied += count
        for name, mean in scores.items():
            self._sums[name] = self._sums.get(name, 0.0) + mean * count

    def means(self) -> dict[str, float | None]:
        """Over all that was tallied."""
        return {name: value / self._tallied for name, value in self._sums.items()}

    @property
    def count(self) -> int:
        """How many are kept."""
        return sum(map(len, self._thumbnails))

    @property
    def features(self) -> Tensor:
        """(n, d)."""
        return torch.cat(self._features)

    @property
    def thumbnails(self) -> Tensor:
        """(n, 3, 8, 8)."""
        return torch.cat(self._thumbnails)


@dataclass
class _Known:
    """What does not change with the translator, filed under the domain that a direction starts from."""

    inputs: PerDomain[_Images]
    real: PerDomain[_Images]
    """the inputs' counterparts: of the redrawn ones, where there are any, the images"""

    def __post_init__(self) -> None:
        self.results: PerDomain[dict[str, dict[str, float | None]]] = PerDomain({}, {})


def _add_translations(
    translated: _Images, translator: Translator, i: Domain, images: Tensor, truth: Tensor | None
) -> None:
    translation = translator.translate(images, i)
    cycle, reconstruction = translator.translate(translation, i.other), translator.reconstruct(images, i)
    translation = metrics.written(translation)
    translated.keep(translation)
    back = {"cycle_psnr": cycle, "reconstruction_psnr": reconstruction}
    scores = {name: metrics.psnr(copies.cpu(), images) for name, copies in back.items()}
    translated.tally(_beside(translation.cpu(), images, truth) | scores, len(images))


def _add_real(real: _Images, images: Tensor, truth: Tensor | None, redrawn: Tensor | None) -> None:
    if truth is None:
        return
    scores = _beside(truth, images, None)
    if redrawn is not None:
        real.keep(redrawn)
        scores |= _beside_truth(redrawn, truth)
    real.tally(scores, len(images))


def _beside(guess: Tensor, inputs: Tensor, truth: Tensor | None) -> dict[str, float]:
    return {
        "colour_correlation": metrics.colour_correlation(guess, inputs),
        "identity_distance": metrics.identity_distance(guess, inputs),
        **({} if truth is None else _beside_truth(guess, truth)),
    }


def _beside_truth(guess: Tensor, truth: Tensor) -> dict[str, float]:
    scores = {"psnr": metrics.psnr(guess, truth), "pixel_accuracy": metrics.pixel_accuracy(guess, truth)}
    if min(guess.shape[-2:]) >= metrics.SSIM_WINDOW:
        scores["ssim"] = metrics.ssim(guess, truth)
    return scores


def _spread(images: _Images, inputs: _Images) -> dict[str, float | None]:
    enough = min(images.count, inputs.count) >= 2
    return {"spread": metrics.spread(images.thumbnails, inputs.thumbnails) if enough else None}


def _distances(features: Tensor, reference: Tensor) -> dict[str, float | None]:
    """KID, of two images each or more, and FID, of many."""
    count, dimension = min(len(features), len(reference)), features.shape[1]
    if count < 2:
        return {}
    low, high = metrics.kid_interval(features, reference)
    found: dict[str, float | None] = {"kid": metrics.kid(features, reference), "kid_low": low, "kid_high": high}
    if count >= _FID_NEEDS * dimension:
        found["fid"] = metrics.fid(features, reference)
    return found


def _evenly(count: int, at_most: int) -> Sequence[int]:
    """At most so many of `count` indices, evenly spread."""
    return range(count) if count <= at_most else [k * count // at_most for k in range(at_most)]
