"""Which way to translate images well over the trained size is better for a model: by KID of what `translate` writes."""

from __future__ import annotations

import copy
import logging

from unit.domains import Domain, PerDomain
from unit.evaluation.evaluate import Evaluator, first_size
from unit.evaluation.metric_table import Metrics
from unit.translation.translator import Translator

log = logging.getLogger(__name__)


def choose_detail(evaluator: Evaluator, translator: Translator) -> tuple[PerDomain[str], Metrics]:
    """Return "native" or "guided" for the direction from each domain, and the metrics of translating so.

    Args:
        evaluator: at the images' own size.
        translator: of the model; it is not changed.

    Raises:
        UserError: as `Evaluator.metrics`.
    """
    native, guided = copy.copy(translator), copy.copy(translator)
    native.detail, guided.detail = "native", "guided"
    metrics = evaluator.metrics(native)
    large = PerDomain.of(lambda i: guided.is_guided(i, *first_size(evaluator.test.images[i])[::-1]))
    best = PerDomain("native", "native")
    if not any(large):
        return best, metrics
    other = evaluator.metrics(guided)
    kids = PerDomain.of(lambda i: [m[i.direction]["translated"]["kid"] for m in (metrics, other)])
    if any(kid is None for pair in kids for kid in pair):
        return best, metrics
    best = PerDomain.of(lambda i: "guided" if float(kids[i][1] or 0) < float(kids[i][0] or 0) else "native")
    for i in Domain:
        text = "%s: KID of full-size translations: native %.1f, guided %.1f; --detail auto is %s"
        log.info(text, i.direction, *kids[i], best[i])
    return best, {i.direction: (other if best[i] == "guided" else metrics)[i.direction] for i in Domain}
