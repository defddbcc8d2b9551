"""Says when a run is sick, with a sentence of advice; what it looks at is `unit.training.diagnostics`."""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unit.domains import Domain, PerDomain
from unit.errors import escape
from unit.evaluation.run_log import logged

log = logging.getLogger(__name__)

Signs = Mapping[str, float]
"""A domain's and of the translations that start from it, by bare names; a missing one is NaN, which is never ill."""


@dataclass(frozen=True)
class Alarm:
    """An illness."""

    name: str
    of: Literal["direction", "domain"]
    """of the translations from a domain, or of its own networks"""
    ill: Callable[[Signs], bool]
    """whether one check shows it"""
    checks: int
    """how many in a row must; the first steps of a healthy run show many an illness for a while"""
    metric: str
    """the sign to name, and what it means"""
    advice: str


ALARMS = (
    Alarm(
        "identity_collapse",
        "direction",
        lambda s: (
            s["identity_distance"] < max(3, 1.2 * s["reconstruction_distance"])
            and s["colour_correlation"] > 0.9
            and not s["spread"] < 0.5
        ),
        5,
        "the translation is its input, {identity_distance:.1f} of 255 levels away (a reconstruction: "
        "{reconstruction_distance:.1f})",
        "begin anew with a higher loss.lambda0, or a lower loss.lambda4 or loss.low_frequency",
    ),
    Alarm(
        "mode_collapse",
        "direction",
        lambda s: s["spread"] < 0.1 and not s["active_units"] < 0.01,
        10,
        "different images become alike, with {spread:.3f} of the inputs' spread",
        "go back to a checkpoint from before, or begin anew with a higher loss.r1 or a lower "
        "optimizer.learning_rate_generator",
    ),
    Alarm(
        "inverted_colours",
        "direction",
        lambda s: s["colour_correlation"] < -0.3,
        5,
        "light becomes dark, with a correlation of {colour_correlation:.2f} to the input's colours",
        "begin anew with model.same_init or another train.seed, unless it is what you want",
    ),
    Alarm(
        "hidden_code",
        "direction",
        lambda s: s["hidden_code"] > 1.5,
        5,
        "the way back reads what is hidden in the translation: after JPEG it errs {hidden_code:.1f} times as much",
        "begin anew with loss.cycle_noise (e.g. 0.05) or a lower loss.lambda4",
    ),
    Alarm(
        "posterior_collapse",
        "domain",
        lambda s: s["active_units"] < 0.01,
        10,
        "the code says nothing of its image, {active_units:.1%} of it varies",
        "begin anew with a lower loss.lambda1 and loss.lambda3, or a higher loss.lambda2",
    ),
    Alarm(
        "discriminator_saturated",
        "domain",
        lambda s: s["discriminator_accuracy"] > 0.999,
        10,
        "the discriminator is never wrong, in {discriminator_accuracy:.2%} of patches right, and teaches nothing",
        "begin anew with a higher loss.r1, a lower optimizer.learning_rate_discriminator or loss.augmentation",
    ),
    Alarm(
        "discriminator_dead",
        "domain",
        lambda s: s["logit_deviation"] < 1e-3,
        5,
        "the discriminator says the same of everything, to {logit_deviation:.0e}, and teaches nothing",
        "begin anew with a lower loss.r1 or another optimizer.learning_rate_discriminator",
    ),
    Alarm(
        "overfitting",
        "domain",
        lambda s: s["overfitting"] > 0.5,
        5,
        "the discriminator knows the training images by heart, and takes others {overfitting:.0%} for translations",
        "take a checkpoint from before, or begin anew with more images or loss.augmentation (translation,cutout)",
    ),
)


class Alarms:
    """Of one run: what a check shows, and how many before it showed the same.

    Args:
        names: what the user calls the domains.
        run: the run's folder; the checks in its metrics.jsonl are taken up, so that a run in parts has the alarms of a
            run in one.
    """

    def __init__(self, names: PerDomain[str], run: Path) -> None:
        self._names = names.map(escape)
        self._in_a_row: dict[tuple[str, Domain], int] = defaultdict(int)
        for _, line in logged(run / "metrics.jsonl"):
            if '"vital/' in line:
                self._count({tag: x for tag, x in json.loads(line).items() if isinstance(x, int | float)})

    def check(self, step: int, signs: Signs) -> dict[str, float]:
        """1 or 0 for each alarm, e.g. ``alarm/mode_collapse_a2b``; one that begins is also logged, with advice.

        Args:
            step: that the run stands at.
            signs: from `diagnostics`.
        """
        raised = {}
        for alarm, i, count in self._count(signs):
            directed = alarm.of == "direction"
            raised[f"alarm/{alarm.name}_{i.direction if directed else i}"] = float(count >= alarm.checks)
            if count == alarm.checks:
                where = f"{self._names[i]} to {self._names[i.other]}" if directed else self._names[i]
                title, metric = alarm.name.replace("_", " "), alarm.metric.format_map(_of(i, signs))
                log.warning("step %d, %s: %s. %s (%d checks); %s", step, where, title, metric, count, alarm.advice)
        return raised

    def _count(self, signs: Signs) -> list[tuple[Alarm, Domain, int]]:
        """Each alarm, and for how many checks it has been ill by now."""
        for alarm in ALARMS:
            for i in Domain:
                ill = alarm.ill(_of(i, signs))
                self._in_a_row[alarm.name, i] = self._in_a_row[alarm.name, i] + 1 if ill else 0
        return [(alarm, i, self._in_a_row[alarm.name, i]) for alarm in ALARMS for i in Domain]


def _of(i: Domain, signs: Signs) -> Signs:
    found: dict[str, float] = defaultdict(lambda: math.nan)
    for ending in (f"_{i}", f"_{i.direction}"):
        found |= {tag[len("vital/") : -len(ending)]: x for tag, x in signs.items() if tag.endswith(ending)}
    return found
