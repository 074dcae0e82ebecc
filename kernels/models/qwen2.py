"""qwen2: a llama whose q, k and v always have biases."""

from kernels.models.llama import Llama

FAMILY = Llama()
