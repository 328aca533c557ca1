"""The network of the 2012 paper, and everything from an image's bytes to its labels."""
