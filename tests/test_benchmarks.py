"""The benchmarks run, count what they say, and print one JSON object."""

import json
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import digits

SETTINGS = {"size", "batch_size", "device", "precision", "rounds", "machine", "cores", "threads", "python", "torch"}


@pytest.mark.slow
def test_the_step_benchmark_counts_the_paper_s_work() -> None:
    command = [sys.executable, "benchmarks/step.py", "--size", "32", "--batch_size", "1", "--rounds", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    metrics = json.loads(done.stdout)
    assert metrics.keys() >= SETTINGS
    assert metrics["gflop"] * (128 / 32) ** 2 == pytest.approx(324.6, abs=1.4)  # all but the pyramid's edges scale so
    assert metrics["matrix_ratio"] == pytest.approx(
        metrics["gflop"] / metrics["step_seconds"] / metrics["matrix_gflops"]
    )
    assert metrics["pairs_per_second"] == pytest.approx(1 / metrics["step_seconds"])
    assert 0 < metrics["matrix_ratio"] < 1.2
    assert metrics["peak_memory_bytes"] > 3 * 4 * (18_017_286 + 9_308_934)


def test_the_check_benchmark_counts_all_files() -> None:
    command = [sys.executable, "benchmarks/check.py", "--count", "200", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["files"] == 200


@pytest.mark.slow
def test_the_data_benchmark_reads_what_it_is_told() -> None:
    command = [sys.executable, "benchmarks/data.py", "--count", "40", "--workers", "1", "--json"]
    metrics = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert metrics["images_per_second"] > 0


def test_the_listing_benchmark_counts_all_files() -> None:
    command = [sys.executable, "benchmarks/listing.py", "--count", "3000", "--json"]
    metrics = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert metrics["files"] == 3000


@pytest.mark.slow
def test_the_translate_benchmark_times_the_command_and_its_network() -> None:
    options = ["--config", "configs/streets.yaml", "--size", "32", "--count", "4", "--rounds", "1", "--format", "jpg"]
    command = [sys.executable, "benchmarks/translate.py", *options, "--json"]
    metrics = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert metrics.keys() >= SETTINGS
    assert (metrics["photos"], metrics["size"], metrics["format"]) == (4, 32, "jpg")
    assert metrics["network_ratio"] == pytest.approx(
        metrics["images_per_second"] / metrics["network_images_per_second"]
    )
    assert 0 < metrics["start_seconds"] < metrics["command_seconds"]
    assert metrics["images_per_second"] > 3 / metrics["command_seconds"]


def test_the_digits_benchmark_reports_the_last_steps_over_the_seeds() -> None:
    def result(seed: int, accuracy: float, best: float, recipe: str = "paper") -> dict[str, Any]:
        run = {"source": "usps", "target": "mnist", "recipe": recipe, "seed": seed, "step": 10_000, "seconds": 600.0}
        return run | {"accuracy": accuracy, "best_selected_on_test": {"step": 500, "accuracy": best}}

    results = [result(0, 0.92, 0.95), result(1, 0.94, 0.95), result(0, 0.4, 0.5, "source_only")]
    lines = digits.table(results).splitlines()
    assert lines[2] == "| usps → mnist | paper | 2 | 10,000 | 10 | 93.00 ± 1.41 | 95.00 ± 0.00 | 93.58 |"
    assert lines[3] == "| usps → mnist | source_only | 1 | 10,000 | 10 | 40.00 | 50.00 |  |"
