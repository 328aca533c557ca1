"""The page Filters: conv1's kernels."""
