"""maincoder: adjacent pairs rotate, and every head of q and k is normed after that."""

from kernels.models.llama import Decoder, decoder_stages


class Maincoder(Decoder):
    """models/maincoder.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    stages = decoder_stages("q_rope_norm", "k_rope_norm")
    head_norms = True
    norms_rotated = True
    pairs = "norm"
    gguf = "maincoder"


FAMILY = Maincoder()
