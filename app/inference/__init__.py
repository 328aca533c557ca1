"""Loads the weights and the index, keeps them current, and classifies images with them."""
