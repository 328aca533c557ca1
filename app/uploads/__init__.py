"""Receives uploaded images, stores them with their results, and deletes expired ones."""
