"""Benchmarks: `python benchmarks/NAME.py`; results are in docs/performance.md, docs/scaling.md and docs/results.md."""
