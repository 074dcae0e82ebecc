"""Slow, literal re-implementations that the product is checked against; written from the papers and specifications."""
