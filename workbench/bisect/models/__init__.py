"""Bisecting two models: every stage evaluated again with factors exchanged."""
