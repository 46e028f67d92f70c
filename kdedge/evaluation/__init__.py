"""Statistics, timing and plots: bootstrap intervals, paired comparisons, latency."""
