"""The database's revisions, applied by `flask db upgrade`."""
