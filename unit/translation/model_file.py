"""model.safetensors: weights, configuration, domain names and step; all that translating needs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from unit.config import Config, ModelConfig, without_folders, without_removed_keys
from unit.domains import Domain, PerDomain
from unit.errors import ModelError, escape, format_bytes
from unit.machine import available_memory
from unit.model.old_names import current_name

if TYPE_CHECKING:
    from torch import Tensor

    from unit.model.networks import Autoencoders

MODEL_FILE = "model.safetensors"
FORMAT_VERSION = 2
"""Newer files are refused; version 1 has other tensor names."""

_MAX_CONFIG = 1_000_000  # characters, a hundred times what is needed; parsed, 100 MB of JSON take gigabytes
_MAX_STEP = 10**15
_EXPECTED = "give a run directory or a .safetensors file of this program"


NATIVE = PerDomain("native", "native")
"""`Translator.best_detail` where it was not measured"""


def model_bytes(
    networks: Autoencoders, config: Config, names: PerDomain[str], step: int, best_detail: PerDomain[str] = NATIVE
) -> bytes:
    """Serialize a model, but for the folders of its images."""
    from safetensors.torch import save

    public = without_folders(config, (names.a, names.b))
    metadata = {"format_version": str(FORMAT_VERSION), "config": json.dumps(public.to_dict()), "step": str(step)}
    metadata |= {"name_a": names.a, "name_b": names.b}
    metadata |= {f"detail_{i.direction}": best_detail[i] for i in Domain if best_detail != NATIVE}
    weights = {name: tensor.contiguous() for name, tensor in networks.state_dict().items()}
    content: bytes = save(weights, metadata)
    return content


def load_model(path: Path) -> tuple[Autoencoders, Config, PerDomain[str], int]:
    """Load the model of a run directory or of a .safetensors file, to the CPU. No code in it is run.

    Returns:
        Networks, configuration, the user's names of the domains, and the number of training steps.

    Raises:
        ModelError: no such file, not a model of this program, of a newer version, or unusable.
    """
    with _naming(path) as file:
        weights, metadata = _read(file)
        config, names, step = _parse(metadata)
        return _build(config.model, weights).requires_grad_(False), config, names, step


def read_header(path: Path) -> tuple[Config, PerDomain[str]]:
    """Read a model's configuration and the names of its domains, without its weights and without importing torch.

    Raises:
        ModelError: as `load_model`, unless it is about the weights.
    """
    with _naming(path) as file:
        config, names, _ = _parse(_read(file, with_weights=False)[1])
        return config, names


def read_best_detail(path: Path) -> PerDomain[str]:
    """Read `Translator.best_detail`; raises `ModelError` as `read_header` does."""
    with _naming(path) as file:
        metadata = _read(file, with_weights=False)[1]
        guided = PerDomain.of(lambda i: metadata.get(f"detail_{i.direction}") == "guided")
        return guided.map(lambda is_guided: "guided" if is_guided else "native")


@contextmanager
def _naming(path: Path) -> Iterator[Path]:
    """Give the model file of a run directory, or the file itself; a `ModelError` gets its name."""
    file = path / MODEL_FILE if os.path.isdir(path) else path  # noqa: PTH112 - Path.is_dir raises for some names
    try:
        yield file
    except ModelError as error:
        raise ModelError(f"{escape(file)}: {error}") from error


def _read(file: Path, with_weights: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors (if wanted) and metadata, whatever the file contains."""
    if not os.path.lexists(file):
        raise ModelError(f"no such file; {_EXPECTED}")
    if not os.path.isfile(file):  # noqa: PTH113 - as above; opening a pipe would block
        raise ModelError(f"not a regular file; {_EXPECTED}")
    head = b""
    try:
        with file.open("rb") as content:  # for an unreadable file, safe_open would say that it is missing
            head = content.read(4)
            size, free = content.seek(0, os.SEEK_END), available_memory()
        if size > free:  # a sparse file may be larger than its disk
            raise ModelError(f"{format_bytes(size)}, but {format_bytes(free)} of memory are free; {_EXPECTED}")
        with safe_open(file, "pt" if with_weights else "np", device="cpu") as tensors:
            metadata = tensors.metadata() or {}
            _require_version(metadata)
            weights = {name: tensors.get_tensor(name) for name in tensors.keys() if with_weights}  # noqa: SIM118
    except ModelError:
        raise
    except PermissionError as error:
        raise ModelError("no permission to read it; change its permissions") from error
    except Exception as error:  # safetensors raises anything for a damaged file
        # torch.save writes a zip since 1.6, and a plain pickle before
        if head == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
            raise ModelError(f"a pickle, refused because opening one can run code in it; {_EXPECTED}") from error
        raise ModelError(f"not a safetensors file, or damaged ({_one_line(error)}); {_EXPECTED}") from error
    renamed = {current_name(name): tensor for name, tensor in weights.items()}
    old = metadata["format_version"] == "1" and len(renamed) == len(weights)  # equal new names: refused as unknown
    return renamed if old else weights, metadata


def _require_version(metadata: dict[str, str]) -> None:
    version = metadata.get("format_version", "")
    if version in ("1", str(FORMAT_VERSION)):
        return
    if version.isdecimal() and len(version) < 10 and int(version) > FORMAT_VERSION:
        raise ModelError(f"format {version} is newer than this program supports ({FORMAT_VERSION}); update the program")
    raise ModelError(f"not a model of this program (no format version in its metadata); {_EXPECTED}")


def _parse(metadata: dict[str, str]) -> tuple[Config, PerDomain[str], int]:
    if len(metadata.get("config", "")) > _MAX_CONFIG:
        raise ModelError(f"invalid metadata (a config of over {_MAX_CONFIG} characters); {_EXPECTED}")
    try:
        config = Config.from_dict(without_removed_keys(json.loads(metadata["config"])))
        names = PerDomain(metadata["name_a"], metadata["name_b"])
        step = int(metadata["step"])
    except Exception as error:  # an invalid configuration may fail anywhere
        reason = f"no {error}" if isinstance(error, KeyError) else _one_line(error)
        raise ModelError(f"invalid metadata ({reason}); {_EXPECTED}") from error
    if not 0 <= step <= _MAX_STEP:
        raise ModelError(f"invalid metadata (a step that is not from 0 to {_MAX_STEP}); {_EXPECTED}")
    if names.a == names.b or not all(name.strip() and name.isprintable() and len(name) < 1000 for name in names):
        raise ModelError(f"its domain names are not two different printable ones ({_one_line(names)}); {_EXPECTED}")
    return config, names, step


def _build(config: ModelConfig, weights: dict[str, Tensor]) -> Autoencoders:
    """Build the networks; nothing is allocated before the weights are known to fit the configuration."""
    import torch  # takes seconds, which `read_header` need not wait for

    from unit.model.networks import build_autoencoders

    if config.residual_blocks > len(weights):
        raise ModelError(f"its configuration has more layers than its file; {_EXPECTED}")
    try:
        with torch.device("meta"):
            networks = build_autoencoders(config)
    except Exception as error:  # sizes that overflow
        raise ModelError(f"invalid configuration ({_one_line(error)}); {_EXPECTED}") from error
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in networks.state_dict().items()}
    given = {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise ModelError(f"its weights do not fit its configuration ({_one_line(name)}); {_EXPECTED}")
        if not weights[name].isfinite().all():
            raise ModelError(f"its weights contain NaN or Inf ({name}); give a model of an earlier step")
    networks.to_empty(device="cpu").load_state_dict(weights)
    return networks


def _one_line(value: object) -> str:
    return escape(" ".join(str(value).split()))[:200]
