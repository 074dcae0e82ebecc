"""Predictions: small expressions over measurements, read by a parser of their own, typed, and never run as code."""
