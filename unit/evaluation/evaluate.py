"""Evaluating a translator on held-out images, against the identity baseline and real images."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import islice
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from unit.config import DataConfig
from unit.data.batches import held_out_image
from unit.data.datasets import HeldOut
from unit.domains import Domain, PerDomain
from unit.errors import ImageError, OutOfMemoryError, UserError, format_bytes
from unit.evaluation import metrics
from unit.evaluation.features import Features
from unit.evaluation.held_out import naming, readable, run_as_translate, stack
from unit.evaluation.metric_table import COUNTS, NAMES, Metrics
from unit.evaluation.st_lpips import StLpips
from unit.image_source import ImageSource
from unit.machine import available_memory
from unit.translation.translator import Translator

log = logging.getLogger(__name__)

Columns: TypeAlias = dict[str, Tensor]
"""The name of a metric, or one of the four below → one row per image."""
_FEATURES, _VGG, _THUMBNAILS, _ENERGY = "features", "vgg", "thumbnails", "energy"

_BATCH_SIZE = 16
_BYTES_PER_PIXEL = 100
"""Peak memory of drawing a synthetic street, and about that of an image's tensors and metrics (measured)."""

_MAX_IMAGES, _MAX_SWAPPED = 200, 50
_SECONDS = 120
"""What measuring may take where nobody asked for all images."""
_PROBE_PIXELS = 10**6
"""Pixels of the largest image that is translated to judge how long a translation takes."""
_PASSES = 4
"""Time of measuring an image, in translations of it: translation, cycle, reconstruction, features."""
_JUDGED = 4
"""Images that the second judge sees for each: translation and input, and their true counterpart beside either."""


def evaluate(
    translator: Translator, test: HeldOut, features: Features | None = None, st_lpips: StLpips | None = None
) -> Metrics:
    """Compute the metrics of what the verb `translate` writes, in both directions; see `Evaluator`."""
    return Evaluator(test, translator.config.data, features, native=True, st_lpips=st_lpips).metrics(translator)


def affordable_count(
    sources: PerDomain[ImageSource],
    translator: Translator,
    size: int | None = None,
    st_lpips: StLpips | None = None,
    seconds: float | None = None,
    at_least: int = 2,
) -> int:
    """Return how many images of each domain are measured in `seconds`, judged by the first; at most 200.

    Args:
        sources: the images.
        translator: the model.
        size: the short side at which the network works, like `translate --size`; None: the image's own.
        st_lpips: the second judge, if it is asked too.
        seconds: None: two minutes.
        at_least: the number returned where fewer would do.

    Raises:
        UserError: out of memory.
    """
    per_image = 0.0
    for i in Domain:
        width, height = first_size(sources[i])
        scale = size / min(width, height) if size else 1
        pixels = width * height * scale**2
        scale *= min(1, math.sqrt(_PROBE_PIXELS / pixels))  # a photo of 24 megapixels takes a CPU minutes
        image = torch.zeros(()).expand(1, 3, round(height * scale), round(width * scale))  # takes no memory
        elapsed = _PASSES * _seconds(partial(translator.translate, image, i))
        if st_lpips:
            elapsed += _JUDGED * _seconds(partial(st_lpips, image))
        per_image += elapsed * max(1, pixels / _PROBE_PIXELS)
    return max(at_least, min(_MAX_IMAGES, int((_SECONDS if seconds is None else seconds) / per_image)))


def _seconds(run: Callable[[], object]) -> float:
    """Return the duration of the second call, since the first also sets things up, or of a first that takes long."""
    for _ in range(2):
        started = time.perf_counter()
        run()
        elapsed = time.perf_counter() - started
        if elapsed > 1:
            break
    return elapsed


def first_size(source: ImageSource) -> tuple[int, int]:
    """Return the width and height of the first readable image."""
    for index in range(len(source)):
        with suppress(ImageError):
            return source.image(index).size
    return 1, 1


