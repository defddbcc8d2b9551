"""Translating with ONNX Runtime, which is faster than torch on CPUs: the same images to two levels of 255.

It runs what `export` writes, kept in the user's cache folder since exporting takes seconds. Whatever that file does not
compute (noise, other strengths, strips, more than 8 bits a channel) torch does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unit.domains import Domain
from unit.errors import ConfigError, UserError
from unit.files import atomic_write, cache_folder
from unit.translation.onnx_export import OPSET, to_onnx
from unit.translation.provenance.marks import weights_sha256
from unit.translation.translator import Translator

_MANY = 1000
"""Images for which exporting pays even where one takes a hundredth of a second."""


def with_backend(translator: Translator, backend: str, source: Domain, images: int) -> Translator:
    """Return a translator with this backend for images of one domain.

    Args:
        translator: with torch.
        backend: "torch", "onnx", or "auto": ONNX Runtime in fp32 on a CPU for many images, where it is installed.
        source: domain of the images.
        images: their number.

    Raises:
        ConfigError: "onnx" on another device, in another precision or without its packages.
        UserError: "onnx", whose images differ from torch's.
    """
    fits = translator.device.type == "cpu" and translator.precision == "fp32"
    if backend == "torch" or (backend == "auto" and not (fits and images >= _MANY)):
        return translator
    if not fits:
        raise ConfigError("--backend onnx computes in fp32 on a CPU; add --device cpu --precision fp32")
    try:
        return OnnxRuntimeTranslator(translator, source, _session(translator, source))
    except UserError:
        if backend == "onnx":
            raise
        return translator


class OnnxRuntimeTranslator(Translator):
    """A translator that runs an exported direction where that gives what torch would."""

    def __init__(self, translator: Translator, source: Domain, session: Any) -> None:
        self.__dict__.update(translator.__dict__)
        self._source, self._session = source, session

    def _translate(self, images: Tensor, source: Domain, seed: int | None, strength: float) -> Tensor:
        height, width = images.shape[2:]
        levels = images.float().add(1).mul(127.5)
        is_plain = source is self._source and seed is None and strength == 1 and self._strip(height, width) is None
        if not is_plain or (levels - levels.round()).abs().max() > 0.01:
            return super()._translate(images, source, seed, strength)
        self.require_memory(len(images), height, width)
        padded = functional.pad(levels.round(), self._padding(height, width), mode="replicate")
        inputs = padded.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        (outputs,) = self._session.run(None, {"images": inputs.numpy()})
        return torch.from_numpy(outputs)[:, :height, :width].permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _session(translator: Translator, source: Domain) -> Any:
    """Open the direction's file in the cache; export it if it is not there, or damaged."""
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError("the package onnxruntime is not installed; pip install onnx onnxruntime onnxscript") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()

    def start(content: bytes) -> Any:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    folder = cache_folder("onnx")
    file = folder / f"{_key(translator, source)}.onnx" if folder else None
    return (file and _from_cache(file, start)) or _export(translator, source, file, start)


def _from_cache(file: Path, start: Callable[[bytes], Any]) -> Any:
    """Return the session of a file that is there and whole, or None."""
    with suppress(Exception):  # onnxruntime raises anything for a damaged file
        digest, content = file.read_bytes().split(b"\n", 1)
        if digest.decode() == hashlib.sha256(content).hexdigest():
            return start(content)
    return None


def _export(translator: Translator, source: Domain, file: Path | None, start: Callable[[bytes], Any]) -> Any:
    content = to_onnx(translator, source)
    with suppress(UserError):  # without a cache it takes longer the next time
        if file:
            atomic_write(file, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    return start(content)


def _key(translator: Translator, source: Domain) -> str:
    """Name what the exported file depends on."""
    what = [weights_sha256(translator.networks.state_dict()), source.direction, translator.config.to_dict()["model"]]
    return hashlib.sha256(json.dumps([*what, OPSET, torch.__version__], default=str).encode()).hexdigest()
