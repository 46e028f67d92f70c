"""One run on disk: folder layout, cached stages, processes, signals, progress."""
