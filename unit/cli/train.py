"""``train``: parse the command line, choose a preset, train, and print the result."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from unit.cli.arguments import command
from unit.cli.train_arguments import parse_train_arguments
from unit.config import Config
from unit.config_file import PRESETS, to_yaml
from unit.data.datasets import require_folders
from unit.errors import ConfigError, escape

if TYPE_CHECKING:
    from unit.training.loop import TrainResult

log = logging.getLogger(__name__)
_REASONS = {
    "streets": "no folders given, so the synthetic streets",
    "photos": "two folders and a GPU, so 256 px",
    "laptop": "two folders and no GPU, so small networks at 128 px",
}
"""The reason for each preset that `choose_preset` returns."""


def run(argv: Sequence[str]) -> int:
    """Train as the arguments say; return the exit status."""
    arguments = parse_train_arguments(argv, choose_preset, require_folders)
    require_folders(arguments.config.data)
    # Imported here because torch takes seconds, which --help and mistakes on the command line need not wait for.
    from tqdm.contrib.logging import logging_redirect_tqdm

    from unit.data import bad_images
    from unit.training.distributed import is_main_process
    from unit.training.dry_run import describe_plan
    from unit.training.loop import train

    if not is_main_process():  # only the main process logs, except errors and skipped images
        logging.getLogger().setLevel(logging.ERROR)
        logging.getLogger(bad_images.__name__).setLevel(logging.WARNING)
    if arguments.preset:
        announce_preset(arguments.preset)
    if arguments.print_config or arguments.dry_run:
        plan = describe_plan(arguments.config, arguments.out) if arguments.dry_run else ""
        if is_main_process():
            print(plan + "\n" * bool(plan) + to_yaml(arguments.config) * arguments.print_config, end="")
        return 0
    with logging_redirect_tqdm():  # log lines go above the progress bar
        result = train(arguments.config, arguments.out, restart=arguments.restart)
    if is_main_process():
        with suppress(OSError):  # the reader of standard output has gone; everything is saved
            print(summary(result))
    return result.exit_status


def announce_preset(preset: Path) -> None:
    """Log which preset was chosen, and why."""
    log.info("%s: the preset %s (--config picks another)", _REASONS[preset.stem], preset.stem)


def choose_preset(config: Config) -> Path:
    """Return the preset for a command line without --config."""
    name = "streets"
    if not config.data.synthetic:
        name = "photos" if _trains_on_cuda(config.train.device) else "laptop"
    path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: this preset is missing; give --config FILE.yaml")
    return path


def _trains_on_cuda(device: str) -> bool:
    """Return whether `train.device` means CUDA; without a GPU's device file, that is known without torch."""
    files = (Path("/dev", name) for name in ("nvidiactl", "nvmap", "dxg", "kfd"))  # NVIDIA's, Jetson's, WSL's, AMD's
    if device != "auto" or sys.platform == "darwin" or (sys.platform == "linux" and not any(f.exists() for f in files)):
        return device.startswith("cuda")
    from unit.devices import resolve_device

    return resolve_device(device).type == "cuda"


def summary(result: TrainResult) -> str:
    """Describe what a run left, and what to do with it."""
    from unit.evaluation.metric_table import table
    from unit.evaluation.report.write import REPORT_FILE
    from unit.training.run_dir import BEST_FILE

    folder, name = shlex.quote(str(result.out)), result.names.a + "2" + result.names.b
    lines = [f"{result.out}: {'stopped' if result.exit_status else 'ended'} at step {result.step}"]
    if result.metrics:
        lines += table(result.metrics, result.names).splitlines()
    if result.best and result.best[0] != result.step and (result.out / BEST_FILE).is_file():
        step, kid = result.best
        lines.append(f"best model:  {folder}/{BEST_FILE}, from step {step} (mean KID {kid:.1f} at the training size)")
    if result.exit_status:
        lines.append("to resume, run the same command, without --restart")
    lines.append(f"translate:   {command('translate')} {folder} --direction {shlex.quote(name)} IMAGES --out FOLDER")
    if (result.out / REPORT_FILE).is_file():
        lines.append(f"report:      {folder}/{REPORT_FILE}")
    lines.append(f"TensorBoard: tensorboard --logdir {folder}")
    return "\n".join(map(escape, lines))
