"""What was done to the tensors of a file: what container and family say, and how often the weights show it."""
