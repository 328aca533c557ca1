"""Find or download the photographs to train on, decode them once, and store them."""
