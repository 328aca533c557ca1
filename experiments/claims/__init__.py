"""The paper's claims, each an experiment: what is run, what is measured, and what came out."""
