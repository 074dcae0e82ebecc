"""Checkpoints whose weights are stored in parts: one file a method, each of which names its parts and their layout."""
