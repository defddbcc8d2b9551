"""What `translate` prints of its outcomes."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict

from unit.cli.translate_videos import describe
from unit.errors import escape
from unit.translation.files.jobs import Outcome
from unit.translation.files.shares import ALL, Share
from unit.translation.video.jobs import VideoOutcome

log = logging.getLogger(__name__)


class Summary:
    """Reports the outcomes: each at once, and in the end their numbers and what the outputs do not keep."""

    def __init__(self, arguments: argparse.Namespace, share: Share = ALL) -> None:
        self.arguments, self.share = arguments, share
        self.counts = dict.fromkeys(("done", "skipped", "failed"), 0)
        self.lost: dict[str, list[str]] = {}

    def add(self, outcome: Outcome) -> None:
        """Report an outcome and count it."""
        self.counts[outcome.status] += 1
        _report(outcome, self.arguments.json)
        for name in outcome.lost:
            self.lost.setdefault(name, []).append(outcome.input)

    def log(self) -> None:
        """Report the numbers and what is not kept."""
        for name, inputs in self.lost.items():
            more = f" and {len(inputs) - 1:,} more" if len(inputs) > 1 else ""
            log.warning("not kept: %s (%s%s)", name, escape(inputs[0]), more)
        out, share = escape(self.arguments.out), self.share
        part = f" (process {share.rank + 1} of {share.count})" if share.count > 1 else ""
        log.info("%s%s: %d translated, %d already there, %d failed", out, part, *self.counts.values())


def _report(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(outcome), default=str), flush=True)
    elif isinstance(outcome, VideoOutcome) and outcome.status == "done":
        print(describe(outcome), flush=True)
    elif outcome.status == "failed":
        log.error("%s", outcome.reason)
    elif outcome.status == "skipped":
        log.warning("%s: %s", escape(outcome.outputs[0]), outcome.reason)
