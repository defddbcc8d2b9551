"""How fast it is: `python benchmarks/NAME.py`, figures in docs/performance.md."""
