"""What a run writes for people to watch: metrics.jsonl, TensorBoard's event files and sample grids."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard.summary import image, scalar, text

from unit.domains import Domain, PerDomain
from unit.evaluation.evaluate import Metrics
from unit.evaluation.grids import in_column
from unit.evaluation.metric_table import COUNTS
from unit.evaluation.run_log import logged
from unit.files import atomic_write, wrap_os_errors
from unit.images import to_image
from unit.model.objective import total
from unit.training.event_file import EventFile
from unit.training.trainer import StepRecord, Trainer


class Monitor:
    """Writes under `run`; what an earlier part of the run wrote after step `start` is overwritten, not doubled.

    Args:
        run: the run's folder.
        start: the step that the run goes on from; None: it begins.

    Raises:
        UserError: by each of its methods, when it can't be written.
    """

    def __init__(self, run: Path, start: int | None) -> None:
        self._metrics_path, self._samples_path = run / "metrics.jsonl", run / "samples"
        with wrap_os_errors(self._metrics_path):
            _drop_after(self._metrics_path, -1 if start is None else start)
        self._closed = False
        self.evaluated = {step for step, line in logged(self._metrics_path) if '"val/' in line}
        """steps of which there are metrics"""
        self._events = EventFile(run / "tensorboard", 0 if start is None else start + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, one point of each of TensorBoard's curves."""
        if any(tag.startswith("val/") for tag in values):
            self.evaluated.add(step)
        line = (json.dumps({"step": step, **values}) + "\n").encode()
        with wrap_os_errors(self._metrics_path, len(line)), self._metrics_path.open("ab") as file:
            file.write(line)
        self._events.add(step, [scalar(tag, value) for tag, value in values.items()])

    def text(self, step: int, tag: str, content: str) -> None:
        """A text of TensorBoard's, shown as it is."""
        self._events.add(step, [text(tag, "\n".join("    " + line for line in content.splitlines()))])

    def samples(self, step: int, grids: PerDomain[Tensor]) -> None:
        """The grids (3, H, W) of both directions, filed under the domain they start from."""
        summaries = [image(f"samples/{i.direction}", (grids[i] + 1) / 2, dataformats="CHW") for i in Domain]
        self._events.add(step, summaries)
        content = io.BytesIO()
        to_image(in_column(list(grids), gap=12)).save(content, "PNG")
        atomic_write(self._sheet(step), content.getvalue())

    def has_samples(self, step: int) -> bool:
        """Whether the grids of this step are there."""
        return self._sheet(step).exists()

    def _sheet(self, step: int) -> Path:
        return self._samples_path / f"step-{step:08d}.png"

    def flush(self) -> None:
        """Put on the disk what was given so far."""
        with wrap_os_errors(self._metrics_path), self._metrics_path.open("ab") as file:
            os.fsync(file.fileno())
        self._events.sync()

    def close(self) -> None:
        """Flush, and write no more; once closed, nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
        finally:
            self._events.close()


def step_scalars(trainer: Trainer, record: StepRecord) -> dict[str, float]:
    """The last step under TensorBoard's tags: weighted terms, rates, gradient norms, the discriminators' verdicts."""
    losses = {"generator_total": total(record.generator)} | record.generator
    if record.discriminator:
        losses |= {"discriminator_total": total(record.discriminator)} | record.discriminator
    scalars = {f"loss/{name}": float(value.detach()) for name, value in losses.items()}
    rates, norms = trainer.learning_rates(), trainer.gradient_norms()
    for part, rate, norm in zip(("generator", "discriminator"), rates, norms, strict=True):
        scalars |= {f"optimizer/learning_rate_{part}": rate, f"optimizer/gradient_norm_{part}": norm}
    for verdict, parts in (("real", record.real), ("fake", record.fake)):
        if parts:
            scalars |= {f"discriminator/{verdict}_logit_{i}": _mean_logit([part[i] for part in parts]) for i in Domain}
    return scalars


def _mean_logit(parts: list[list[Tensor]]) -> float:
    """The mean over patches, then over scales and the parts of the batch."""
    return float(torch.stack([logits.detach().float().mean() for scales in parts for logits in scales]).mean())


def metric_scalars(metrics: Metrics) -> dict[str, float]:
    """The translator's metrics under TensorBoard's tags, e.g. ``val/psnr_a2b``."""
    return {
        f"val/{name}_{direction}": value
        for direction, groups in metrics.items()
        for name, value in groups["translated"].items()
        if value is not None and name not in COUNTS
    }


def logged_mean_kid(scalars: Mapping[str, float]) -> float | None:
    """The mean of both directions, from a line of metrics; None: it has none."""
    values = [scalars.get(f"val/kid_{i.direction}") for i in Domain]
    return None if None in values else sum(value for value in values if value is not None) / len(values)


def best_logged(path: Path) -> tuple[int, float] | None:
    """The step with the least mean KID in a metrics.jsonl, and that; None where none was measured."""
    found = [(step, logged_mean_kid(json.loads(line))) for step, line in logged(path) if '"val/' in line]
    known = [(step, kid) for step, kid in found if kid is not None]
    return min(known, key=lambda pair: pair[1], default=None)


def _drop_after(path: Path, step: int) -> None:
    """Keep the lines up to `step`."""
    if path.is_file():
        atomic_write(path, "".join(f"{line}\n" for at, line in logged(path) if at <= step).encode())
