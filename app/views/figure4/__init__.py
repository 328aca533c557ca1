"""Figure 4 of the paper, made of this installation's own validation images (§6.1)."""
