"""The classroom: photographs of one's own, and what is taught with them."""
