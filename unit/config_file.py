"""The configuration as a strict YAML file: one-line errors with file, line and key; no duplicate keys, no tags."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from pydantic import TypeAdapter, ValidationError

from unit.config import KEY_TYPES, OLD_KEYS, SECTIONS, STRICT, Config, RunConfig, explain, rename_old_keys
from unit.errors import ConfigError, escape
from unit.files import atomic_write, read_file

LAST_PARTS = {key.partition(".")[2]: key for key in KEY_TYPES}
"""Key without section to dotted key. Hints compare these only, since the section may be wrong or missing."""
_INSTALLED_PRESETS = Path(__file__).with_name("presets")
PRESETS = _INSTALLED_PRESETS if _INSTALLED_PRESETS.is_dir() else Path(__file__).resolve().parents[1] / "configs"
"""Folder of the presets: of an installed package, or ``configs`` of a clone (setup.py puts the one into the other)."""
_MAX_BYTES = 100_000
_NULL = ("", "~", "null")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str")}


def read_config(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a YAML file and the files it is based on.

    Args:
        path: a file of sections, and optionally ``base: FILE.yaml``, relative to it, whose values it overrides. Where
            there is no such file, the name of a preset, here or as base, means the preset.
        overrides: dotted key to value; they override the file.

    Raises:
        ConfigError: the file can't be used; one line that names it, the key, and the line if it is known.
    """
    path = _file_or_preset(path, path)
    values = _read_values(path, set())
    try:
        return Config.from_flat_dict({**values, **(overrides or {})})
    except ConfigError as error:
        try:
            Config.from_flat_dict(values)
        except ConfigError as error_of_file:
            if str(error_of_file) == str(error):
                refuse(f"{path}: {error}")
        raise


def to_yaml(config: RunConfig) -> str:
    """Format every key and its value, by section."""
    readable = all(str(value).isprintable() for value in config.to_flat_dict().values())  # else PyYAML loses U+0085
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": readable, "width": math.inf}
    sections = ({section: keys} for section, keys in config.to_dict().items())
    return "\n".join(yaml.dump(section, Dumper=_Dumper, **options) for section in sections)


