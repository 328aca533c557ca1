"""The review of the indexed photographs, and the list of corrections."""
