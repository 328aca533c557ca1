"""Figure 4 of the paper (§6.1), with this installation's validation images."""
