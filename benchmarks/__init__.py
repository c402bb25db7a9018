"""Benchmark scripts: ratios taken in one run, on your own servers if you like."""
