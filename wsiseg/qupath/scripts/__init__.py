"""Groovy scripts for a QuPath project: import, export."""
