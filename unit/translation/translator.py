"""A finished model: images of any size in, the other domain's version of them out, of the same size."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor
from torch.nn import functional

from unit.config import Config, ModelConfig
from unit.devices import autocast, out_of_memory, resolve_device, resolve_precision
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError, ModelError, UserError, escape
from unit.files import atomic_write
from unit.images import to_image, to_rgb, to_tensor
from unit.model.networks import Autoencoders, build_autoencoders
from unit.model.noise import gaussian

FORMAT_VERSION = 1
"""Of model.safetensors; a newer one is refused."""

MODEL_FILE = "model.safetensors"

ImageT = TypeVar("ImageT", Image.Image, Tensor)

_BYTES_PER_ACTIVATION = {"strided": 16, "blurred": 22}
"""Peak memory of a translation by `model.downsampling`, per pixel and channel of the first layer (measured in fp32)."""


class Translator:
    """Encoders and generators of both domains, with the noise off: z = μ.

    Args:
        networks: the averaged networks; used, not copied, so later changes of them show here; set to evaluation.
        config: of the run that made them.
        names: what the user calls the domains.
        step: how many steps they were trained.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16".
    """

    def __init__(
        self,
        networks: Autoencoders,
        config: Config,
        names: PerDomain[str],
        step: int,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.networks = networks.to(self.device).to(memory_format=torch.channels_last).eval()
        self.config, self.names, self.step = config, names, step

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", precision: str = "auto") -> Translator:
        """The translator of a run's folder or of a .safetensors file.

        Raises:
            ModelError: no such file, no model of this program, one of a newer version, or one that can't be used.
        """
        file = Path(path)
        if os.path.isdir(file):  # noqa: PTH112 - before Python 3.14, Path.is_dir raises for some names
            file = file / MODEL_FILE
        try:
            weights, metadata = _read(file)
            config, names, step = _facts(metadata)
            networks = _build(config.model, weights)
        except ModelError as error:
            raise ModelError(f"{escape(file)}: {error}") from error
        return cls(networks.requires_grad_(False), config, names, step, device, precision)

    def save(self, path: Path) -> None:
        """Write `to_bytes` to a .safetensors file.

        Raises:
            UserError: it can't be written; what was there before is untouched.
        """
        atomic_write(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """A safetensors file with all that translating needs."""
        metadata = {
            "format_version": str(FORMAT_VERSION),
            "config": json.dumps(self.config.to_dict()),
            "name_a": self.names.a,
            "name_b": self.names.b,
            "step": str(self.step),
        }
        weights = {name: tensor.contiguous() for name, tensor in _unshared(self.networks).items()}
        content: bytes = to_safetensors(weights, metadata)
        return content

    def source(self, direction: str) -> Domain:
        """The domain that "a2b", "b2a" or the user's names, e.g. "sunny2rainy", start from.

        "a2b" is always from A to B, also where the user calls B "a".

        Raises:
            ConfigError: no such direction, or one that the names make ambiguous ("x2x2x" of "x" and "x2x").
        """
        a, b = self.names
        by_code = [domain for domain in Domain if direction == domain.direction]
        by_name = [i for i in Domain if direction == f"{self.names[i]}2{self.names[i.other]}"]
        fitting = by_code or by_name
        if len(fitting) == 1:
            return fitting[0]
        must = f"a2b (from {a} to {b}) or b2a (from {b} to {a})" if fitting else f"a2b ({a}2{b}) or b2a ({b}2{a})"
        raise ConfigError(escape(f"--direction {direction}: must be {must}"))

    def __call__(self, image: ImageT, direction: str) -> ImageT:
        """One image: a PIL image of any size gives one of that size; a tensor (3, H, W) in [-1, 1], a tensor.

        Raises:
            ConfigError: no such direction.
            ImageError: a PIL image whose numbers have no known white.
            UserError: the memory does not suffice.
        """
        source = self.source(direction)
        if isinstance(image, Tensor):
            return self.translate(image[None], source)[0]
        return to_image(self.translate(to_tensor(to_rgb(image))[None], source)[0])

    def translate(self, images: Tensor, source: Domain, seed: int | None = None) -> Tensor:
        """G_j(E_i(x)): (B, 3, H, W) in [-1, 1] of domain `source`, any H and W, to as many of the other domain.

        Args:
            images: on any device.
            source: the domain they are from.
            seed: of noise in the code, z = μ + η, the same for each image; None: no noise, z = μ.

        Raises:
            UserError: the memory does not suffice.
        """
        return self._through(images, source, source.other, seed)

    def reconstruct(self, images: Tensor, source: Domain) -> Tensor:
        """G_i(E_i(x)), like `translate`."""
        return self._through(images, source, source, None)

    def _through(self, images: Tensor, encoder: Domain, generator: Domain, seed: int | None) -> Tensor:
        batch, _, height, width = images.shape
        self.require_memory(batch, height, width)
        right, bottom = _padding(height, width, self.networks.scale)
        try:
            with torch.inference_mode(), autocast(self.device, self.precision):
                x = images.to(self.device).contiguous(memory_format=torch.channels_last)
                x = functional.pad(x, (0, right, 0, bottom), mode="replicate")
                z = self.networks.encoder({encoder: x})[encoder]
                if seed is not None:
                    shape = self.networks.code_shape(height + bottom, width + right)
                    z = z + gaussian(shape, [seed] * batch, self.device)
                out: Tensor = self.networks.generator({encoder: z}, [(encoder, generator)])[encoder, generator]
                return out[..., :height, :width].float()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise _too_large(batch, height, width, self.device) from error

    def require_memory(self, batch: int, height: int, width: int) -> None:
        """Refuse on the CPU what would not fit: the system would end the program without a word.

        Raises:
            UserError: the memory does not suffice.
        """
        model = self.config.model
        needed = batch * height * width * model.channels * _BYTES_PER_ACTIVATION[model.downsampling]
        if self.device.type == "cpu" and needed > psutil.virtual_memory().available:
            raise _too_large(batch, height, width, self.device)


def _padding(height: int, width: int, scale: int) -> tuple[int, int]:
    """Pixels to add on the right and at the bottom, for multiples of `scale`, and at least two pixels of code.

    Of a single one, instance normalization would leave nothing.
    """
    right, bottom = -width % scale, -height % scale
    return right + (scale if max(height, width) <= scale else 0), bottom


def _too_large(batch: int, height: int, width: int, device: torch.device) -> UserError:
    images = f"{batch} images of " if batch > 1 else ""
    return UserError(
        f"{images}{width}x{height} pixels are too many for the memory of {device}; give --size N, the short side to "
        f"work at, e.g. --size 512{', or a smaller --batch_size' if batch > 1 else ''}"
    )


# The file. A ModelError from here on does not name it: `load` does.

_LONGEST_CONFIG = 1_000_000  # a hundred times what there is; parsed, 100 MB of JSON are gigabytes
_ANOTHER = "give a run's folder or a .safetensors file of this program"


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata; runs nothing that the file holds, whatever it is."""
    if not os.path.lexists(file):
        raise ModelError(f"no such file; {_ANOTHER}")
    if not os.path.isfile(file):  # noqa: PTH113 - as in `load`; a pipe would be waited for
        raise ModelError(f"no ordinary file; {_ANOTHER}")
    try:
        _require_room(file)
        with safe_open(file, "pt", device="cpu") as content:
            metadata = content.metadata() or {}
            _require_version(metadata)
            return {name: content.get_tensor(name) for name in content.keys()}, metadata  # noqa: SIM118 (no iterator)
    except ModelError:
        raise
    except PermissionError as error:
        raise ModelError("no permission to read it") from error
    except Exception as error:  # damaged files make the reader raise anything
        if _is_pickle(file):
            raise ModelError(f"a pickle, refused because opening one can run code that it holds; {_ANOTHER}") from error
        raise ModelError(f"not a safetensors file, or damaged ({_detail(error)}); {_ANOTHER}") from error


