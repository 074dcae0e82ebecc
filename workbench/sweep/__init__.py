"""A pair over many prompts: what every tensor, layer or stage of B costs in the output of A."""
