"""The commands: `flask db`, `flask index`, `flask classify`."""
