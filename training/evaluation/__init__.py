"""Evaluate networks on labelled photographs: errors, intervals, tables and pictures."""
