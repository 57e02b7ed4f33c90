"""Helpers of the benchmark scripts `compare` and `make-volume`."""
