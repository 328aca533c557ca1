"""The page of conv1's filters, and the numbers it shows."""
