"""The map of the training images."""
