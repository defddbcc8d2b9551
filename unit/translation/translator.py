"""A finished model: pictures of any size in, the other domain's version of them out, of the same size."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor
from torch.nn import functional

from unit.config import Config
from unit.devices import autocast, resolve_device, resolve_precision
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError, ModelError, UserError
from unit.files import write_whole
from unit.images import to_image, to_tensor
from unit.model.networks import SCALE, Autoencoders, build_autoencoders
from unit.model.noise import gaussian_codes

FORMAT_VERSION = 1
"""Of model.safetensors; a newer one is refused."""

MODEL_FILE = "model.safetensors"

_BYTES_PER_ACTIVATION = 12
"""Peak memory of a translation, per pixel and channel of the first layer; 7.5 to 11.3 measured (fp32 and bf16)."""


class Translator:
    """Encoders and generators of both domains, with the noise off: z = μ.

    Args:
        networks: the averaged networks; they are used as they are, so later training of them shows here.
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
        self.networks = networks.to(self.device).to(memory_format=torch.channels_last)
        self.config, self.names, self.step = config, names, step

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", precision: str = "auto") -> Translator:
        """The translator of a run's folder or of a .safetensors file.

        Raises:
            ModelError: no such file, no model of this program, or one of a newer version.
        """
        file = Path(path)
        if file.is_dir():
            file = file / MODEL_FILE
        weights, metadata = _read(file)
        try:
            config = Config.from_dict(json.loads(metadata["config"]))
            names = PerDomain(metadata["name_a"], metadata["name_b"])
            step = int(metadata["step"])
            networks = build_autoencoders(config.model)
            networks.load_state_dict(_with_shared(weights, networks))
        except KeyError as error:
            raise ModelError(f"{file}: not a model of this program (no {error} in its metadata)") from error
        except (ConfigError, ValueError, TypeError) as error:
            raise ModelError(f"{file}: its metadata can't be used ({error})") from error
        except RuntimeError as error:
            raise ModelError(f"{file}: its weights do not fit its configuration") from error
        return cls(networks.requires_grad_(False).eval(), config, names, step, device, precision)

    def save(self, path: Path) -> None:
        """Write one safetensors file with all that translating needs.

        Raises:
            OSError: it can't be written; what was there before is untouched.
        """
        metadata = {
            "format_version": str(FORMAT_VERSION),
            "config": json.dumps(self.config.to_dict()),
            "name_a": self.names.a,
            "name_b": self.names.b,
            "step": str(self.step),
        }
        weights = {name: tensor.contiguous() for name, tensor in _unshared(self.networks).items()}
        write_whole(path, to_safetensors(weights, metadata))

    def source(self, direction: str) -> Domain:
        """The domain that "a2b", "b2a" or the user's names, e.g. "sunny2rainy", start from.

        Raises:
            ConfigError: no such direction.
        """
        for domain in Domain:
            if direction in (domain.direction, f"{self.names[domain]}2{self.names[domain.other]}"):
                return domain
        a, b = self.names
        raise ConfigError(f"--direction {direction}: must be a2b ({a}2{b}) or b2a ({b}2{a})")

    def __call__(self, image: Image.Image | Tensor, direction: str) -> Image.Image | Tensor:
        """One image: a PIL image of any size gives one of that size; a tensor (3, H, W) in [-1, 1], a tensor."""
        source = self.source(direction)
        if isinstance(image, Image.Image):
            return to_image(self.translate(to_tensor(image.convert("RGB"))[None], source)[0])
        return self.translate(image[None], source)[0]

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
        self._require_memory(batch, height, width)
        right, bottom = -width % SCALE, -height % SCALE
        try:
            with torch.inference_mode(), autocast(self.device, self.precision):
                x = images.to(self.device).contiguous(memory_format=torch.channels_last)
                x = functional.pad(x, (0, right, 0, bottom), mode="replicate")
                z = self.networks.encoder(encoder)(x)
                if seed is not None:
                    shape = self.networks.code_shape(height + bottom, width + right)
                    z = z + gaussian_codes(shape, [seed] * batch, self.device)
                out: Tensor = self.networks.generator(generator)(z)
                return out[..., :height, :width].float()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise _too_large(batch, height, width, self.device) from error

    def _require_memory(self, batch: int, height: int, width: int) -> None:
        """Refuse on the CPU what would not fit: the system would end the program without a word."""
        needed = batch * height * width * self.config.model.channels * _BYTES_PER_ACTIVATION
        if self.device.type == "cpu" and needed > psutil.virtual_memory().available:
            raise _too_large(batch, height, width, self.device)


def _too_large(batch: int, height: int, width: int, device: torch.device) -> UserError:
    pictures = f"{batch} pictures of " if batch > 1 else ""
    return UserError(
        f"{pictures}{width}x{height} pixels are too many for the memory of {device}; give --size N, the short side to "
        f"work at, e.g. --size 512{' or a smaller --batch_size' if batch > 1 else ''}"
    )


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(str(file), "pt", device="cpu") as content:
            metadata = content.metadata() or {}
            version = metadata.get("format_version")
            if version is None:
                raise ModelError(f"{file}: not a model of this program (no format version in its metadata)")
            if version != str(FORMAT_VERSION):
                raise ModelError(f"{file}: format version {version}, but this program reads {FORMAT_VERSION}")
            return {name: content.get_tensor(name) for name in content.keys()}, metadata  # noqa: SIM118 (no iterator)
    except FileNotFoundError as error:
        raise ModelError(f"{file}: no such file; give a run's folder or a .safetensors file") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: not a safetensors file ({error})") from error


def _unshared(networks: Autoencoders) -> dict[str, Tensor]:
    """Each tensor once: what both domains share goes under A's name."""
    state = networks.state_dict()
    return {name: state[name] for name in _stored_names(networks).values()}


def _with_shared(weights: dict[str, Tensor], networks: Autoencoders) -> dict[str, Tensor]:
    """The inverse of `_unshared`: shared tensors under both names."""
    names = _stored_names(networks)
    if weights.keys() != set(names.values()):
        raise RuntimeError("other tensors than the networks have")
    return {name: weights[stored] for name, stored in names.items()}


def _stored_names(networks: Autoencoders) -> dict[str, str]:
    """The name under which each tensor of the state is stored: its own, or the first of those that share it."""
    first: dict[int, str] = {}
    return {name: first.setdefault(tensor.data_ptr(), name) for name, tensor in networks.state_dict().items()}
