"""How fast it is: `python benchmarks/NAME.py`, metrics in docs/performance.md."""
