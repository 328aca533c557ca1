"""The index's life: built, verified, measured, rolled back, pruned."""
