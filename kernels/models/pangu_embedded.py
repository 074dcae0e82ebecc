"""pangu-embedded: a llama with a bias of the output projection too."""

from kernels.models.llama import Decoder


class PanguEmbedded(Decoder):
    """models/pangu-embed.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    gguf = "pangu-embedded"
    more = r"attn_output\.bias"
    gguf_unused = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")


FAMILY = PanguEmbedded()
