"""What the benchmarks share: models, clocks and tables."""
