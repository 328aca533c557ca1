"""What is trained and how: presets, options, and the learning rate of each epoch."""
