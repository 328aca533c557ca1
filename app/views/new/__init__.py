"""The classroom's pages."""
