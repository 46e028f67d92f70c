"""Statistics and timing: bootstrap intervals, paired comparisons, latency, plots."""
