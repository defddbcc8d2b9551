"""``check``: find problems with the images before training."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unit.cli.arguments import Parser, integer, path
from unit.cli.train import choose_preset
from unit.config import Config, DataConfig
from unit.config_file import read_config
from unit.data.check import CHECKS, FolderSummary, Report, check_folders, describe_findings
from unit.data.datasets import open_datasets, require_folders
from unit.errors import ConfigError, DataError, escape

log = logging.getLogger(__name__)


def run(argv: Sequence[str]) -> int:
    """Check the images; return the exit status: 0, or that of `DataError` where training would stop."""
    arguments = make_parser().parse_args(argv)
    config = _data_config(arguments)
    datasets = open_datasets(config)
    if not all(source.folder for source in (*datasets.train, *datasets.test.images)):
        raise ConfigError("check reads image files, not shards; give the folders that the shards were made from")
    report = check_folders(datasets, config, decode=not arguments.headers)
    print(json.dumps(_to_json(report, config)) if arguments.json else _to_text(report, config, arguments.headers))
    return 0 if report.usable else DataError.exit_status


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "check",
        description="Find images that would stop or degrade training: unreadable, damaged, small, unusual or duplicate "
        "images, test images that are also training images, domains that differ in size or brightness. Nothing is "
        "changed. Exit status 0: training can start (warnings are listed); 3: it would stop at an image.",
        epilog='--json prints one object: "images" (number per folder), "short_side" (median, pixels), '
        '"brightness" (mean and deviation, 0 to 255), "findings" (a list of "file", "class", "level": error, warning '
        'or note, "detail", "advice"), "licence", "people" (both from --config) and '
        '"usable". example: %(prog)s --a photos/sunny --b photos/rainy',
    )
    parser.add_argument("--a", type=path, metavar="DIR", help="images of domain A")
    parser.add_argument("--b", type=path, metavar="DIR", help="images of domain B")
    root_help = "folder with trainA, trainB and, if you have them, testA, testB (instead of --a and --b)"
    parser.add_argument("--root", type=path, metavar="DIR", help=root_help)
    test_help = "test images of A (default: testA of the root, else the 5 %% that training holds out)"
    parser.add_argument("--test_a", type=path, metavar="DIR", help=test_help)
    parser.add_argument("--test_b", type=path, metavar="DIR", help="test images of B")
    config_help = "a configuration, whose data section is used (default: the preset that training would use)"
    parser.add_argument("--config", type=path, metavar="FILE.yaml", help=config_help)
    parser.add_argument("--load_size", type=integer(8), metavar="N", help="short side in pixels after resizing")
    parser.add_argument("--crop_size", type=integer(8), metavar="N", help="side of the square training crops")
    headers_help = "only the files' headers: 100,000 files in well under a minute, but no damage, copies or brightness"
    parser.add_argument("--headers", action="store_true", help=headers_help)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _data_config(arguments: argparse.Namespace) -> DataConfig:
    """Return the data section of --config or the preset, overridden by the flags."""
    folders: dict[str, Any] = {
        key: str(getattr(arguments, key)) for key in ("a", "b", "root", "test_a", "test_b") if getattr(arguments, key)
    }
    sizes = {key: getattr(arguments, key) for key in ("load_size", "crop_size") if getattr(arguments, key)}
    if not arguments.config and not {"a", "b", "root"} & folders.keys():
        raise ConfigError("nothing to check; give --a DIR --b DIR, --root DIR or --config FILE.yaml")
    file: Path | None = arguments.config
    keys: Mapping[str, Any] = {}
    if not file:
        given = DataConfig(**folders)
        require_folders(given)  # before torch may be imported, which takes seconds
        choice = choose_preset(Config(data=given), {f"data.{key}": value for key, value in sizes.items()})
        log.info("%s", choice.reason)
        file, keys = choice.path, choice.keys
    config = replace(read_config(file, keys).data, **folders, **sizes)
    if config.synthetic:
        raise ConfigError(f"{escape(file)}: names no folders, and the built-in streets need no check; give --a, --b")
    return config


def _to_json(report: Report, config: DataConfig) -> dict[str, Any]:
    return {
        "images": {name: summary.images for name, summary in report.folders.items()},
        "short_side": {name: summary.short_side for name, summary in report.folders.items()},
        "brightness": {name: summary.brightness for name, summary in report.folders.items()},
        "findings": [
            {"file": f.file, "class": f.check, "level": f.level, "detail": f.detail, "advice": CHECKS[f.check].advice}
            for f in report.findings
        ],
        "licence": config.licence,
        "people": config.people,
        "usable": report.usable,
    }


def _to_text(report: Report, config: DataConfig, headers_only: bool) -> str:
    questions = _questions(config)
    lines = [f"for training at {config.load_size} px, in crops of {config.crop_size} px"]
    lines += [_line(name, summary) for name, summary in report.folders.items()]
    if report.findings:
        lines += ["", describe_findings(report.findings)]
    lines += questions and ["", *questions]
    return "\n".join([*lines, "", _verdict(report) + (" (by headers alone)" if headers_only else "")])


def _questions(config: DataConfig) -> list[str]:
    """Ask what no program can see, but whoever publishes a model must know."""
    questions = []
    if config.licence is None:
        questions.append("where do the photos come from, and may you train on them? data.licence keeps the answer")
    if config.people == "unknown":
        questions.append(
            "can people be recognised? Translating faces needs their consent: data.people none, consented or unknown"
        )
    return questions


def _line(name: str, summary: FolderSummary) -> str:
    line = f"{name:<7} {summary.images:,} images in {escape(summary.path)}"
    if summary.short_side is not None:
        line += f", short side {summary.short_side} px (median)"
    if summary.brightness is not None:
        line += ", brightness {:.0f} ± {:.0f} of 255".format(*summary.brightness)
    return line


def _verdict(report: Report) -> str:
    errors = {finding.file for finding in report.findings if finding.level == "error"}
    warnings = {finding.check for finding in report.findings if finding.level == "warning"}
    if errors:
        return f"unusable: training would stop at {len(errors):,} file{'s' * (len(errors) > 1)}"
    if warnings:
        return f"usable, with {'1 kind of warning' if len(warnings) == 1 else f'{len(warnings)} kinds of warnings'}"
    return "no problems found"
