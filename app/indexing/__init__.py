"""Builds, verifies, measures, rolls back and prunes the index."""
