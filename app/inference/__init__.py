"""Weights and index, loaded and kept current, and the classification of an image with them."""
