"""New texts for the transfer set: sources, filters and near-duplicate search."""
