"""The network of the 2012 paper and what it does with an image."""
