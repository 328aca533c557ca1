"""What `training/compress.py` does to weights: prune, fine-tune, share, measure."""
