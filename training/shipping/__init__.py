"""Parts of training/ship.py: the folder of weights that ships with the project, and its card."""
