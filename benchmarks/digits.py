"""Repeat the paper's domain adaptation of digits with several seeds, and print the table of accuracies.

    python benchmarks/digits.py --root data/digits --results benchmarks/results/digits.jsonl
    python benchmarks/digits.py --results benchmarks/results/digits.jsonl --table

Each run is one of `unit adapt` in a process of its own; those in the file of results are not run again, and one that
was interrupted resumes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PUBLISHED = {("svhn", "mnist"): 0.9053, ("mnist", "usps"): 0.9597, ("usps", "mnist"): 0.9358}
"""UNIT's accuracies in the paper."""


def read_results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def run_missing(arguments: argparse.Namespace) -> None:
    """Run what the file of results lacks, and append it."""
    for source, target in arguments.pairs:
        for recipe in arguments.recipes:
            for seed in range(arguments.seeds):
                run = {"source": source, "target": target, "recipe": recipe, "seed": seed}
                done = read_results(arguments.results)
                if not any(run.items() <= result.items() for result in done):
                    options = [f"--{key}={value}" for key, value in run.items()]
                    options += [f"--steps={arguments.steps}"] if arguments.steps else []
                    command = [sys.executable, "-m", "unit", "adapt", f"--root={arguments.root.resolve()}", "--json"]
                    finished = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE, cwd=REPOSITORY)
                    with arguments.results.open("ab") as file:
                        file.write(finished.stdout)


def table(results: list[dict[str, Any]]) -> str:
    """Format accuracies at the last step, in percent: mean ± standard deviation over the seeds."""
    groups: dict[tuple[str, str, str, int], list[dict[str, Any]]] = {}
    for result in results:
        key = (result["source"], result["target"], result["recipe"], result["step"])
        groups.setdefault(key, []).append(result)
    columns = ["source → target", "recipe", "seeds", "steps", "minutes", "accuracy, %", "best, selected on test, %"]
    columns.append("paper, %")
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    for (source, target, recipe, step), runs in groups.items():
        best = [run["best_selected_on_test"]["accuracy"] for run in runs]
        cells = [f"{source} → {target}", recipe, str(len(runs)), f"{step:,}"]
        cells += [f"{statistics.mean(run['seconds'] for run in runs) / 60:.0f}"]
        cells += [_mean_and_sd([run["accuracy"] for run in runs]), _mean_and_sd(best)]
        published = PUBLISHED.get((source, target)) if recipe == "paper" else None
        lines.append(f"| {' | '.join([*cells, f'{100 * published:.2f}' if published else ''])} |")
    return "\n".join(lines)


def _mean_and_sd(shares: list[float]) -> str:
    sd = f" ± {100 * statistics.stdev(shares):.2f}" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):.2f}{sd}"


def pair(text: str) -> tuple[str, str]:
    source, _, target = text.partition("-")
    return source, target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of the sets, as of unit adapt")
    parser.add_argument("--results", type=Path, required=True, help="a file of JSON lines")
    pairs = [("mnist", "usps"), ("usps", "mnist")]
    parser.add_argument("--pairs", type=pair, nargs="+", default=pairs, metavar="SOURCE-TARGET")
    recipes = ["source_only", "paper", "modern", "supervised"]
    parser.add_argument("--recipes", nargs="+", default=recipes, metavar="RECIPE")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="by default those of the recipe")
    parser.add_argument("--table", action="store_true", help="print the table of what is there; run nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        run_missing(arguments)
    print(table(read_results(arguments.results)))


if __name__ == "__main__":
    main()
