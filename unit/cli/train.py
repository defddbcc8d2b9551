"""``train``: parse the command line, choose a preset, train, and print the result."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unit.cli.arguments import command
from unit.cli.train_arguments import parse_train_arguments
from unit.config import Config
from unit.config_file import to_yaml
from unit.data.datasets import require_folders
from unit.data.survey import survey_photos
from unit.errors import escape
from unit.training.preset_choice import Choice, choose, choose_streets

if TYPE_CHECKING:
    from unit.training.loop import TrainResult

log = logging.getLogger(__name__)


def run(argv: Sequence[str]) -> int:
    """Train as the arguments say; return the exit status."""
    started = time.monotonic()
    arguments = parse_train_arguments(argv, choose_preset, require_folders)
    require_folders(arguments.config.data)
    # Imported here because torch takes seconds, which --help and mistakes on the command line need not wait for.
    from tqdm.contrib.logging import logging_redirect_tqdm

    from unit.data import bad_images
    from unit.training.auto_config import AutoConfig
    from unit.training.distributed import is_main_process
    from unit.training.dry_run import plan_run
    from unit.training.loop import train

    if not is_main_process():  # only the main process logs, except errors and skipped images
        logging.getLogger().setLevel(logging.ERROR)
        logging.getLogger(bad_images.__name__).setLevel(logging.WARNING)
    auto = AutoConfig(arguments.flags, arguments.choice, arguments.minutes, started)
    if arguments.print_config or arguments.dry_run:
        plan = plan_run(arguments.config, arguments.out, auto, restart=arguments.restart, measure=arguments.dry_run)
        if is_main_process():
            shown = [plan.description] * arguments.dry_run + [to_yaml(plan.config).rstrip()] * arguments.print_config
            print("\n".join(shown))
        return 0
    with logging_redirect_tqdm():  # log lines go above the progress bar
        result = train(arguments.config, arguments.out, restart=arguments.restart, auto=auto)
    if is_main_process():
        with suppress(OSError):  # the reader of standard output has gone; everything is saved
            print(summary(result))
    return result.exit_status


def choose_preset(config: Config, flags: Mapping[str, Any] | None = None) -> Choice:
    """Return the preset for a command line without --config, and what its `flags` leave of it."""
    if config.data.synthetic:
        return choose_streets()
    return choose(survey_photos(config.data), _trains_on_cuda(config.train.device), flags or {})


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
