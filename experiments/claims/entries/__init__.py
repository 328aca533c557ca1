"""The experiments by section of the paper; experiments/claims/registry.py has them all."""
