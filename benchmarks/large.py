"""Peak memory and time of translating one large image by the command, each time in a fresh process.

    python benchmarks/large.py --width 3840 --height 2160 --precision bf16

`peak_memory_bytes` is the resident memory of the whole process: Python, torch, decoding, network and encoding.
`cpu_seconds` are those of all threads, without imports, which other processes disturb less than the time on a clock.
With several --tile they alternate. Weights are untrained; `--blocks` takes fewer residual blocks than the preset, which
saves time, but no memory, as one block follows the other in place.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from unit.config_file import read_config
from unit.domains import PerDomain
from unit.model.networks import build_autoencoders
from unit.translation.translator import Translator

ROOT = Path(__file__).resolve().parents[1]
_CODE = """
import sys, time, torch
from unit.__main__ import main
from unit.devices import peak_memory
import unit.translation.files.image_files
start = time.process_time()
status = main(["translate", *sys.argv[1:]])
print(peak_memory(torch.device("cpu")), time.process_time() - start)
sys.exit(status)
"""


def main() -> None:
    arguments = _parser().parse_args()
    machine.show(measure(arguments), arguments.json)


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure, and return the results by name."""
    with tempfile.TemporaryDirectory() as folder:
        model, photo = Path(folder, "model.safetensors"), Path(folder, "photo.jpg")
        config = read_config(arguments.config, {"model.residual_blocks": arguments.blocks} if arguments.blocks else {})
        torch.manual_seed(0)
        Translator(build_autoencoders(config.model), config, PerDomain("a", "b"), 0, "cpu").save(model)
        levels = np.random.default_rng(0).integers(0, 256, (arguments.height // 16, arguments.width // 16, 3), np.uint8)
        Image.fromarray(levels).resize((arguments.width, arguments.height)).save(photo)
        command = [str(model), str(photo), "--direction", "a2b", "--out", f"{folder}/out.jpg", "--overwrite"]
        command += ["--device", "cpu", "--precision", arguments.precision, "--detail", arguments.detail]
        runs: dict[str, list[tuple[int, float]]] = {tile: [] for tile in arguments.tile}
        for _ in range(arguments.rounds):
            for tile, measured in runs.items():
                measured.append(_run([*command, "--tile", tile]))
    results: dict[str, object] = {}
    for tile, measured in runs.items():
        peaks, seconds = zip(*measured, strict=True)
        results[f"tile_{tile}_peak_memory_bytes"] = max(peaks)
        results[f"tile_{tile}_cpu_seconds"] = statistics.median(seconds)
    settings = {
        name: getattr(arguments, name) for name in ("width", "height", "precision", "detail", "blocks", "rounds")
    }
    return results | settings | machine.facts(torch.device("cpu"))


def _run(words: list[str]) -> tuple[int, float]:
    """Translate in a fresh process; return its peak memory in bytes and its seconds on the CPU."""
    output = subprocess.run(
        [sys.executable, "-c", _CODE, *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()
    return int(output[-2]), float(output[-1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "photos.yaml", help="default: photos")
    parser.add_argument("--width", type=int, default=3840)
    parser.add_argument("--height", type=int, default=2160)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--detail", default="native", choices=("native", "guided"))
    parser.add_argument("--tile", nargs="+", default=["auto"], help="as of translate.py (default: auto)")
    parser.add_argument("--blocks", type=int, help="residual blocks of each encoder and generator")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    main()
