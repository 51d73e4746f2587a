"""A transparency log that knows nothing of predictions: Merkle tree, checkpoints, tiles, journal, disk."""
