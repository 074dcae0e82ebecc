"""The arithmetic of a language model on each numeric path, and the one-pass difference of two tensors."""
