"""Evaluating a translator on held-out images, against the identity baseline and real images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from unit.config import DataConfig
from unit.data.batches import held_out_image
from unit.data.datasets import HeldOut
from unit.domains import Domain, PerDomain
from unit.errors import ImageError
from unit.evaluation import metrics
from unit.evaluation.features import Features
from unit.evaluation.grids import contact_sheet, sample_grids
from unit.evaluation.held_out import load_held_out, readable, stack
from unit.evaluation.metric_table import COUNTS, NAMES, Metrics, table
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

_BATCH_SIZE = 16
_FID_IMAGES_PER_FEATURE = 2
"""With fewer images on either side, the estimated covariances are mostly noise."""


def evaluate(translator: Translator, test: HeldOut, features: Features | None = None) -> Metrics:
    """Compute the metrics of both directions once; see `Evaluator`."""
    return Evaluator(test, translator.config.data, features).metrics(translator)


class Evaluator:
    """Evaluates translators on the same test images; what does not depend on the translator is computed once.

    The group "identity" takes the input for its own translation. "real" is what real images of the target domain reach:
    KID and FID of every second image against the others; diversity of all; for pairs, the colour correlation and
    distance of the input's true counterpart; for the synthetic streets, paired metrics of the same scenes redrawn with
    other clouds and rain, an upper bound for any translator. Metrics without meaning are None, and so is FID below
    twice as many images as features.

    Args:
        test: images that training never saw; KID and FID refer to all of the target domain's.
        data: how the translators' training saw its images; here too they are resized, and their centre is cropped.
        features: behind KID, FID and feature_distance; None: without these.
        at_most: images per domain, taken evenly from longer lists; KID needs a square matrix of this size.
    """

    def __init__(self, test: HeldOut, data: DataConfig, features: Features | None = None, at_most: int = 5000) -> None:
        self.test, self.data, self.features = test, data, features
        self._indices = test.images.map(lambda source: _evenly_spaced(len(source), at_most))
        self._inputs: PerDomain[_Accumulator] | None = None
        self._baselines: PerDomain[dict[str, dict[str, float | None]]] = PerDomain({}, {})

    def metrics(self, translator: Translator) -> Metrics:
        """Compute the metrics of both directions.

        Raises:
            ImageError: an image can't be read; where bad images are skipped, none of a domain's can.
        """
        translated, real = self._accumulators(), self._accumulators()
        inputs = self._inputs or self._accumulators()
        for ks, images in self._batches():
            for i in Domain:
                x, truth = images[i], images[i.other] if self.test.paired else None
                if not len(x):
                    continue
                _add_translations(translated[i], translator, i, x, truth)
                if not self._inputs:
                    inputs[i].add(x, _against_input(x, x) | _against_truth(x, truth))
                    if truth is not None:
                        self._add_real(real[i], i, x, truth, ks)
        if translated.map(len) != inputs.map(len):
            self._inputs = None  # other files are readable than before
            return self.metrics(translator)
        if not self._inputs:
            self._inputs = inputs
            for i in Domain:
                identity, floor = self._summarize(inputs[i], i), self._summarize(real[i], i, real=True)
                # "do_nothing" is the old name of "identity", kept for one version
                self._baselines[i].update(identity=identity, do_nothing=identity, real=floor)
        return {i.direction: {"translated": self._summarize(translated[i], i), **self._baselines[i]} for i in Domain}

    def _accumulators(self) -> PerDomain[_Accumulator]:
        return PerDomain.of(lambda _: _Accumulator(self.features))

    def _batches(self) -> Iterator[tuple[list[int], PerDomain[Tensor]]]:
        """Yield which of the chosen images a batch holds, and those of each domain; a shorter list ends with none."""
        failures: list[ImageError] = []
        unseen = set(Domain)
        images = readable(self.test.images, self._indices, self.data, failures)
        while batch := list(islice(images, _BATCH_SIZE)):
            stacked = PerDomain.of(lambda i: stack([x for _, pair in batch for x in pair[i]], self.data))
            unseen -= {i for i in Domain if len(stacked[i])}
            yield [k for k, _ in batch], stacked
        if failures and unseen:
            raise failures[-1]

    def _add_real(self, real: _Accumulator, i: Domain, inputs: Tensor, truth: Tensor, ks: list[int]) -> None:
        """Add the scores of the inputs' true counterparts and, where there are any, of these redrawn."""
        scores = _against_input(truth, inputs)
        if self.test.redrawn is None:
            real.add_scores(scores, len(inputs))
        else:
            source, indices = self.test.redrawn[i.other], self._indices[i.other]
            redrawn = stack([held_out_image(source, indices[k], self.data) for k in ks], self.data)
            real.add(redrawn, scores | _against_truth(redrawn, truth))

    def _summarize(self, images: _Accumulator, i: Domain, real: bool = False) -> dict[str, float | None]:
        """Reduce what was accumulated of images made from the inputs of domain i, or of real ones in their place."""
        assert self._inputs
        reference, inputs = self._inputs[i.other].features, self._inputs[i]
        compared = (reference[::2], reference[1::2]) if real else (images.features, reference)
        values = dict.fromkeys(NAMES) | images.means()
        values |= dict(zip(COUNTS, map(len, compared), strict=True))
        values |= _diversity((self._inputs[i.other] if real else images).thumbnails, inputs.thumbnails)
        if self.features:
            values |= _distances(*compared)
            if self.test.paired and len(images):
                values["feature_distance"] = metrics.feature_distance(images.features, reference)
        return values


