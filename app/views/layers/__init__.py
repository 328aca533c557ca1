"""The pages of each layer's activations."""
