"""Training in several processes: launch, mesh, signals, messages."""
