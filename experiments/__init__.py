"""Long computations that answer a question once, each a command that prints its table."""
