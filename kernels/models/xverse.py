"""xverse: a llama with a head of its own."""

from kernels.models.llama import Decoder


class Xverse(Decoder):
    """models/xverse.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    gguf = "xverse"
    interleaved = True


FAMILY = Xverse()
