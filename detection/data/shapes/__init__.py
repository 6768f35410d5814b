"""Drawn data sets: shapes on cluttered, textured backgrounds."""
