"""The page of why an image has a label."""
