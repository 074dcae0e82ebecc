"""Bisecting a model against what an engine recorded."""
