"""Alarms for the failure modes of a run, each with advice; they interpret `unit.training.diagnostics`."""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from unit.domains import Domain, PerDomain
from unit.errors import escape
from unit.evaluation.run_log import logged_values

log = logging.getLogger(__name__)

Diagnostics = Mapping[str, float]
"""Diagnostics of a domain and of the translations from it, by name without prefix and suffix; NaN if not measured."""


@dataclass(frozen=True)
class Alarm:
    """A failure mode."""

    name: str
    scope: Literal["direction", "domain"]
    """translations from a domain, or a domain's own networks"""
    triggered: Callable[[Diagnostics], bool]
    """True if a check's diagnostics show the failure; False for NaN"""
    symptom: str
    """a description with the diagnostics that show it"""
    advice: str
    checks: int = 5
    """triggered checks in a row before the alarm starts; early in a healthy run, failure modes may show for a while"""


ALARMS = (
    Alarm(
        "identity_collapse",
        "direction",
        lambda d: (
            d["identity_distance"] < max(3, 1.2 * d["reconstruction_distance"])
            and d["colour_correlation"] > 0.9
            and not d["spread"] < 0.5
        ),
        "the translation is its input, {identity_distance:.1f} of 255 levels away (a reconstruction: "
        "{reconstruction_distance:.1f})",
        "restart with a higher loss.lambda0, or a lower loss.lambda4 or loss.low_frequency",
    ),
    Alarm(
        "mode_collapse",
        "direction",
        lambda d: d["spread"] < 0.1 and not d["active_units"] < 0.01,
        "different inputs give similar outputs, with {spread:.3f} of the inputs' diversity",
        "go back to an earlier checkpoint, or restart with a higher loss.r1 or a lower "
        "optimizer.learning_rate_generator",
        10,
    ),
    Alarm(
        "inverted_colours",
        "direction",
        lambda d: d["colour_correlation"] < -0.3,
        "light becomes dark, with a colour correlation of {colour_correlation:.2f} to the input",
        "restart with model.same_init or another train.seed, unless it is what you want",
    ),
    Alarm(
        "hidden_code",
        "direction",
        lambda d: d["hidden_code"] > 1.5,
        "the cycle relies on what is hidden in the translation: JPEG makes its error {hidden_code:.1f} times as large",
        "restart with loss.cycle_noise (e.g. 0.05) or a lower loss.lambda4",
    ),
    Alarm(
        "posterior_collapse",
        "domain",
        lambda d: d["active_units"] < 0.01,
        "the code carries no information, only {active_units:.1%} of it varies between images",
        "restart with a lower loss.lambda1 and loss.lambda3, or a higher loss.lambda2",
        10,
    ),
    Alarm(
        "discriminator_saturated",
        "domain",
        lambda d: d["discriminator_accuracy"] > 0.999,
        "the discriminator is right on {discriminator_accuracy:.2%} of patches; the generator can learn little from it",
        "restart with a higher loss.r1, a lower optimizer.learning_rate_discriminator or loss.augmentation",
        10,
    ),
    Alarm(
        "discriminator_dead",
        "domain",
        lambda d: d["logit_deviation"] < 1e-3,
        "the discriminator gives all images the same logit, to {logit_deviation:.0e}; the generator learns nothing",
        "restart with a lower loss.r1 or another optimizer.learning_rate_discriminator",
    ),
    Alarm(
        "overfitting",
        "domain",
        lambda d: d["overfitting"] > 0.5,
        "the discriminator memorized the training images: held-out ones score {overfitting:.0%} of the way to fakes",
        "use an earlier checkpoint, or restart with more images or loss.augmentation (translation,cutout)",
    ),
)


class Alarms:
    """The alarms of a run; an alarm starts when enough checks in a row have triggered it.

    Checks in the run's metrics.jsonl count, so that a resumed run has the alarms of an uninterrupted one.
    """

    def __init__(self, names: PerDomain[str], run: Path) -> None:
        self._names = names.map(escape)
        self._in_a_row: Counter[tuple[str, Domain]] = Counter()
        for _, values in logged_values(run / "metrics.jsonl"):
            if any(tag.startswith("vital/") for tag in values):
                self._count(values)

    def check(self, step: int, scalars: Mapping[str, float]) -> dict[str, float]:
        """Return 1 or 0 for each alarm, e.g. ``alarm/mode_collapse_a2b``; log those that start, with advice."""
        alarms, diagnostics = {}, self._count(scalars)
        for alarm, i in product(ALARMS, Domain):
            directed, count = alarm.scope == "direction", self._in_a_row[alarm.name, i]
            alarms[f"alarm/{alarm.name}_{i.direction if directed else i}"] = float(count >= alarm.checks)
            if count == alarm.checks:
                where = f"{self._names[i]} to {self._names[i.other]}" if directed else self._names[i]
                title, symptom = alarm.name.replace("_", " "), alarm.symptom.format_map(diagnostics[i])
                log.warning("step %d, %s: %s. %s (%d checks); %s", step, where, title, symptom, count, alarm.advice)
        return alarms

    def _count(self, scalars: Mapping[str, float]) -> PerDomain[Diagnostics]:
        diagnostics = PerDomain.of(lambda i: _diagnostics_of(i, scalars))
        for alarm, i in product(ALARMS, Domain):
            self._in_a_row[alarm.name, i] = self._in_a_row[alarm.name, i] + 1 if alarm.triggered(diagnostics[i]) else 0
        return diagnostics


def _diagnostics_of(i: Domain, scalars: Mapping[str, float]) -> Diagnostics:
    values: dict[str, float] = defaultdict(lambda: math.nan)
    for tag, value in scalars.items():
        name, _, suffix = tag.removeprefix("vital/").rpartition("_")
        if suffix in (i, i.direction):
            values[name] = value
    return values