class _Accumulator:
    """Features, thumbnails and metrics of images that come in batches."""

    def __init__(self, extract: Features | None) -> None:
        self._extract = extract or (lambda images: torch.empty(len(images), 0))
        self._features: list[Tensor] = []
        self._thumbnails: list[Tensor] = []
        self._scores: list[tuple[int, Mapping[str, float]]] = []

    def __len__(self) -> int:
        return sum(map(len, self._thumbnails))

    def add(self, images: Tensor, scores: Mapping[str, float]) -> None:
        """Add (n, 3, H, W) in [-1, 1] and their mean metrics."""
        self._features.append(self._extract(images))
        self._thumbnails.append(metrics.thumbnails(images).cpu())
        self.add_scores(scores, len(images))

    def add_scores(self, scores: Mapping[str, float], count: int) -> None:
        """Add metrics that are means over `count` images."""
        self._scores.append((count, scores))

    def means(self) -> dict[str, float | None]:
        """Average each metric over all images."""
        total = sum(count for count, _ in self._scores)
        names = self._scores[0][1] if self._scores else ()
        return {name: sum(count * scores[name] for count, scores in self._scores) / total for name in names}

    @property
    def features(self) -> Tensor:
        """(n, d)."""
        return torch.cat(self._features)

    @property
    def thumbnails(self) -> Tensor:
        """(n, 3, 8, 8)."""
        return torch.cat(self._thumbnails)


def _add_translations(
    translated: _Accumulator, translator: Translator, i: Domain, inputs: Tensor, truth: Tensor | None
) -> None:
    translation = translator.translate(inputs, i)
    cycle, reconstruction = translator.translate(translation, i.other), translator.reconstruct(inputs, i)
    translation = metrics.quantize(translation)
    scores = {"cycle_psnr": metrics.psnr(cycle.cpu(), inputs)}
    scores["reconstruction_psnr"] = metrics.psnr(reconstruction.cpu(), inputs)
    scores |= _against_input(translation.cpu(), inputs) | _against_truth(translation.cpu(), truth)
    translated.add(translation, scores)


def _against_input(images: Tensor, inputs: Tensor) -> dict[str, float]:
    return {
        "colour_correlation": metrics.color_correlation(images, inputs),
        "identity_distance": metrics.identity_distance(images, inputs),
    }


def _against_truth(images: Tensor, truth: Tensor | None) -> dict[str, float]:
    if truth is None:
        return {}
    scores = {"psnr": metrics.psnr(images, truth), "pixel_accuracy": metrics.pixel_accuracy(images, truth)}
    if min(images.shape[-2:]) >= metrics.SSIM_WINDOW:
        scores["ssim"] = metrics.ssim(images, truth)
    return scores


def _diversity(images: Tensor, inputs: Tensor) -> dict[str, float | None]:
    return {"spread": metrics.diversity(images, inputs)} if min(len(images), len(inputs)) > 1 else {}


def _distances(features: Tensor, reference: Tensor) -> dict[str, float | None]:
    """KID, which needs two images on either side, and FID, which needs many."""
    count, dimension = min(len(features), len(reference)), features.shape[1]
    if count < 2:
        return {}
    low, high = metrics.kid_interval(features, reference)
    distances: dict[str, float | None] = {"kid": metrics.kid(features, reference), "kid_low": low, "kid_high": high}
    if count >= _FID_IMAGES_PER_FEATURE * dimension:
        distances["fid"] = metrics.fid(features, reference)
    return distances


def _evenly_spaced(count: int, at_most: int) -> Sequence[int]:
    """Choose at most `at_most` of `count` indices."""
    return range(count) if count <= at_most else [k * count // at_most for k in range(at_most)]
