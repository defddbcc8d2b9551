"""A file given as a model loads, or is refused in one line with status 2: soon, in little memory, its code not run.

Single faults of metadata and weights are in tests/translation/test_translator.py; here, files go through the command,
in large numbers, and of sizes that do harm by themselves.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import resource
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.test_names import Result, put, run
from tests.tiny import TINY
from unit.domains import PerDomain
from unit.model.networks import build_autoencoders
from unit.translation import model_file as module
from unit.translation.translator import MODEL_FILE, Translator

Command = Callable[[str | Path], Result]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / MODEL_FILE
    Translator(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 7, "cpu", "fp32").save(path)
    return path.read_bytes()


@pytest.fixture
def translate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    put(tmp_path / "in.png")

    def go(model: str | Path) -> Result:
        words = (tmp_path / "in.png", "--direction", "a2b", "--device", "cpu", "--out", tmp_path / "out")
        return run(capsys, "translate", model, *words)

    return go


def refusal(result: Result) -> str:
    assert result.status == 2, result
    assert result.out == ""
    (line,) = result.lines
    assert line.startswith("error: ")
    assert len(line) < 800
    return line


def model_of(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header: an object for JSON, or raw bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


# Files with code


class Hostile:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("kind", ["checkpoint", "old checkpoint", "state", "pickle", "zip", "numpy"])
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "folder"])
def test_code_is_not_run(tmp_path: Path, translate: Command, kind: str, name: str) -> None:
    hostile = Hostile(tmp_path / "proof")
    path = tmp_path / name / MODEL_FILE if name == "folder" else tmp_path / name
    path.parent.mkdir(exist_ok=True)
    match kind:
        case "checkpoint" | "old checkpoint":
            torch.save({"x": hostile}, path, _use_new_zipfile_serialization=kind == "checkpoint")
        case "state":
            torch.save(build_autoencoders(TINY.model).state_dict(), path)
        case "pickle":
            path.write_bytes(pickle.dumps(hostile))
        case "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("data.pkl", pickle.dumps(hostile))
        case "numpy":
            path.write_bytes(b"\x93NUMPY\x01\0\x10\0{'descr': '|O'}\n" + pickle.dumps(hostile))
    line = refusal(translate(tmp_path / name))
    assert not (tmp_path / "proof").exists()
    assert kind == "numpy" or "pickle, refused because opening one can run code" in line


# Unusual paths and sizes


def test_paths_that_are_not_regular_files(tmp_path: Path, translate: Command) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / MODEL_FILE).symlink_to("/dev/urandom")
    begun = time.process_time()
    for name in ("pipe", "loop", "endless", "run", "in.png/x", "missing", "x" * 300, "new\nline\x1b[31m", "\udcff"):
        refusal(translate(tmp_path / name))
    for name in ("/dev/zero", "/dev/stdin", "/dev/null", "/proc/self/mem", "/proc/self/maps", "/", "."):
        refusal(translate(name))
    assert time.process_time() - begun < 5


@pytest.mark.skipif(sys.platform != "linux", reason="needs files with holes")
@pytest.mark.parametrize("kind", ["zeros", "one tensor", "complete model and a tensor", "named as a weight"])
def test_a_terabyte_of_holes(tmp_path: Path, translate: Command, content: bytes, kind: str) -> None:
    """Sparse files that take a few bytes on the disk."""
    header, data = split(content)
    size, first = 10**12, next(name for name in header if name != "__metadata__")
    hole = {"dtype": "F32", "shape": [size // 4], "data_offsets": [len(data), len(data) + size]}
    files: dict[str, Callable[[], bytes]] = {
        "zeros": lambda: b"",
        "one tensor": lambda: model_of({"x": hole | {"data_offsets": [0, size]}}),
        "complete model and a tensor": lambda: model_of(header | {"zzz": hole}, data),
        "named as a weight": lambda: model_of({first: hole | {"data_offsets": [0, size]}}),
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(files[kind]())
    os.truncate(path, path.stat().st_size + size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "of memory are free" in refusal(translate(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000  # KB


def test_a_large_model_is_refused_by_its_size_alone(
    tmp_path: Path, translate: Command, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    monkeypatch.setattr(module, "available_memory", lambda: len(content) - 1)
    assert "KB of memory are free" in refusal(translate(tmp_path / "x.safetensors"))


def test_an_unexpected_tensor_is_not_read(tmp_path: Path, translate: Command, content: bytes) -> None:
    """Not even one that would fit into memory."""
    header, data = split(content)
    size = 4 * 10**8
    hole = {"dtype": "F32", "shape": [size // 4], "data_offsets": [len(data), len(data) + size]}
    path = tmp_path / "x.safetensors"
    path.write_bytes(model_of(header | {"zzz": hole}, data))
    os.truncate(path, path.stat().st_size + size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "zzz" in refusal(translate(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000


# Hostile metadata


def nested(key: str, depth: int) -> str:
    return f'{{"{key}":' * depth + "1" + "}" * depth


CONFIGS: dict[str, str] = {
    "deep lists": "[" * 400_000,
    "deep maps": nested("model", 100_000),
    "many keys": json.dumps({"model": {str(n): {} for n in range(80_000)}}),
    "long": json.dumps({"model": {"channels": [1] * 2_000_000}}),
    "huge number": '{"model": {"channels": ' + "9" * 100_000 + "}}",
    "huge float": '{"model": {"channels": 1e999999999}}',
    "huge network": '{"model": {"channels": 1000000, "residual_blocks": 100}}',
    "endless network": '{"model": {"residual_blocks": 10000000000}}',
    "twice": '{"model": {"channels": 4, "channels": 8}}',
    "not UTF-8": "\udcff",
    "not JSON": "{'model': __import__('os').system('touch proof')}",
    "YAML": "!!python/object/apply:os.system ['touch proof']",
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_config_bombs(tmp_path: Path, translate: Command, content: bytes, kind: str) -> None:
    header, data = split(content)
    header["__metadata__"]["config"] = CONFIGS[kind]
    path = tmp_path / "x.safetensors"
    path.write_bytes(model_of(json.dumps(header).encode(), data))
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    line = refusal(translate(path))
    assert ("1000000 characters" in line) == (len(CONFIGS[kind]) > 1_000_000)  # not even parsed
    assert time.process_time() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000
    assert not Path("proof").exists()


@pytest.mark.parametrize("verb", ["translate", "evaluate"])
@pytest.mark.parametrize("key", ["data.load_size", "model.channels", "model.residual_blocks", "step"])
def test_metadata_that_ask_for_too_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, key: str, verb: str
) -> None:
    header, data = split(content)
    metadata, config = header["__metadata__"], json.loads(header["__metadata__"]["config"])
    section, _, name = key.rpartition(".")
    (config[section] if section else metadata)[name] = {"step": "1" + "0" * 1000, "channels": 10_000}.get(name, 9_999)
    if name == "residual_blocks":
        config["model"][name] = 999
    metadata["config"] = json.dumps(config)
    path = tmp_path / "x.safetensors"
    path.write_bytes(model_of(header, data))
    words = [put(tmp_path / "in.png"), "--direction", "a2b", "--out", tmp_path / "out"] if verb == "translate" else []
    line = refusal(run(capsys, verb, path, "--device", "cpu", *words))
    assert f"invalid metadata ({key}: " in line or "a step that is not from 0 to " in line or "4300 digits" in line


def test_evaluating_at_a_size_beyond_the_memory_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No image is drawn or read."""
    header, data = split(content)
    config = json.loads(header["__metadata__"]["config"])
    config["data"] |= {"load_size": 8000, "crop_size": 16}
    header["__metadata__"]["config"] = json.dumps(config)
    path = tmp_path / "x.safetensors"
    path.write_bytes(model_of(header, data))
    monkeypatch.setattr("unit.evaluation.evaluate.available_memory", lambda: 10**9)
    monkeypatch.setattr("unit.streets.source.render", None)
    result = run(capsys, "evaluate", path, "--device", "cpu")
    (line,) = result.lines
    wanted = (
        r"error: the model was trained at 8000 pixels, where evaluating takes \d+ GB of memory, but 1\.0 GB are free"
    )
    assert result.status == 1
    assert re.fullmatch(wanted, line)


