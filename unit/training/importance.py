"""importance.safetensors: how much each weight of a run's model matters, as Memory Aware Synapses need it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from unit.config import Config
from unit.data.datasets import Datasets
from unit.devices import out_of_memory
from unit.domains import Domain, PerDomain
from unit.errors import ModelError, UserError, escape
from unit.evaluation.held_out import readable
from unit.files import atomic_write, require_regular_file
from unit.image_source import ImageSource
from unit.machine import available_memory
from unit.model.extras.memory import Importance
from unit.model.networks import Autoencoders
from unit.training import checkpoint
from unit.translation.model_file import load_model
from unit.translation.provenance.marks import weights_sha256

IMPORTANCE_FILE = "importance.safetensors"
FORMAT_VERSION = "1"
DEFINITION = (
    "sum over the maps x_i to mu_i, x_i to x_i^{i to i} and x_i to x_i^{i to j} of both domains i of the mean over "
    "images of |d mean(map(x)^2) / d weight|; runs remembered before are added"
)


@dataclass(frozen=True)
class Measured:
    """The importance of a run's weights, in short."""

    file: Path
    images: PerDomain[int]
    mean: float
    """mean over all weights"""
    remembers: bool
    """an earlier run's importance, which this run had to remember, is in the sum"""


def measure_importance(run: Path, datasets: Datasets, count: int, device: torch.device) -> Measured:
    """Measure Ω on up to `count` training images of each domain of a run, in fp32, and write it into the run.

    What the run itself had to remember (`loss.memory`) is added, so that a chain of runs remembers all of it.

    Raises:
        ModelError: the run has no usable model, or Ω contains NaN or Inf.
        ImageError: none of a domain's images can be read.
        UserError: what the run had to remember is lost, or the file can't be written.
    """
    networks, config, _, step = load_model(run)
    earlier = _remembered_by(run, config, networks)
    networks = networks.to(device).requires_grad_(True)
    importance, counts = _measure(networks, config, datasets.train, count, device)
    for name, remembered in earlier.items():
        importance[name] += remembered
    for name, tensor in importance.items():
        if not tensor.isfinite().all():
            raise ModelError(f"{escape(run)}: the importance of {name} contains NaN or Inf; measure an earlier model")
    write_importance(run / IMPORTANCE_FILE, importance, networks, step, counts)
    mean = float(torch.cat([tensor.flatten() for tensor in importance.values()]).mean())
    return Measured(run / IMPORTANCE_FILE, counts, mean, bool(earlier))


def _measure(
    networks: Autoencoders, config: Config, sources: PerDomain[ImageSource], count: int, device: torch.device
) -> tuple[dict[str, Tensor], PerDomain[int]]:
    """Return Ω on the CPU, and the numbers of images: `count` taken evenly, less those that can't be read."""
    lengths = sources.map(lambda source: min(count, len(source)))
    chosen: PerDomain[Sequence[int]] = PerDomain.of(
        lambda i: [k * len(sources[i]) // lengths[i] for k in range(lengths[i])]
    )
    counts = dict.fromkeys(Domain, 0)
    importance = Importance(networks)
    data = replace(config.data, on_bad_image="skip")
    try:
        pairs = readable(sources, chosen, data)
        for _, pair in tqdm(pairs, total=max(lengths), unit="pair", leave=False, disable=None):
            for i in Domain:
                for image in pair[i]:
                    importance.add(image[None].to(device), i)
                    counts[i] += 1
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise UserError(f"out of memory on {device} for one image; give another --device") from error
        raise
    return {name: tensor.cpu() for name, tensor in importance.mean().items()}, PerDomain.of(lambda i: counts[i])


def write_importance(
    file: Path, importance: Mapping[str, Tensor], networks: Autoencoders, step: int, images: PerDomain[int]
) -> None:
    """Write Ω with its definition and what it was measured on; raises `UserError` if it can't be written."""
    metadata = {
        "format_version": FORMAT_VERSION,
        "definition": DEFINITION,
        "images": json.dumps({i.value: images[i] for i in Domain}),
        "step": str(step),
        "model": weights_sha256(networks.state_dict()),
    }
    atomic_write(file, save({name: tensor.contiguous() for name, tensor in importance.items()}, metadata))


def read_importance(file: Path, networks: Autoencoders) -> dict[str, Tensor]:
    """Read Ω of the weights of `networks`, to the CPU.

    Raises:
        ModelError: no such file, not an importance file, damaged, or measured on another model.
    """
    how = f"measure it: python -m unit importance {escape(file.parent)}"
    if not file.exists():
        raise ModelError(f"{escape(file)}: is missing, and loss.memory needs it; {how}")
    try:
        require_regular_file(file, available_memory())
        with safe_open(file, "pt", device="cpu") as tensors:
            metadata = tensors.metadata() or {}
            importance = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises anything for a damaged file
        raise ModelError(f"{escape(file)}: not a safetensors file, or damaged; {how}") from error
    if metadata.get("format_version") != FORMAT_VERSION or "definition" not in metadata:
        raise ModelError(f"{escape(file)}: not an importance file of this program; {how}")
    expected = {name: (p.shape, torch.float32) for name, p in networks.named_parameters()}
    given = {name: (tensor.shape, tensor.dtype) for name, tensor in importance.items()}
    if given != expected or metadata.get("model") != weights_sha256(networks.state_dict()):
        raise ModelError(
            f"{escape(file)}: was measured on another model, or at another step; {how}, and start from that run"
        )
    for name, tensor in importance.items():
        if not (tensor.isfinite().all() and (tensor >= 0).all()):
            raise ModelError(f"{escape(file)}: the importance of {name} is negative, NaN or Inf; {how}")
    return importance


def _remembered_by(run: Path, config: Config, networks: Autoencoders) -> dict[str, Tensor]:
    """Return Ω that the run had to remember itself, from its newest good checkpoint; empty without `loss.memory`."""
    if not config.loss.memory:
        return {}
    parameters = dict(networks.named_parameters())
    try:
        state = checkpoint.load_newest(run / "checkpoints") or {}
        parts = state["trainer"]["extras"]["memory.importance"].split([p.numel() for p in parameters.values()])
        return {name: part.view_as(parameters[name]) for name, part in zip(parameters, parts, strict=True)}
    except Exception as error:  # a foreign file may hold anything
        raise UserError(
            f"{escape(run)}: what this run itself had to remember was in its checkpoints, and none can be read; "
            "restore the newest"
        ) from error
