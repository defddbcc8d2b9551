"""``train``: parse the command line, pick a preset, train, and say what came out."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from unit.config import Config
from unit.config_file import parse_train_arguments, to_yaml
from unit.data import bad_images
from unit.devices import resolve_device
from unit.errors import ConfigError
from unit.evaluation.evaluate import table
from unit.evaluation.report.write import REPORT_FILE
from unit.training.distributed import is_main_process
from unit.training.dry_run import describe_plan
from unit.training.loop import Result, train
from unit.training.run_folder import BEST_FILE

log = logging.getLogger(__name__)
PRESETS = Path(__file__).resolve().parents[2] / "configs"


def run(argv: Sequence[str]) -> int:
    """Train as the arguments say; returns the exit status."""
    if not is_main_process():
        _leave_the_talking_to_rank_0()
    arguments = parse_train_arguments(argv, choose_preset)
    if arguments.print_config or arguments.dry_run:
        if is_main_process():
            print(to_yaml(arguments.config), end="")
        if arguments.dry_run:
            log.info(describe_plan(arguments.config, arguments.out))
        return 0
    with logging_redirect_tqdm():  # lines go above the bar
        result = train(arguments.config, arguments.out, restart=arguments.restart)
    if is_main_process():
        with suppress(OSError):  # whoever would read it has gone; all is saved
            print(summary(result))
    return result.exit_status


def _leave_the_talking_to_rank_0() -> None:
    """Errors, and the images that this process skips, it alone can tell."""
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger(bad_images.__name__).setLevel(logging.WARNING)


def choose_preset(config: Config) -> Path:
    """The preset for a command line without --config; says which."""
    if config.data.embedded:
        name, reason = "streets", "no folders given, so the embedded streets"
    elif resolve_device(config.train.device).type == "cuda":
        name, reason = "photos", "two folders and a GPU, so 256 px"
    else:
        name, reason = "laptop", "two folders and no GPU, so small networks at 128 px"
    path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: the preset is not there; give --config FILE.yaml")
    log.info("%s: configs/%s.yaml (--config takes another)", reason, name)
    return path


def summary(result: Result) -> str:
    """What a run left, and what to do with it."""
    folder, name = shlex.quote(str(result.folder)), result.names.a + "2" + result.names.b
    lines = [f"{result.folder}: {'stopped' if result.exit_status else 'ended'} at step {result.step}"]
    if result.metrics:
        lines.append(table(result.metrics, result.names))
    if result.best:
        lines.append(f"best model:  {folder}/{BEST_FILE}, of step {result.best[0]} (mean KID {result.best[1]:.1f})")
    if result.exit_status:
        lines.append("the same command, without --restart, goes on from here")
    lines.append(f"translate:   python translate.py {folder} --direction {shlex.quote(name)} IMAGES --out FOLDER")
    if (result.folder / REPORT_FILE).is_file():
        lines.append(f"report:      {folder}/{REPORT_FILE}")
    lines.append(f"TensorBoard: tensorboard --logdir {folder}")
    return "\n".join(lines)
