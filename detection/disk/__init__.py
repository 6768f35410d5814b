"""Files that are written whole, images, checkpoints, arrays."""
