"""Decodes images in processes of their own, with limits on memory and computing time."""
