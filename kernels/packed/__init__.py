"""Weights that a checkpoint stores in several parts (codes, scales, zero points, offsets), dequantized row by row."""
