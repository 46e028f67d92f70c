"""kdedge distils a large text classifier into a small one and measures what it retains."""

__version__ = "0.1.0"
