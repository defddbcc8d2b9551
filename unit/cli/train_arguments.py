"""The command line of ``train``: a flag for each key of the configuration, which overrides the file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from unit.cli.arguments import Parser, output_folder, path, positive
from unit.config import KEY_TYPES, OLD_KEYS, SECTIONS, STRICT, Config, DataConfig, rename_old_keys
from unit.config_file import LAST_PARTS, PRESETS, Scalar, hint, read_config, refuse
from unit.errors import escape
from unit.training.preset_choice import Choice

FIRST_KEYS = {
    "data.a": "photos/sunny",
    "data.b": "photos/rainy",
    "data.root": "data/earth",
    "data.name_a": "sunny",
    "data.name_b": "rainy",
    "data.load_size": "286",
    "data.crop_size": "256",
    "model.channels": "32",
    "train.steps": "20000",
    "train.max_minutes": "60",
    "train.batch_size": "4",
    "train.device": "cuda:1",
}
"""The keys that ``--help`` shows, each with an example."""
_PRESET_KEYS = ("data.a", "data.b", "data.root", "train.device")
"""The flags that the choice of a preset depends on: the images to train on, and the device."""
_SWITCHES = {
    "dry_run": "run a few steps, report the time, memory and disk space that the run would take, and exit",
    "print_config": "print every key and the value that will hold, as YAML, and exit; with --dry_run: after its report",
    "restart": "start again at step 0; an existing run is kept as OUT.1",
}
_USAGE = (
    "%(prog)s [--config FILE] [--out DIR] [--minutes N] [--init_from RUN] [--dry_run] [--print_config] [--restart] "
    "[--SECTION.KEY VALUE ...]"
)
_DESCRIPTION = """\
Train UNIT on two folders of images. Flags override the file, and the file overrides the defaults. --config takes a
file or a preset: %(presets)s. Without it, the preset is streets (synthetic streets) if no folders are given,
else photos on a GPU and laptop on a CPU, smaller for small photos, and with --minutes what the time allows."""
_EXAMPLES = """examples:
  %(prog)s                                              the synthetic streets
  %(prog)s --data.a photos/sunny --data.b photos/rainy  two folders, with settings that suit the machine
  %(prog)s --data.a photos/sunny --data.b photos/rainy --minutes 30   done in half an hour
  %(prog)s --config mine.yaml --train.steps 20000 --data.flip=false --out runs/mine
  %(prog)s --init_from runs/sunny-rainy --data.a photos/night --data.b photos/rainy-night"""


@dataclass(frozen=True)
class TrainArguments:
    """The parsed command line of training."""

    config: Config
    choice: Choice | None
    """the preset chosen without --config"""
    flags: Mapping[str, Any]
    """the keys given as flags"""
    minutes: float | None
    out: Path | None
    dry_run: bool
    print_config: bool
    restart: bool


def parse_train_arguments(
    argv: Sequence[str],
    choose_preset: Callable[[Config, Mapping[str, Any]], Choice],
    require_folders: Callable[[DataConfig], None] = lambda _: None,
) -> TrainArguments:
    """Resolve the command line: flags override the file, in any position, and the file overrides the defaults.

    Args:
        argv: the arguments.
        choose_preset: returns the preset to read without --config, given a Config and all flags. The Config has only
            the flags of `_PRESET_KEYS`, and defaults: other flags may be valid only together with the preset.
        require_folders: raises an error for folders that can't be used; called before `choose_preset`, which may take
            seconds, unless help is printed.

    Raises:
        ConfigError: a flag or file that can't be used, in one line.
        SystemExit: status 0, after --help was printed.
    """
    options, unknown = make_parser().parse_known_args(argv)
    given = rename_old_keys(vars(options), "command line")
    if unknown and "help" not in given:
        _refuse_unknown(unknown[0])
    texts = {key: text for key, text in given.items() if key in KEY_TYPES}
    flags = {key: Scalar(text, f"--{key}", quoted=not text).parse(key) for key, text in texts.items()}
    files = given.get("config", [])
    if len(files) > 1:
        refuse("--config: given twice; only one file can be used")
    preset_flags = {key: flags[key] for key in _PRESET_KEYS if key in flags}
    bare = Config.from_flat_dict({} if files else preset_flags)
    if "help" not in given:
        require_folders(bare.data)
    choice = None if files else choose_preset(bare, flags)
    file = choice.path if choice else files[0]
    config = read_config(file, {**(choice.keys if choice else {}), **flags})
    if "help" in given:
        keys = KEY_TYPES if given["help"] == "all" else FIRST_KEYS
        print(make_documented_parser(config, str(file), keys).format_help(), end="")
        raise SystemExit(0)
    if given.get("restart") not in (None, True, ""):  # its old name, as of keys, takes a value
        refuse(f"--restart: takes no value, is {given['restart']!r}")
    switches = {name: name in given for name in _SWITCHES}
    return TrainArguments(config, choice, flags, given.get("minutes"), given.get("out"), **switches)


def _refuse_unknown(word: str) -> None:
    flag = word.partition("=")[0]
    if not flag.startswith("-"):
        refuse(f"{word}: unexpected argument; folders go after --data.a and --data.b")
    known = {last: f"--{key}" for last, key in LAST_PARTS.items()}
    known |= {name: f"--{name}" for name in ("config", "out", "init_from", "minutes", *_SWITCHES)}
    refuse(f"{flag}: no such flag; {hint(flag.removeprefix('--'), known, '--help all lists them')}")


def make_parser() -> Parser:
    """Accept every key as a flag; `make_documented_parser` replaces the ones it documents."""
    parser = Parser(
        "train",
        usage=_USAGE,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        add_help=False,
        allow_abbrev=False,
        conflict_handler="resolve",
    )
    show = "show the most important keys; --help all: every key"
    parser.add_argument("-h", "--help", nargs="?", const="first", choices=("first", "all"), metavar="all", help=show)
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=path,
        action="append",
        help="a YAML file of the keys below, or a preset",
    )
    minutes_help = (
        "end the run, start and measuring included, in about N minutes: image size, networks and steps by the measured "
        "speed; with --config only the steps. A resumed run has the minutes again, for the steps that are left"
    )
    parser.add_argument("--minutes", metavar="N", type=positive, help=minutes_help)
    out_help = "the run directory (default: runs/NAME_A-NAME_B)"
    parser.add_argument("--out", metavar="DIR", type=output_folder, help=out_help)
    init_help = "start from the weights of this run or model file; short for --train.init_from"
    parser.add_argument("--init_from", metavar="RUN", dest="train.init_from", help=init_help)
    for name, meaning in _SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    for key in KEY_TYPES:
        parser.add_argument(f"--{key}", help=argparse.SUPPRESS)
    for key in OLD_KEYS:
        parser.add_argument(f"--{key}", nargs="?", const="", help=argparse.SUPPRESS)
    return parser


def make_documented_parser(config: Config, file: str, keys: Collection[str] = KEY_TYPES) -> Parser:
    """Return the parser whose help shows these keys, with their values in `config`, which come from `file`."""
    parser, values = make_parser(), config.to_flat_dict()
    description = _DESCRIPTION % {"presets": ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.yaml")))}
    parser.description = f"{description}\nEach value is the one that will hold, by {escape(file)} and the flags given."
    for section, section_class in SECTIONS.items():
        keys_of_section = [key for key in keys if key.startswith(f"{section}.")]
        group = parser.add_argument_group(section, section_class.__doc__ if keys_of_section else None)
        for key in keys_of_section:
            meaning = section_class.__pydantic_fields__[key.partition(".")[2]].description
            text = "none" if values[key] is None else json.dumps(values[key], ensure_ascii=False).strip('"')
            value = escape(text)
            example = f", e.g. --{key} {FIRST_KEYS[key]}" if key in FIRST_KEYS else ""
            text = f"{' '.join(meaning.split())} (value: {value}{example})".replace("%", "%%")
            group.add_argument(f"--{key}", metavar=_type_name(key), help=text)
    return parser


def _type_name(key: str) -> str:
    schema = TypeAdapter(KEY_TYPES[key], config=STRICT).json_schema()
    schema = schema.get("anyOf", [schema])[0]  # the other one is null
    names = {"integer": "INT", "number": "NUMBER", "boolean": "true|false"}
    return "|".join(schema.get("enum", ())) or names.get(schema.get("type", ""), "TEXT")
