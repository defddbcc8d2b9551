"""What a run writes for people to watch: metrics.jsonl, TensorBoard's event files and sample grids."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from unit.domains import Domain, PerDomain
from unit.evaluation.grids import in_column
from unit.files import write_whole, writing
from unit.images import to_image


class Monitor:
    """Writes under `run`; what an earlier part of the run wrote after step `start` is overwritten, not doubled."""

    def __init__(self, run: Path, start: int) -> None:
        self.run = run
        self._metrics_path = run / "metrics.jsonl"
        _drop_after(self._metrics_path, start)
        self._metrics = self._metrics_path.open("a", encoding="utf-8")
        self._board_path = run / "tensorboard"
        self._board = SummaryWriter(str(self._board_path), purge_step=start + 1 if start else None, flush_secs=30)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, one point of each of TensorBoard's curves."""
        with writing(self._metrics_path):
            self._metrics.write(json.dumps({"step": step, **values}) + "\n")
            self._metrics.flush()
        with writing(self._board_path):
            for tag, value in values.items():
                self._board.add_scalar(tag, value, step)

    def text(self, step: int, tag: str, content: str) -> None:
        """A text of TensorBoard's, shown as it is."""
        self._board.add_text(tag, "\n".join("    " + line for line in content.splitlines()), step)

    def samples(self, step: int, grids: PerDomain[Tensor]) -> None:
        """The grids (3, H, W) of both directions, filed under the domain they start from."""
        for domain in Domain:
            self._board.add_image(f"samples/{domain.direction}", (grids[domain] + 1) / 2, step)
        path, content = self.run / "samples" / f"step-{step:08d}.png", io.BytesIO()
        to_image(in_column(list(grids), gap=12)).save(content, "PNG")
        with writing(path):
            write_whole(path, content.getvalue())

    def close(self) -> None:
        """Flush everything to the disk."""
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        self._metrics.close()
        self._board.close()


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
