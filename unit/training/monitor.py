"""What a run writes for people to watch: metrics.jsonl, TensorBoard's event files and sample grids."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from unit.domains import Domain, PerDomain
from unit.evaluation.evaluate import Figures
from unit.evaluation.grids import in_column
from unit.files import write_whole, writing
from unit.images import to_image
from unit.model.objective import total
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
        self._metrics_path, self._board_path, self._samples_path = (
            run / name for name in ("metrics.jsonl", "tensorboard", "samples")
        )
        with writing(self._metrics_path):
            _drop_after(self._metrics_path, -1 if start is None else start)
        with writing(self._board_path):
            purge = 0 if start is None else start + 1
            self._board = SummaryWriter(str(self._board_path), purge_step=purge, flush_secs=30)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, one point of each of TensorBoard's curves."""
        with writing(self._metrics_path), self._metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        with writing(self._board_path):
            for tag, value in values.items():
                self._board.add_scalar(tag, value, step)

    def text(self, step: int, tag: str, content: str) -> None:
        """A text of TensorBoard's, shown as it is."""
        with writing(self._board_path):
            self._board.add_text(tag, "\n".join("    " + line for line in content.splitlines()), step)

    def samples(self, step: int, grids: PerDomain[Tensor]) -> None:
        """The grids (3, H, W) of both directions, filed under the domain they start from."""
        with writing(self._board_path):
            for domain in Domain:
                self._board.add_image(f"samples/{domain.direction}", (grids[domain] + 1) / 2, step)
        content = io.BytesIO()
        to_image(in_column(list(grids), gap=12)).save(content, "PNG")
        path = self._samples_path / f"step-{step:08d}.png"
        with writing(path):
            write_whole(path, content.getvalue())

    def flush(self) -> None:
        """Put on the disk what was given so far."""
        with writing(self._metrics_path), self._metrics_path.open("ab") as file:
            os.fsync(file.fileno())
        with writing(self._board_path):
            self._board.flush()

    def close(self) -> None:
        """Flush, and write no more."""
        self.flush()
        self._board.close()


def step_scalars(trainer: Trainer, record: StepRecord) -> dict[str, float]:
    """The last step under TensorBoard's tags: weighted terms, rates, gradient norms, the discriminators' verdicts."""
    losses = {"generator_total": total(record.generator)} | record.generator
    if record.discriminator:
        losses |= {"discriminator_total": total(record.discriminator)} | record.discriminator
    scalars = {f"loss/{name}": float(value.detach()) for name, value in losses.items()}
    rates, norms = trainer.learning_rates(), trainer.gradient_norms()
    for part, rate, norm in zip(("generator", "discriminator"), rates, norms, strict=True):
        scalars |= {f"optimizer/learning_rate_{part}": rate, f"optimizer/gradient_norm_{part}": norm}
    for verdict, logits in (("real", record.real), ("fake", record.fake)):
        if logits is not None:
            scalars |= {f"discriminator/{verdict}_logit_{i}": _mean_logit(logits[i]) for i in Domain}
    return scalars


def _mean_logit(scales: list[Tensor]) -> float:
    """The mean over patches, then over scales."""
    return float(torch.stack([logits.detach().float().mean() for logits in scales]).mean())


def figure_scalars(figures: Figures) -> dict[str, float]:
    """The translator's figures under TensorBoard's tags, e.g. ``val/psnr_a2b``."""
    return {
        f"val/{name}_{direction}": value
        for direction, groups in figures.items()
        for name, value in groups["translated"].items()
        if value is not None
    }


def _drop_after(path: Path, step: int) -> None:
    """Keep the lines up to `step`; a line cut short by a crash goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_whole(path, "".join(kept).encode())
