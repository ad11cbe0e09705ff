"""A run: the loop, its history, checkpoints and folder; certificates to order."""
