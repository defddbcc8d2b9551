"""One direction of a model as an ONNX file: uint8 images in, uint8 images out. It needs the extra ``export``."""

from __future__ import annotations

import copy
import logging
import warnings
from itertools import product
from math import prod
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from unit.domains import Domain
from unit.errors import ConfigError, UserError
from unit.translation.translator import Translator

for _library in ("onnx_ir", "onnxscript", "torch.onnx"):  # they log each step of their optimizer
    logging.getLogger(_library).setLevel(logging.WARNING)

OPSET = 20
_CHECKED_SIZES = ((2, 2), (16, 16), (5, 33), (40, 24), (64, 64))
"""Heights and widths of the check's images, as multiples of s."""
_CHECKED_BATCHES = (1, 3)
_SMALL = 1000
"""Weights, such as biases and the last layer's, that stay in fp32 always: they take no space, and count the most."""


class OnnxTranslator(nn.Module):
    """What the file computes: uint8 (B, H, W, 3) → G_j(E_i(x)) as uint8 (B, H, W, 3); H and W are multiples of s."""

    def __init__(self, translator: Translator, source: Domain) -> None:
        super().__init__()
        self.networks = copy.deepcopy(translator.networks).cpu()
        self.source = source

    def forward(self, images: Tensor) -> Tensor:
        """Convert as `to_tensor` does, translate, and convert as `to_image` does."""
        i, j = self.source, self.source.other
        x = images.permute(0, 3, 1, 2).float().div(127.5).sub(1)
        y: Tensor = self.networks.generator(self.networks.encoder({i: x}), [(i, j)])[i, j]
        return y.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def to_onnx(translator: Translator, source: Domain, *, half: bool = False) -> bytes:
    """Export one direction, and check the result in ONNX Runtime.

    Args:
        translator: of the model.
        source: domain of the images to translate.
        half: store the weights in 16 bits, for half the size; computation stays in fp32.

    Raises:
        ConfigError: the extra ``export`` is not installed.
        UserError: ONNX Runtime's output differs by more than one level of 255, or two with `half`.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError as error:
        raise ConfigError(
            f"the package {error.name} is not installed; pip install onnx onnxruntime onnxscript"
        ) from None
    scale = translator.networks.scale
    batch, rows, columns = (torch.export.Dim(name) for name in ("batch", "rows", "columns"))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch.onnx, about its own internals
        program = torch.onnx.export(
            OnnxTranslator(translator, source),
            (torch.zeros(2, 16 * scale, 20 * scale, 3, dtype=torch.uint8),),
            input_names=["images"],
            output_names=["translations"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes={"images": {0: batch, 1: scale * rows, 2: scale * columns}},
            verbose=False,
        )
    assert isinstance(program, torch.onnx.ONNXProgram)
    model = program.model_proto
    if half:
        _halve_weights(model)
    onnx.helper.set_model_props(model, _metadata(translator, source))
    content: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    reference = OnnxTranslator(translator, source)
    for (height, width), count in product(_CHECKED_SIZES, _CHECKED_BATCHES):
        _check(session, reference, (count, height * scale, width * scale, 3), levels=2 if half else 1)
    return content


def _halve_weights(model: Any) -> None:
    """Store large weights as 16-bit integers with a scale per row; the graph makes fp32 of them once, when loaded.

    In fp16, whose numbers have 11 bits, random weights of kaiming's size gave images up to 20 levels off.
    """
    from onnx import TensorProto, helper, numpy_helper

    tensors = model.graph.initializer
    for weights in [w for w in tensors if w.data_type == TensorProto.FLOAT and prod(w.dims) > _SMALL]:
        name, values = weights.name, numpy_helper.to_array(weights)
        largest = numpy.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
        scales = numpy.maximum(largest, numpy.finfo(numpy.float32).tiny) / numpy.float32(32767)
        integers = numpy.rint(values / scales).astype(numpy.int16)
        weights.CopyFrom(numpy_helper.from_array(integers, f"{name}.int16"))
        tensors.append(numpy_helper.from_array(scales, f"{name}.scales"))
        cast = helper.make_node("Cast", [f"{name}.int16"], [f"{name}.cast"], to=TensorProto.FLOAT)
        model.graph.node.insert(0, helper.make_node("Mul", [f"{name}.cast", f"{name}.scales"], [name]))
        model.graph.node.insert(0, cast)


def _metadata(translator: Translator, source: Domain) -> dict[str, str]:
    provenance, licence = translator.provenance(source), translator.config.data.licence
    return ({"licence": licence} if licence else {}) | {
        "source": provenance.source,
        "target": provenance.target,
        "direction": provenance.direction,
        "step": str(provenance.step),
        "weights_sha256": provenance.model,
    }


def _check(session: Any, reference: OnnxTranslator, shape: tuple[int, int, int, int], levels: int) -> None:
    """Compare the session's output for a random image with the translator's."""
    coarse = torch.rand(shape[0], 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = (
        functional.interpolate(coarse, shape[1:3], mode="bilinear").mul(255).byte().permute(0, 2, 3, 1).contiguous()
    )
    (exported,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        difference = int((reference(images).int() - torch.from_numpy(exported).int()).abs().max())
    if difference > levels:
        raise UserError(
            f"ONNX Runtime's translation of {shape[2]}x{shape[1]} pixels differs by {difference} levels of 255 from "
            f"torch's, more than {levels}; nothing was written"
        )