def _require_room(file: Path) -> None:
    with file.open("rb") as content:  # safe_open calls a file that may not be read missing
        gigabytes, free = content.seek(0, os.SEEK_END) / 1e9, psutil.virtual_memory().available / 1e9
    if gigabytes > free:  # a file of holes may be larger than its disk
        raise ModelError(f"{gigabytes:.1f} GB, but {free:.1f} GB of memory are free; {_ANOTHER}")


def _is_pickle(file: Path) -> bool:
    """Whether it begins like what torch.save (new: a zip) and pickle write."""
    try:
        with file.open("rb") as content:
            head = content.read(4)
    except OSError:
        return False
    return head == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def _require_version(metadata: dict[str, str]) -> None:
    version = metadata.get("format_version", "")
    if version == str(FORMAT_VERSION):
        return
    if version.isdecimal() and len(version) < 10 and int(version) > FORMAT_VERSION:
        raise ModelError(f"of format {version}, newer than this program, which reads {FORMAT_VERSION}; update it")
    raise ModelError(f"not a model of this program (no format version in its metadata); {_ANOTHER}")


def _facts(metadata: dict[str, str]) -> tuple[Config, PerDomain[str], int]:
    """Configuration, domain names and step."""
    if len(metadata.get("config", "")) > _LONGEST_CONFIG:
        raise ModelError(f"its metadata can't be used (a config of over {_LONGEST_CONFIG} characters); {_ANOTHER}")
    try:
        config = Config.from_dict(json.loads(metadata["config"]))
        names = PerDomain(metadata["name_a"], metadata["name_b"])
        step = int(metadata["step"])
    except Exception as error:  # what is no configuration fails anywhere
        missing = f"no {error}" if isinstance(error, KeyError) else _detail(error)
        raise ModelError(f"its metadata can't be used ({missing}); {_ANOTHER}") from error
    if names.a == names.b or not all(name.strip() and name.isprintable() and len(name) < 1000 for name in names):
        raise ModelError(f"its domains' names are not two printable ones ({_detail(names)}); {_ANOTHER}")
    return config, names, step


