"""The runs of training/ as their files tell of them: read, never written, in whatever state."""
