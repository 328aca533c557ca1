"""Corrections of a data set: listed in the database, exported, and applied to a folder of links."""