class Evaluator:
    """Evaluates translators on the same test images; features and metrics of the images themselves are computed once.

    The group "identity" uses the input as its translation. "real" is what real images of the target domain reach:
    KIDs, FID and sharpness of even- against odd-numbered images; diversity of all; for pairs, the colour correlation
    and distance of the input's true counterpart; for the synthetic streets, paired metrics of the same scenes redrawn
    with other clouds and rain, an upper bound for any translator. Metrics without meaning are None, and so is FID below
    twice as many images as features.

    Args:
        test: images that training never saw; KID and FID refer to all of the target domain's.
        data: how the translators' training saw its images; here too they are resized, and their centre is cropped,
            unless `native`.
        features: behind KID, FID and feature_distance; None: without these.
        at_most: images per domain, taken evenly from longer lists; KID needs a square matrix of this size.
        native: evaluate what the verb `translate` writes: all images at their own size, one at a time.
        size: the short side at which the network works then, like `translate --size`; None: the image's own.
        st_lpips: the second judge, for KID-VGG and, of pairs, ST-LPIPS; None: without these.
    """

    def __init__(
        self,
        test: HeldOut,
        data: DataConfig,
        features: Features | None = None,
        at_most: int = 5000,
        native: bool = False,
        size: int | None = None,
        st_lpips: StLpips | None = None,
    ) -> None:
        self.test, self.data, self.features, self.native, self.size = test, data, features, native, size
        self.st_lpips = st_lpips
        self._indices = test.images.map(lambda source: _evenly_spaced(len(source), at_most))
        self.left_out = 0
        """images, or pairs, that `metrics` could not read, or that were too large for the memory"""
        self._inputs: PerDomain[Columns] | None = None
        self._baselines: PerDomain[dict[str, dict[str, float | None]]] = PerDomain({}, {})

    def metrics(self, translator: Translator) -> Metrics:
        """Compute the metrics of both directions.

        Raises:
            ImageError: an image can't be read; where bad images are skipped, none of a domain's can.
            UserError: out of memory; of `native` images, which differ in size, all of a domain are too large.
        """
        rows: list[PerDomain[tuple[Columns, Columns, Columns]]] = []
        failure, count = None, 0
        readable_images = readable(self.test.images, self._indices, self.data, native=self.native)
        batch_size = self._batch_size(translator)
        while batch := list(islice(readable_images, batch_size)):
            ks = [k for k, _ in batch]
            images = PerDomain(*(stack([x for _, pair in batch for x in pair[i]], self.data) for i in Domain))
            try:
                rows.append(PerDomain(*(self._rows(translator, i, images, ks) for i in Domain)))
                count += len(ks)
            except OutOfMemoryError as error:
                if not self.native:
                    raise
                log.warning("%s; left out", error)
                failure = error
        self.left_out = max(self._indices.map(len)) - count
        translated, inputs, real = (
            PerDomain(*(_concatenate([r[i][n] for r in rows]) for i in Domain)) for n in range(3)
        )
        if failure and not all(translated):
            raise failure
        if self._inputs is None:
            self._inputs = inputs
            for i in Domain:
                identity = self._summarize(self._inputs[i], i)
                floor = self._summarize(real[i], i, real=True)
                # "do_nothing" is the old name of "identity", kept for one version
                self._baselines[i].update(identity=identity, do_nothing=identity, real=floor)
        elif any(len(translated[i][_FEATURES]) != len(self._inputs[i][_FEATURES]) for i in Domain):
            self._inputs = None  # different files are readable than before
            return self.metrics(translator)
        return {i.direction: {"translated": self._summarize(translated[i], i), **self._baselines[i]} for i in Domain}

    def _rows(
        self, translator: Translator, i: Domain, images: PerDomain[Tensor], ks: list[int]
    ) -> tuple[Columns, Columns, Columns]:
        """Return rows of translations from domain i, of their inputs (once) and of the inputs' true counterparts."""
        x, truth = images[i], images[i.other] if self.test.paired else None
        if not len(x):
            return {}, {}, {}
        truth = truth if truth is None else resize_like(truth, x)
        with naming(self.test.images[i], self._indices[i][ks[0]]) if self.native else nullcontext():
            translated = self._translate(translator, i, x, truth)
        if self._inputs is not None:
            return translated, {}, {}
        inputs = self._describe(x, truth) | _compare(x, x, truth)
        return translated, inputs, {} if truth is None else self._describe_real(i, x, truth, ks)

    def _batch_size(self, translator: Translator) -> int:
        """Return how many images of each domain fit into half of the memory, at most 16; raises `UserError` if none."""
        if self.native and not self.test.rerendered:
            return 1  # the memory is checked image by image
        side = self.data.load_size if self.native else self.data.crop_size
        image, crop = self.data.load_size**2 * _BYTES_PER_PIXEL, side**2
        per_image, available = 2 * crop * _BYTES_PER_PIXEL + translator.bytes_needed(crop), available_memory()
        if image + per_image > available:
            raise UserError(
                f"the model was trained at {self.data.load_size} pixels, where evaluating takes "
                f"{format_bytes(image + per_image)} of memory, but {format_bytes(available)} are free"
            )
        return 1 if self.native else max(1, min(_BATCH_SIZE, (available // 2 - image) // per_image))

    def fits_swapped(self, translator: Translator, measured: Metrics, seconds: float | None = None) -> bool:
        """True if the images of A seem to be those of B: KID is worse than identity's, and better the other way round.

        Args:
            translator: the one that was measured.
            measured: its metrics.
            seconds: that it may take; None: two minutes.
        """
        kid, identity = _total_kid(measured, "translated"), _total_kid(measured, "identity")
        if not kid > identity:
            return False
        swapped = HeldOut(self.test.images.swapped(), paired=False)
        count = min(_MAX_SWAPPED, affordable_count(swapped.images, translator, self.size, seconds=seconds))
        evaluator = Evaluator(swapped, self.data, self.features, count, self.native, self.size)
        return _total_kid(evaluator.metrics(translator), "translated") < min(kid, identity)

    def _describe(self, images: Tensor, truth: Tensor | None) -> Columns:
        """Return the rows of images that metrics of sets need, and what networks make of them and their true images."""
        features = self.features(images) if self.features else torch.empty(len(images), 0)
        columns = {_FEATURES: features, _THUMBNAILS: metrics.thumbnails(images).cpu()}
        columns[_ENERGY] = metrics.laplacian_energy(images).cpu()
        if self.st_lpips:
            columns[_VGG], distances = self.st_lpips(images, truth)
            if distances is not None:
                columns["st_lpips"] = distances
        return columns

    def _translate(self, translator: Translator, i: Domain, inputs: Tensor, truth: Tensor | None) -> Columns:
        def run(network: Callable[[Tensor, Domain], Tensor], images: Tensor, domain: Domain) -> Tensor:
            return run_as_translate(network, images, domain, self.size) if self.native else network(images, domain)

        translation = run(translator.translate, inputs, i)
        cycle = run(translator.translate, translation, i.other)
        reconstruction = run(translator.reconstruct, inputs, i)
        translation = metrics.quantize(translation)
        columns = self._describe(translation, truth) | _compare(translation.cpu(), inputs, truth)
        columns["cycle_psnr"] = metrics.psnr(cycle.cpu(), inputs)
        columns["reconstruction_psnr"] = metrics.psnr(reconstruction.cpu(), inputs)
        return columns

    def _describe_real(self, i: Domain, inputs: Tensor, truth: Tensor, ks: list[int]) -> Columns:
        """Compare the inputs' true counterparts with the inputs and, if the scenes can be redrawn, with these."""
        columns = _compare(truth, inputs, None)
        if self.test.rerendered:
            source, indices = self.test.rerendered[i.other], self._indices[i.other]
            redrawn = stack([held_out_image(source, indices[k], self.data, self.native) for k in ks], self.data)
            redrawn = resize_like(redrawn, inputs)
            columns = self._describe(redrawn, truth) | _compare(redrawn, inputs, truth) | columns
        return columns

    def _summarize(self, images: Columns, i: Domain, real: bool = False) -> dict[str, float | None]:
        """Reduce the columns of images made from the inputs of domain i, or of real ones in their place."""
        assert self._inputs
        target, inputs = self._inputs[i.other], self._inputs[i]

        def compared(name: str) -> tuple[Tensor, Tensor]:
            return (target[name][::2], target[name][1::2]) if real else (images[name], target[name])

        values = dict.fromkeys(NAMES) | {name: float(images[name].double().mean()) for name in NAMES if name in images}
        values |= dict(zip(COUNTS, map(len, compared(_FEATURES)), strict=True))
        values["sharpness"] = metrics.sharpness(*compared(_ENERGY))
        thumbnails = (target if real else images)[_THUMBNAILS], inputs[_THUMBNAILS]
        if min(map(len, thumbnails)) > 1:
            values["spread"] = metrics.diversity(*thumbnails)
        if self.features:
            values |= _kid("kid", *compared(_FEATURES)) | {"fid": _fid(*compared(_FEATURES))}
            if self.test.paired and _FEATURES in images:
                distances = metrics.feature_distance(images[_FEATURES], target[_FEATURES])
                values["feature_distance"] = float(distances.mean())
        if self.st_lpips:
            values |= _kid("kid_vgg", *compared(_VGG))
        return values


def _total_kid(measured: Metrics, group: str) -> float:
    """Add up both directions; NaN if one was not measured."""
    kids = [measured[i.direction][group]["kid"] for i in Domain]
    return sum(math.nan if kid is None else kid for kid in kids)


def _concatenate(batches: Sequence[Columns]) -> Columns:
    """Join the rows; small images have no SSIM, and hence no row in its column."""
    names = dict.fromkeys(name for batch in batches for name in batch)
    return {name: torch.cat([batch[name] for batch in batches if name in batch]) for name in names}


def resize_like(images: Tensor, others: Tensor) -> Tensor:
    """Scale images to the size of others, if it differs."""
    size = others.shape[-2:]
    if images.shape[-2:] == size:
        return images
    return functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(-1, 1)


def _compare(images: Tensor, inputs: Tensor, truth: Tensor | None) -> Columns:
    columns = {
        "colour_correlation": metrics.color_correlation(images, inputs),
        "identity_distance": metrics.identity_distance(images, inputs),
    }
    if truth is not None:
        columns |= {"psnr": metrics.psnr(images, truth), "pixel_accuracy": metrics.pixel_accuracy(images, truth)}
        if min(images.shape[-2:]) >= metrics.SSIM_WINDOW:
            columns["ssim"] = metrics.ssim(images, truth)
    return columns


def _kid(name: str, features: Tensor, reference: Tensor) -> dict[str, float | None]:
    """KID and its interval; needs two images on either side."""
    if min(len(features), len(reference)) < 2:
        return {}
    low, high = metrics.kid_interval(features, reference)
    return {name: metrics.kid(features, reference), f"{name}_low": low, f"{name}_high": high}


def _fid(features: Tensor, reference: Tensor) -> float | None:
    """FID; with fewer than two images per feature, the estimated covariances are mostly noise."""
    enough = min(len(features), len(reference)) >= max(2, 2 * features.shape[1])
    return metrics.fid(features, reference) if enough else None


def _evenly_spaced(count: int, at_most: int) -> Sequence[int]:
    """Choose at most `at_most` of `count` indices."""
    return range(count) if count <= at_most else [k * count // at_most for k in range(at_most)]
