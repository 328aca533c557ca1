"""An image, from bytes to the network's input."""
