"""Uploaded images: received, stored with their results, and deleted in time."""