class _Dumper(yaml.SafeDumper):
    """Writes line breaks and other unprintable characters as escapes."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, None if text.isprintable() else '"'),
)


def write_config(config: RunConfig, path: Path) -> None:
    """Write `to_yaml` atomically; `read_config` reads an equal Config back."""
    atomic_write(path, to_yaml(config).encode())


@dataclass(frozen=True)
class Scalar:
    """A value as the user wrote it."""

    text: str
    location: str
    """location of the value (file, line and key, or flag); errors start with it"""
    quoted: bool = False

    def __float__(self) -> float:
        return float(self.text)

    def parse(self, key: str) -> Any:
        """Read the text as the type of `key`; null, ~ or nothing means None unless quoted.

        Raises:
            ConfigError: it is not of that type, or out of range.
        """
        if type(None) in get_args(KEY_TYPES[key]) and not self.quoted and self.text.lower() in _NULL:
            return None
        adapter = TypeAdapter(KEY_TYPES[key], config=STRICT)
        try:
            return adapter.validate_strings(self.text)
        except ValidationError as error:
            if error.errors()[0]["type"] == "int_parsing":
                with suppress(ValueError):  # 1e5
                    return adapter.validate_python(float(self.text), strict=False)
            refuse(f"{self.location}: {explain(error)}")


def refuse(message: str) -> NoReturn:
    """Raise ConfigError with one line, whatever the names and values contain."""
    raise ConfigError(escape(message))


def hint(word: str, known: Mapping[str, str], default: str) -> str:
    """Ask whether the known word nearest to `word` was meant; `known` maps words to how they are shown."""
    nearest = difflib.get_close_matches(word.rpartition(".")[2].lower(), known, n=1)
    return f"did you mean {known[nearest[0]]}?" if nearest else default


def _file_or_preset(path: Path, name: Path) -> Path:
    """Return the file, or the preset of that name (``photos`` or ``photos.yaml``) if there is none."""
    preset = PRESETS / f"{name.stem}.yaml"
    is_name = name.parent == Path() and name.suffix in ("", ".yaml")
    return preset if is_name and not os.path.lexists(path) and preset.is_file() else path


def _read_values(path: Path, derived: set[str]) -> dict[str, Any]:
    """Map the dotted keys in the file and its bases to their values; `derived` are the files based on this one."""
    values: dict[str, Any] = {}
    scalars: dict[str, Scalar] = {}
    for location, section, node in _entries(path, "", _parse(path)):
        if section == "base":
            name = _scalar(location, node).text
            if not name or "\0" in name:
                refuse(f"{location}: must be a file, is {name!r}")
            base, files = _file_or_preset(path.parent / name, Path(name)), {os.path.realpath(path), *derived}
            if os.path.realpath(base) in files:
                refuse(f"{location}: {base} is based on this file; remove the circular base")
            try:
                values = _read_values(base, files)
            except ConfigError as error:
                refuse(f"{location}: {error}")
            continue
        if section not in SECTIONS:
            meant = {section: section for section in SECTIONS} | {"base": "base"}
            meant |= {last: f"{key} ({last}: under {key.partition('.')[0]}:)" for last, key in LAST_PARTS.items()}
            refuse(f"{location}: no such section; {hint(section, meant, 'there are ' + ', '.join(SECTIONS))}")
        for key_location, key, value in _entries(path, section, node):
            if key not in KEY_TYPES and key not in OLD_KEYS:
                refuse(f"{key_location}: no such key; {hint(key, LAST_PARTS, '--help all lists them')}")
            scalars[key] = _scalar(key_location, value)
    try:
        current = rename_old_keys(scalars, str(path))
    except ConfigError as error:
        refuse(f"{path}: {error}")
    return values | {key: scalar.parse(key) for key, scalar in current.items()}


def _scalar(location: str, node: yaml.Node) -> Scalar:
    if not isinstance(node, yaml.ScalarNode):
        refuse(f"{location}: must be one value, is a list or mapping")
    return Scalar(node.value, location, quoted=node.style is not None)


def _entries(path: Path, section: str, node: yaml.Node | None) -> Iterator[tuple[str, str, yaml.Node]]:
    """Yield the location (file, line and key, for errors), the dotted key and the value of each entry of a mapping."""
    if node is None or (isinstance(node, yaml.ScalarNode) and node.style is None and node.value.lower() in _NULL):
        return
    _refuse_tags(path, node)
    if not isinstance(node, yaml.MappingNode):
        needs = f"{section}: must hold keys" if section else "must hold sections"
        refuse(f"{path}, line {node.start_mark.line + 1}: {needs}, e.g. 'train:' and under it '  steps: 1000'")
    lines: dict[str, int] = {}
    for name, value in node.value:
        line = name.start_mark.line + 1
        if not isinstance(name, yaml.ScalarNode):
            refuse(f"{path}, line {line}: a key must be a name, is a list or mapping")
        _refuse_tags(path, name, value)
        key = f"{section}.{name.value}".removeprefix(".")
        location = f"{path}, line {line}: {key}"
        if key in lines:
            refuse(f"{location}: given twice, first on line {lines[key]}; keep one")
        lines[key] = line
        yield location, key, value


def _refuse_tags(path: Path, *nodes: yaml.Node) -> None:
    for node in (node for node in nodes if node.tag not in _PLAIN_TAGS):
        refuse(f"{path}, line {node.start_mark.line + 1}: holds a YAML tag (!...); leave it out")


def _parse(path: Path) -> yaml.Node | None:
    """Read a file's nodes without constructing objects: aliases stay references, so nothing multiplies."""
    try:
        content = read_file(path, _MAX_BYTES)
        return yaml.compose(content.decode(), Loader=yaml.BaseLoader)
    except FileNotFoundError:
        siblings = {sibling.stem: str(sibling) for sibling in path.parent.glob("*.y*ml")}
        refuse(f"{path}: no such file; {hint(path.stem, siblings, 'check the path')}")
    except OSError as error:
        refuse(f"{path}: can't be read ({error.strerror}); give a readable YAML file")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        refuse(f"{path}, line {line}: not UTF-8 text; save it as UTF-8")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or getattr(error, "reason", "can't be parsed")
        refuse(f"{path}{f', line {mark.line + 1}' if mark else ''}: not valid YAML: {reason}; correct it there")
    except RecursionError:
        refuse(f"{path}: nested too deep; write sections, and keys with their values under them")
