"""What lies in ALEXNET_HOME: defined once, for whoever writes it and whoever reads it."""
