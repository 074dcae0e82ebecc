"""Stored rows as integers and as floats, whatever format they are in."""
