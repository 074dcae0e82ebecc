"""llada: a llama that attends to later tokens too."""

from dataclasses import replace

from kernels.config import ModelConfig
from kernels.family import Settings
from kernels.models.llama import Decoder


class LLaDA(Decoder):
    """models/llada.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    causal = False
    gguf = "llada"
    interleaved = True
    gguf_unused = (
        *("attn_output.bias", "ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"),
        "rope_freqs.weight",
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, whatever the file says."""
        del fields
        return replace(config, causal=False)

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return self.of_gguf(config, fields)


FAMILY = LLaDA()
