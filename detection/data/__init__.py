"""Files on disk → samples → batches."""
