"""The configuration as people write it: a strict YAML file, and the flags of the training command."""

from __future__ import annotations

import argparse
import difflib
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, get_args, get_type_hints

import jsonargparse
import yaml

from unit.config import Config
from unit.errors import ConfigError, escape
from unit.files import atomic_write

_SECTIONS: dict[str, type] = get_type_hints(Config)
_TYPES: dict[str, Any] = {
    f"{section}.{key}": kind for section, keys in _SECTIONS.items() for key, kind in get_type_hints(keys).items()
}
_LAST_PARTS = {key.partition(".")[2]: key for key in _TYPES}
"""Hints compare only these: in what was written, the section may be wrong or missing."""
_PATHS = {"config": "FILE.yaml", "out": "DIR"}
_SWITCHES = {
    "dry_run": "make a few steps, say what time, memory and disk the run would take, and stop",
    "print_config": "print the resolved configuration as YAML, and stop",
    "restart": "begin at step 0; a run that is there already is kept as OUT.1",
}
_PRESET_KEYS = ("data.a", "data.b", "data.root", "train.device")
_MAX_BYTES = 100_000
_NULL = ("", "~", "null")
_EXAMPLES = """examples:
  %(prog)s                                              the embedded streets, with the settings of configs/streets.yaml
  %(prog)s --data.a photos/sunny --data.b photos/rainy  two folders, with settings that suit the machine
  %(prog)s --config mine.yaml --train.steps 20000 --model.dropout=0.5 --out runs/mine"""


@dataclass(frozen=True)
class TrainArguments:
    """What the command line of training asks for."""

    config: Config
    out: Path | None
    dry_run: bool
    print_config: bool
    restart: bool


def parse_train_arguments(
    argv: Sequence[str], choose_preset: Callable[[Config], Path], program: str = "train.py"
) -> TrainArguments:
    """The command line, resolved: flags win over the file, wherever they stand, and the file over the defaults.

    Without --config, `choose_preset` names the file. It is shown a Config of defaults and of the flags that say what to
    train on and where (`data.a`, `data.b`, `data.root`, `train.device`); the others may only fit what the preset says.

    Raises:
        ConfigError: a flag or file that can't be used, in one line.
        SystemExit: status 0, after --help was printed.
    """
    if {"-h", "--help"} & set(argv):
        print(_help(program), end="")
        raise SystemExit(0)
    given = _read_flags(argv)
    flags = {key: _value(f"--{key}", key, text) for key, text in given.items() if key in _TYPES}
    if "config" in given:
        path = Path(given["config"])
    else:
        path = choose_preset(_config({key: value for key, value in flags.items() if key in _PRESET_KEYS}))
    return TrainArguments(
        config=_resolve(path, flags),
        out=Path(given["out"]) if "out" in given else None,
        dry_run="dry_run" in given,
        print_config="print_config" in given,
        restart="restart" in given,
    )


def read_config(path: Path) -> Config:
    """A YAML file over the defaults.

    Raises:
        ConfigError: a file that can't be used, in one line that names it, the line where it is known, and the key.
    """
    return _resolve(path, {})


def to_yaml(config: Config) -> str:
    """Every key with its value, by section."""
    readable = all(str(value).isprintable() for value in config.to_flat_dict().values())  # else PyYAML loses U+0085
    sections = ({section: keys} for section, keys in config.to_dict().items())
    return "\n".join(yaml.safe_dump(section, sort_keys=False, allow_unicode=readable) for section in sections)


def write_config(config: Config, path: Path) -> None:
    """Write `to_yaml`; `read_config` reads an equal Config back.

    Raises:
        UserError: the file can't be written.
    """
    atomic_write(path, to_yaml(config).encode())


def _refuse(message: str) -> NoReturn:
    """One line whatever names and values hold: line breaks and control characters are written as escapes."""
    raise ConfigError(escape(message))


def _config(values: Mapping[str, Any]) -> Config:
    sections: dict[str, dict[str, Any]] = {}
    for dotted, value in values.items():
        section, _, key = dotted.partition(".")
        sections.setdefault(section, {})[key] = value
    return Config.from_dict(sections)


def _resolve(path: Path, flags: Mapping[str, Any]) -> Config:
    values = _read_file(path)
    try:
        return _config({**values, **flags})
    except ConfigError as error:
        try:
            _config(values)
        except ConfigError as of_file:
            if str(of_file) == str(error):
                _refuse(f"{path}: {error}")
        raise


def _value(place: str, key: str, text: str, *, quoted: bool = False) -> Any:
    """What `text` means by the type of `key`; `place` stands before an error. Quoted text is never null."""
    union = _TYPES[key]
    kind, *others = get_args(union) if isinstance(union, UnionType) else (union,)
    if others and not quoted and text.lower() in _NULL:
        return None
    choices = get_args(kind)  # of a Literal
    wanted, read = _READERS.get(kind) or (" or ".join(choices), {choice: choice for choice in choices}.__getitem__)
    try:
        return read(text)
    except (ValueError, KeyError):
        _refuse(f"{place}: must be {wanted}{' or null' if others else ''}, is {reprlib.repr(text)}")


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        if float(text).is_integer():  # 1e5
            return int(float(text))
        raise


def _truth(text: str) -> bool:
    return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[text.lower()]


_READERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    int: ("a whole number", _integer),
    float: ("a number", float),
    bool: ("true or false", _truth),
    str: ("text", str),
}


def _hint(word: str, known: Mapping[str, str], otherwise: str) -> str:
    """`known`: what may have been meant, and how to show it."""
    near = difflib.get_close_matches(word.rpartition(".")[2].lower(), known, n=1)
    return f"did you mean {known[near[0]]}?" if near else otherwise


