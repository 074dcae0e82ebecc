"""Hypotheses and the evidence that they are bound to."""
