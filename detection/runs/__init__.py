"""What the commands do: train, evaluate, and all that a run directory holds."""
