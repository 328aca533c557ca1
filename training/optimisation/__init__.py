"""The training loop and its parts: forward, backward, update, validation (§5)."""
