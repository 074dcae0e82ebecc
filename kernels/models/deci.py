"""deci: a llama whose layers may differ in heads and sizes; only those in which they are alike are computed."""

from kernels.models.llama import Decoder


class Deci(Decoder):
    """models/deci.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    gguf = "deci"
    interleaved = True
    rope_freqs = True
    long_rope = True
    ffn_biases = True
    more = r"attn_output\.bias|ffn_(?:gate|up|down)\.bias"


FAMILY = Deci()
