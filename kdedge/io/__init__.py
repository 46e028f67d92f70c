"""Read and write files: atomic writes, paths, Arrow tables, text tables."""
