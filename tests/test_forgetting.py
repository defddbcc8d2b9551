"""The experiment on forgetting: its tables and plot by hand, and all of it at a tiny size."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.forgetting_results import _METRICS, SCENES, TASKS, Results, best, plot, shares_of, tables
from unit.errors import ConfigError

PSNR, SSIM, KID = _METRICS


def line(name: str, seed: int, day: float, night: float) -> dict[str, Any]:
    """A result: PSNR as given (a2b one more, b2a one less), SSIM a hundredth of it, KID 100 minus it."""

    def metrics(psnr: float) -> dict[str, dict[str, float]]:
        ways = {"a2b": psnr + 1, "b2a": psnr - 1}
        return {way: {"psnr": value, "ssim": value / 100, "kid": 100 - value} for way, value in ways.items()}

    setting, _, strength = name.partition("-")
    facts = {"size": 64, "images": [1000, 200], "device": "cpu", "precision": "bf16", "torch": "2", "python": "3"}
    return {
        **facts,
        "setting": setting,
        "strength": float(strength or 0),
        "name": name,
        "seed": seed,
        "old_steps": 4,
        "steps": 2,
        "metrics": {scenes: dict(zip(TASKS, map(metrics, (day, night)), strict=True)) for scenes in SCENES},
    }


@pytest.fixture
def results(tmp_path: Path) -> Results:
    results = Results(tmp_path / "results.jsonl")
    for seed, shift in ((0, -1.0), (1, 1.0)):
        results.add(line("memory-10", seed, 29 + shift, 12 + shift))
        results.add(line("memory-1", seed, 28 + shift, 19 + shift))
        results.add(line("before", seed, 30 + shift, 10 + shift))
        results.add(line("l2-1", seed, 24 + shift, 15 + shift))
        results.add(line("plain", seed, 20 + shift, 20 + shift))
    return results


def test_results_outlive_the_program_and_a_later_one_replaces_an_earlier(results: Results) -> None:
    again = Results(results.path)
    assert again.lines == results.lines
    assert again.of("plain", 1, 4, 2)
    assert again.of("plain", 1, 4, 3) is None
    again.add(line("plain", 1, 0, 0))
    assert len(Results(results.path).lines) == len(results.lines)
    results.path.write_text('{"name": "plain"}\n')
    with pytest.raises(ConfigError, match="line 1 is not a result"):
        Results(results.path)


@pytest.mark.parametrize("metric", _METRICS)
def test_shares_by_hand(results: Results, metric: Any) -> None:
    """Day: 30 before, 20 after plain fine-tuning; night: 10 and 20."""
    for name, kept, gained in (("before", 1, 0), ("plain", 0, 1), ("memory-1", 0.8, 0.9), ("l2-1", 0.4, 0.5)):
        assert shares_of(results, name, metric, "report") == pytest.approx((kept, gained)), name
    assert shares_of(results, "joint", metric, "report") == (None, None)


def test_the_best_strength_keeps_and_gains_most(results: Results) -> None:
    assert best(results, "memory") == "memory-1"
    assert best(results, "l2") == "l2-1"
    assert best(results, "joint") is None


def test_the_tables(results: Results) -> None:
    text = tables(results)
    assert [row.split(" | ")[0] for row in text.splitlines() if row.startswith("| ")][2:7] == [
        f"| {name}" for name in ("before", "plain", "l2-1", "memory-1", "memory-10")
    ]
    assert "| before | 2 | 31.00 ± 1.41 | 29.00 ± 1.41 | 0.310 ± 0.014 |" in text
    assert "| memory-1 | 80% | 90% | 80% | 90% | 80% | 90% |" in text
    assert "Best on the scenes to select by: memory-1, l2-1." in text


def test_the_plot_has_a_dot_for_each_setting_and_seed(results: Results) -> None:
    svg = plot(results)
    root = ElementTree.fromstring(svg)
    large = root.findall(".//{*}circle[@r='5']")
    assert len(large) == 3 * 5
    assert len(root.findall(".//{*}circle[@r='2']")) == 3 * 5 * 2
    box = [float(root.attrib[name]) for name in ("width", "height")]
    assert all(0 < float(dot.attrib["cx"]) < box[0] / 3 and 0 < float(dot.attrib["cy"]) < box[1] for dot in large)
    before = {k: re.search(r'fill="#444"/><circle cx="([\d.]+)" cy="([\d.]+)" r="5"', p) for k, p in panels(svg)}
    plain = {k: re.search(r'fill="#c33"/><circle cx="([\d.]+)" cy="([\d.]+)" r="5"', p) for k, p in panels(svg)}
    for k in range(3):  # better is up and to the right, for KID too
        assert before[k]
        assert plain[k]
        assert float(before[k][1]) < float(plain[k][1])
        assert float(before[k][2]) < float(plain[k][2])


def panels(svg: str) -> list[tuple[int, str]]:
    return list(enumerate(svg.split("<g ")[1:]))


@pytest.mark.slow
def test_a_tiny_experiment_is_resumed_where_it_was(tmp_path: Path) -> None:
    sizes = "--seeds 1 --old_steps 2 --steps 1 --strengths 1 --size 16 --old_images 4 --new_images 2 --test 4"
    options = [*sizes.split(), "--importance_images", "2", "--jobs", "1", "--out", str(tmp_path / "out")]
    options += ["--results", str(tmp_path / "results.jsonl"), "--plot", str(tmp_path / "plot.svg")]

    def run(*more: str) -> str:
        command = [sys.executable, "benchmarks/forgetting.py", *options, *more]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert run("--dry_run").startswith("5 runs, 7 steps in all (0 more runs are done): ")
    assert "| memory-1 | 1 |" in run()
    lines = [json.loads(text) for text in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {entry["name"] for entry in lines} == {"before", "plain", "memory-1", "l2-1", "joint"}
    joint = tmp_path / "out" / "images" / "joint" / "trainA"
    assert {folder.name: len(list(folder.iterdir())) for folder in joint.iterdir()} == {
        "day": 4,
        "night0": 2,
        "night1": 2,
    }
    assert run("--dry_run").startswith("0 runs, 0 steps in all (5 more runs are done): ")
    before = (tmp_path / "results.jsonl").read_bytes()
    run()
    assert (tmp_path / "results.jsonl").read_bytes() == before
    assert ElementTree.parse(tmp_path / "plot.svg").getroot().tag.endswith("svg")
