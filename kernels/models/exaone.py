"""exaone: a llama, whose files have rows in Hugging Face's order."""

from kernels.models.llama import Decoder


class Exaone(Decoder):
    """models/exaone.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    gguf = "exaone"
    rope_freqs = True


FAMILY = Exaone()
