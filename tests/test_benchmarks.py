"""The benchmarks run, count what they say, and print one JSON object."""

import json
import subprocess
import sys

import pytest

SETTINGS = {"size", "batch_size", "device", "precision", "rounds", "machine", "cores", "threads", "python", "torch"}


@pytest.mark.slow
def test_the_step_benchmark_counts_the_paper_s_work() -> None:
    command = [sys.executable, "benchmarks/step.py", "--size", "32", "--batch_size", "1", "--rounds", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert figures.keys() >= SETTINGS
    assert figures["gflop"] * (128 / 32) ** 2 == pytest.approx(324.6, abs=1.4)  # all but the pyramid's edges scale so
    assert figures["matrix_ratio"] == pytest.approx(
        figures["gflop"] / figures["step_seconds"] / figures["matrix_gflops"]
    )
    assert figures["pairs_per_second"] == pytest.approx(1 / figures["step_seconds"])
    assert 0 < figures["matrix_ratio"] < 1.2
    assert figures["peak_memory_bytes"] > 3 * 4 * (18_017_286 + 9_308_934)


def test_the_check_benchmark_counts_all_files() -> None:
    command = [sys.executable, "benchmarks/check.py", "--count", "200", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["files"] == 200


@pytest.mark.slow
def test_the_data_benchmark_reads_what_it_is_told() -> None:
    command = [sys.executable, "benchmarks/data.py", "--count", "40", "--workers", "1", "--json"]
    figures = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert figures["images_per_second"] > 0


def test_the_listing_benchmark_counts_all_files() -> None:
    command = [sys.executable, "benchmarks/listing.py", "--count", "3000", "--json"]
    figures = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert figures["files"] == 3000


@pytest.mark.slow
def test_the_translate_benchmark_times_the_command_and_its_network() -> None:
    options = ["--config", "configs/streets.yaml", "--size", "32", "--count", "4", "--rounds", "1", "--format", "jpg"]
    command = [sys.executable, "benchmarks/translate.py", *options, "--json"]
    figures = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert figures.keys() >= SETTINGS
    assert (figures["photos"], figures["size"], figures["format"]) == (4, 32, "jpg")
    assert figures["network_ratio"] == pytest.approx(
        figures["images_per_second"] / figures["network_images_per_second"]
    )
    assert 0 < figures["start_seconds"] < figures["command_seconds"]
    assert figures["images_per_second"] > 3 / figures["command_seconds"]
