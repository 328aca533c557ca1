"""The documentation's screenshots, and what makes them."""
