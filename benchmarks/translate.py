"""Photos per second of `translate.py`, with decoding, encoding and disk, against its network alone.

    python benchmarks/translate.py --config configs/photos.yaml --count 40

The photos are those of benchmarks/data.py, JPEG of 1280x720. The command runs as users run it, in a process of its own:
`start_seconds` is the time until the first output (imports, the model, one image), and `images_per_second` counts the
images after that. In alternation, the same network translates one image repeatedly in this process. The results are
medians over all rounds. Without --model, the weights are untrained.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from benchmarks.data import make_photos
from unit.config_file import read_config
from unit.domains import Domain, PerDomain
from unit.images import read_image, resize_short_side, to_tensor
from unit.model.networks import build_autoencoders
from unit.translation.translator import Translator

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    arguments = _parser().parse_args()
    machine.show(measure(arguments), arguments.json)


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure, and return the results by name."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = arguments.model or _untrained(arguments.config, root / "model.safetensors")
        translator = Translator.load(model, arguments.device, arguments.precision)
        size = arguments.size or translator.config.data.load_size
        photos = make_photos(root, arguments.count)
        command = _command(arguments, model, size, photos, root / "out")
        starts, totals, rates, network_rates = [], [], [], []
        for _ in range(arguments.rounds):
            times = _output_times(command)
            if len(times) != arguments.count + 1:
                raise RuntimeError("not all images were translated")
            starts.append(times[0])
            rates.append((arguments.count - 1) / (times[-2] - times[0]))
            totals.append(times[-1])
            network_rates.append(_network_rate(translator, photos.a / "0.jpg", size, arguments.count))
    rate, network_rate = statistics.median(rates), statistics.median(network_rates)
    return {
        "images_per_second": rate,
        "network_images_per_second": network_rate,
        "network_ratio": rate / network_rate,
        "start_seconds": statistics.median(starts),
        "command_seconds": statistics.median(totals),
        "photos": arguments.count,
        "size": size,
        "format": arguments.format,
        "batch_size": 1,
        "device": str(translator.device),
        "precision": translator.precision,
        "rounds": arguments.rounds,
        **machine.facts(translator.device),
    }


def _untrained(config_file: Path, path: Path) -> Path:
    """Write a model with untrained weights."""
    torch.manual_seed(0)
    config = read_config(config_file)
    Translator(build_autoencoders(config.model), config, PerDomain("a", "b"), 0, "cpu").save(path)
    return path


def _command(arguments: argparse.Namespace, model: Path, size: int, photos: PerDomain[Path], out: Path) -> list[str]:
    options = {"--out": out, "--size": size, "--format": arguments.format, "--device": arguments.device}
    options |= {"--precision": arguments.precision, "--direction": "a2b"}
    words = [model, *photos, *(word for option in options.items() for word in option)]
    return [sys.executable, str(ROOT / "translate.py"), *map(str, words), "--overwrite", "--json"]


def _output_times(command: list[str]) -> list[float]:
    """Return the seconds from the start to each output, and to the end of the process."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        times = [time.perf_counter() - start for line in process.stdout if json.loads(line)["status"] == "done"]
    return [*times, time.perf_counter() - start]


def _network_rate(translator: Translator, photo: Path, size: int, count: int) -> float:
    """Measure images per second through the network alone."""
    x = to_tensor(resize_short_side(read_image(photo), size))[None].to(translator.device)
    translator.translate(x, Domain.A)

    def work() -> None:
        for _ in range(count):
            translator.translate(x, Domain.A)

    return count / machine.seconds(work, translator.device)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--config", type=Path, default=ROOT / "configs" / "photos.yaml", help="default: photos")
    which.add_argument("--model", type=Path, help="a run directory or .safetensors file, instead of an untrained model")
    parser.add_argument("--size", type=int, help="short side the network works at (default: the model's load_size)")
    parser.add_argument("--format", default="png", choices=("png", "jpg", "webp"))
    parser.add_argument("--count", type=int, default=40, help="photos, an even number (default: %(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument(
        "--rounds", type=int, default=3, help="repetitions of command and network (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    main()
