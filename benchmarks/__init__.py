"""The figures of benchmarks/README.md; `python -m benchmarks` runs them all."""
