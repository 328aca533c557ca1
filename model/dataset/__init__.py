"""Folders of labelled photographs."""
