"""Extracts a training set's features to disk: reader → extractor → writer, restartable."""
