"""internlm2: a llama with a head of its own; its files have q, k and v apart."""

from kernels.models.llama import Decoder


class InternLM2(Decoder):
    """models/internlm2.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    gguf = "internlm2"
    interleaved = True


FAMILY = InternLM2()
