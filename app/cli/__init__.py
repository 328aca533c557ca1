"""The commands: `flask db`, `flask index`, `flask weights`, `flask classify`."""
