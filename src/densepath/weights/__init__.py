"""Weights: our checkpoint, the published sources, and one file for each origin of files."""
