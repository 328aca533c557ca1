"""The database: its tables, its queries, and how the training images get into it."""
