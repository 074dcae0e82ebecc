"""Weight encodings: what a stored row holds, and what it stands for."""
