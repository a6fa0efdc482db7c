"""Rows of pictures and texts: where they come from, and whether they can be used."""
