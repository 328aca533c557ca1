"""What benchmarks/gpu.py measures: its parts, each a process of its own, and what they share."""
