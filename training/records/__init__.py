"""What a run leaves behind: its folder, checkpoints, reports and curves."""
