"""The formats that others' weights come in, and those that weights are exported to."""
