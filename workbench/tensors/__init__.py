"""The tensors of two models compared one by one, without running either."""
