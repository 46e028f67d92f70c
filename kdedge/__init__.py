"""kdedge makes a big text classifier small enough for the edge, and proves what was kept."""

__version__ = "0.1.0"
