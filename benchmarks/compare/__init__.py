"""Two commits' benchmarks as ratios, measured in one run."""
