"""openelm: heads are normed before their rotation; q, k and v in one; only layers that are alike are computed."""

from collections.abc import Iterator
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.models.llama import Decoder, decoder_stages


class OpenELM(Decoder):
    """models/openelm.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    stages = decoder_stages("q_norm", "k_norm")
    head_norms = True
    partly: ClassVar[tuple[str, float] | None] = ("partial_rotary_factor", 1.0)
    gguf = "openelm"
    gguf_unused = ("attn_qkv.scale",)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if not config.tie_word_embeddings:
            yield "it has an output.weight, which it does not know in openelm"


FAMILY = OpenELM()
