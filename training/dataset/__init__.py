"""Photographs made ready for training: found or fetched, decoded once, stored."""