METADATA: dict[str, dict[str, str | None]] = {
    "newer": {"format_version": "3"},
    "much newer": {"format_version": "999999999"},
    "no version": {"format_version": None},
    "no config": {"config": None},
    "no step": {"step": None},
    "no name": {"name_b": None},
    "long name": {"name_a": "x" * 1_000_000},
    "long step": {"step": "9" * 1_000_000},
    "line break": {"name_a": "two\nlines"},
    "same names": {"name_a": "rainy"},
}


@pytest.mark.parametrize("kind", METADATA)
def test_metadata(tmp_path: Path, translate: Command, content: bytes, kind: str) -> None:
    header, data = split(content)
    changed = {key: value for key, value in (header["__metadata__"] | METADATA[kind]).items() if value is not None}
    path = tmp_path / "x.safetensors"
    path.write_bytes(model_of(header | {"__metadata__": changed}, data))
    line = refusal(translate(path))
    assert ("update the program" in line) == ("newer" in kind)


def header(**changes: object) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


HEADERS: dict[str, bytes] = {
    "empty": b"",
    "short": b"\0" * 7,
    "length of nothing": model_of(b"", length=0),
    "length of all there is": model_of(header(), bytes(8), length=2**64 - 1),
    "length below zero": model_of(header(), bytes(8), length=2**63),
    "length of a terabyte": model_of(header(), bytes(8), length=10**12),
    "length just over": model_of(header(), length=len(json.dumps(header())) + 1),
    "length just under": model_of(header(), bytes(8), length=len(json.dumps(header())) - 1),
    "spaces": model_of(b" " * 1_000_000),
    "not UTF-8": model_of(b'{"\xff": 1}'),
    "not JSON": model_of(b"{x}"),
    "a list": model_of([]),
    "a number": model_of(1),
    "deep": model_of(nested("x", 100_000).encode()),
    "twice": model_of(
        json.dumps(header())[:-1].encode() + b"," + json.dumps(header(shape=[1, 2]))[1:].encode(), bytes(8)
    ),
    "metadata twice": model_of(b'{"__metadata__":{"format_version":"1"},"__metadata__":{"format_version":"2"}}'),
    "metadata of numbers": model_of({"__metadata__": {"format_version": 1}}),
    "metadata of lists": model_of({"__metadata__": []}),
    "overlap": model_of(header() | {"y": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12)),
    "gap": model_of(header(data_offsets=[8, 16]), bytes(16)),
    "backwards": model_of(header(data_offsets=[8, 0]), bytes(8)),
    "beyond": model_of(header(data_offsets=[0, 10**15], shape=[10**15 // 4]), bytes(8)),
    "wrong size": model_of(header(shape=[3]), bytes(8)),
    "product beyond all numbers": model_of(header(shape=[2**63, 2**63]), bytes(8)),
    "below zero": model_of(header(shape=[-2]), bytes(8)),
    "of fractions": model_of(header(shape=[2.0]), bytes(8)),
    "another type": model_of(header(dtype="F33"), bytes(8)),
    "many dimensions": model_of(header(shape=[1] * 100_000 + [2]), bytes(8)),
    "many tensors": model_of({str(n): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(20_000)}),
    "no weights": model_of({"__metadata__": {"format_version": "1"}}),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers(tmp_path: Path, translate: Command, kind: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(HEADERS[kind])
    begun = time.process_time()
    refusal(translate(path))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_inf_in_weights(tmp_path: Path, translate: Command, content: bytes, value: float) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content[:-4] + struct.pack("<f", value))
    assert "NaN or Inf" in refusal(translate(path))


# Random mutations


def mutant(content: bytes, rng: random.Random) -> bytes:
    data, header = bytearray(content), 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(rng.choice([1, 1, 2, 5])):
        start = rng.randrange(min(len(data), rng.choice([8, header, header, len(data)])))
        match rng.choice(["cut", "flip", "flip", "digit", "repeat", "remove", "swap", "grow"]):
            case "cut":
                del data[start + 1 :]
            case "flip":
                data[start] ^= 1 << rng.randrange(8)
            case "digit":
                digits = [place for place in range(8, min(header, len(data))) if data[place] in b"0123456789"]
                data[rng.choice(digits) if digits else start] = rng.choice(b'0123456789-.e[]{}"n')
            case "repeat":
                data[start:start] = data[start : start + rng.choice([1, 8, 100])]
            case "remove":
                del data[start : start + rng.choice([1, 8, 100])]
            case "swap":
                other = rng.randrange(len(data))
                data[start], data[other] = data[other], data[start]
            case "grow":
                data += rng.randbytes(rng.choice([1, 4, 1000]))
        if len(data) < 2:
            break
    return bytes(data)


def test_mutants(
    tmp_path: Path, translate: Command, content: bytes, long: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    count, refused, slowest = 2000 if long else 200, 0, 0.0
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    path = tmp_path / "x.safetensors"
    for number in range(count):
        path.write_bytes(mutant(content, random.Random(number)))
        begun = time.monotonic()
        result = translate(path)
        slowest = max(slowest, time.monotonic() - begun)
        if result.status != 0:
            assert refusal(result), number
            refused += 1
        (tmp_path / "out" / "in.png").unlink(missing_ok=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000
    assert 0.5 * count < refused < 0.98 * count
    assert slowest < 5
    assert grown < 200
    if long:
        report = {"tried": count, "refused": refused, "seconds": time.monotonic() - started, "megabytes": grown}
        with capsys.disabled():
            print(f"\nmutated models: {json.dumps(report | {'slowest': slowest})}")
