"""Batches for the network: drawn, cropped, mirrored and coloured (§4.1)."""