# The flags


def _read_flags(argv: Sequence[str]) -> dict[str, str]:
    """Each flag's name and the text after it; of one given twice the last, except --config."""
    given: dict[str, str] = {}
    words = list(reversed(argv))
    while words:
        flag, equals, text = words.pop().partition("=")
        name = flag.removeprefix("--")
        if not flag.startswith("-"):
            _refuse(f"{flag}{equals}{text}: no flag stands before it; folders go after --data.a and --data.b")
        if name == flag or name not in (*_TYPES, *_PATHS, *_SWITCHES):
            meant = {last: f"--{key}" for last, key in (_LAST_PARTS | {o: o for o in (*_PATHS, *_SWITCHES)}).items()}
            _refuse(f"{flag}: no such flag; {_hint(name, meant, '--help lists them all')}")
        if name in _SWITCHES and equals:
            _refuse(f"{flag}: takes no value; leave out {equals}{text}")
        if name not in _SWITCHES and not equals and words and not words[-1].startswith("--"):
            text = words.pop()
        if name not in _SWITCHES and not text:
            _refuse(f"{flag}: needs a value; write {flag}=VALUE")
        if name == "config" and name in given:
            _refuse("--config: given twice; only one file can be used")
        given[name] = text
    return given


def _help(program: str) -> str:
    class Formatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
        """Keeps the lines of the examples."""

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(
        prog=program,
        usage="%(prog)s [--config FILE.yaml] [--out DIR] [--{}] [--SECTION.KEY VALUE ...]".format(
            "] [--".join(_SWITCHES)
        ),
        description="Train UNIT on two folders of photographs. Flags win over the file, the file over the defaults.",
        epilog=_EXAMPLES,
        formatter_class=Formatter,
    )
    hidden: Any = {"default": argparse.SUPPRESS}
    parser.add_argument("--config", metavar=_PATHS["config"], help="settings, by section as below", **hidden)
    parser.add_argument("--out", metavar=_PATHS["out"], help="the run's folder", **hidden)
    for name, meaning in _SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning, **hidden)
    for section, keys in _SECTIONS.items():
        group = parser.add_argument_group(section, keys.__doc__)
        group.add_class_arguments(keys, section, as_group=False)
    return parser.format_help()


# The file


def _read_file(path: Path) -> dict[str, Any]:
    """Dotted key to value, of the keys that the file gives. Scalars reach `_value` as they were written."""
    values: dict[str, Any] = {}
    for place, section, keys in _entries(path, "", _parse(path)):
        if section not in _SECTIONS:
            meant = {section: section for section in _SECTIONS}
            meant |= {last: f"{key} ({last}: under {key.partition('.')[0]}:)" for last, key in _LAST_PARTS.items()}
            _refuse(f"{place}: no such section; {_hint(section, meant, 'there are ' + ', '.join(_SECTIONS))}")
        for place, key, value in _entries(path, section, keys):
            if key not in _TYPES:
                _refuse(f"{place}: no such key; {_hint(key, _LAST_PARTS, '--help lists them all')}")
            if not isinstance(value, yaml.ScalarNode):
                _refuse(f"{place}: must be one value, is a list or mapping")
            values[key] = _value(place, key, value.value, quoted=value.style is not None)
    return values


def _parse(path: Path) -> yaml.Node | None:
    """The file's nodes, not made into objects: aliases stay references, so that nothing multiplies."""
    text = _read_text(path)
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
        for token in yaml.scan(text, Loader=yaml.BaseLoader):
            if isinstance(token, yaml.TagToken):
                _refuse(f"{path}, line {token.start_mark.line + 1}: holds a YAML tag (!...); leave it out")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or getattr(error, "reason", "can't be parsed")
        _refuse(f"{path}{f', line {mark.line + 1}' if mark else ''}: not valid YAML: {reason}; correct it there")
    except RecursionError:
        _refuse(f"{path}: nested too deep; write sections, and keys with their values under them")
    return root


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        siblings = {sibling.stem: str(sibling) for sibling in path.parent.glob("*.y*ml")}
        _refuse(f"{path}: no such file; {_hint(path.stem, siblings, 'check the path')}")
    except IsADirectoryError:
        _refuse(f"{path}: is a folder; give a YAML file")
    except OSError as error:
        _refuse(f"{path}: can't be read ({error.strerror}); give a readable YAML file")
    if len(content) > _MAX_BYTES:
        _refuse(f"{path}: too large for a configuration (over {_MAX_BYTES} bytes); give a YAML file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        _refuse(f"{path}, line {line}: not UTF-8 text; save it as UTF-8")


def _entries(path: Path, section: str, node: yaml.Node | None) -> Iterator[tuple[str, str, yaml.Node]]:
    """Of each key in the mapping `node`: where it stands (file, line, key), itself, dotted, and its value."""
    if node is None or (isinstance(node, yaml.ScalarNode) and node.style is None and node.value.lower() in _NULL):
        return
    if not isinstance(node, yaml.MappingNode):
        what = f"{section}: must hold keys" if section else "must hold sections"
        _refuse(f"{path}, line {node.start_mark.line + 1}: {what}, e.g. 'train:' and under it '  steps: 1000'")
    lines: dict[str, int] = {}
    for name, value in node.value:
        line = name.start_mark.line + 1
        key = f"{section}.{name.value}".removeprefix(".")
        place = f"{path}, line {line}: {key}"
        if not isinstance(name, yaml.ScalarNode):
            _refuse(f"{path}, line {line}: a key must be a name, is a list or mapping")
        if key in lines:
            _refuse(f"{place}: given twice, first on line {lines[key]}; keep one")
        lines[key] = line
        yield place, key, value