def _build(config: ModelConfig, weights: dict[str, Tensor]) -> Autoencoders:
    """The networks with these weights; nothing is allocated before all is known to fit what the file holds."""
    if config.residual_blocks > len(weights):
        raise ModelError(f"its configuration has more layers than its file; {_ANOTHER}")
    try:
        with torch.device("meta"):
            networks = build_autoencoders(config)
    except Exception as error:  # sizes beyond all numbers
        raise ModelError(f"its configuration can't be used ({_detail(error)}); {_ANOTHER}") from error
    stored, state = _stored_names(networks), networks.state_dict()
    expected = {name: (state[name].shape, state[name].dtype) for name in stored.values()}
    held = {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | held.keys()):
        if expected.get(name) != held.get(name):
            raise ModelError(f"its weights do not fit its configuration ({_detail(name)}); {_ANOTHER}")
        if not weights[name].isfinite().all():
            raise ModelError(f"its weights are not all finite numbers ({name}); give a model of an earlier step")
    networks.to_empty(device="cpu").load_state_dict({name: weights[stored[name]] for name in stored})
    return networks


def _unshared(networks: Autoencoders) -> dict[str, Tensor]:
    """Each tensor once: what both domains share goes under A's name."""
    state = networks.state_dict()
    return {name: state[name] for name in _stored_names(networks).values()}


def _stored_names(networks: Autoencoders) -> dict[str, str]:
    """The name under which each tensor of the state is stored: its own, or the first of those that share it."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in networks.state_dict(keep_vars=True).items()}


def _detail(what: object) -> str:
    """As one printable line."""
    return escape(" ".join(str(what).split()))[:200]
