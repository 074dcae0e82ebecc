"""Whether a tensor that differs is explained by its formats, and which mistake made it if not."""
