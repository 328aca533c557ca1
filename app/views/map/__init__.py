"""The map of the training images, and how it is laid out and drawn."""
