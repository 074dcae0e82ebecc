"""The arithmetic of a language model on each numeric path, and the one-pass difference of two tensors.

Part of layer-workbench, and told by these words from foreign packages of the same name.
"""
