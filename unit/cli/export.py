"""``export``: write one direction of a model as an ONNX file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from unit.cli.arguments import Parser, output_file, refuse_input
from unit.domains import source_domain
from unit.errors import escape
from unit.files import atomic_write
from unit.translation.model_file import read_header

log = logging.getLogger(__name__)


def run(argv: Sequence[str]) -> int:
    """Export as the arguments say, and return the exit status."""
    arguments = make_parser().parse_args(argv)
    source = source_domain(arguments.direction, read_header(Path(arguments.model))[1])
    refuse_input(arguments.out, [arguments.model])
    # Imported here because torch takes seconds, which --help and mistakes on the command line need not wait for.
    from unit.translation.onnx_export import to_onnx
    from unit.translation.translator import Translator

    content = to_onnx(Translator.load(arguments.model, "cpu", "fp32"), source, half=arguments.half)
    atomic_write(arguments.out, content)
    log.info("%s: %.1f MB; checked in ONNX Runtime", escape(arguments.out), len(content) / 1e6)
    return 0


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "export",
        description="Write one direction of a model as an ONNX file, which ONNX Runtime runs without this program: "
        "images (batch, height, width, 3) of uint8 to translations alike; height and width are multiples of the "
        "model's scale (4 with two downsamplings). The file is compared with the model before it is written. Needs "
        "pip install onnx onnxruntime onnxscript.",
        epilog="example: %(prog)s runs/sunny-rainy --direction sunny2rainy --out rainy.onnx",
    )
    parser.add_argument("model", metavar="MODEL", help="a run directory or a .safetensors file")
    parser.add_argument("--direction", required=True, help="a2b or b2a, or by the names: sunny2rainy")
    parser.add_argument(
        "--out", required=True, type=output_file(".onnx"), metavar="FILE.onnx", help="the file to write"
    )
    parser.add_argument("--half", action="store_true", help="weights in 16 bits: half the size, within 2 levels of 255")
    return parser
