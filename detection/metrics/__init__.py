"""Metrics as the benchmarks' own development kits define them."""

from detection.metrics.voc_map import VOCMeanAveragePrecision

__all__ = ["VOCMeanAveragePrecision"]
