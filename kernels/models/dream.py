"""dream: a qwen2 that attends to later tokens too."""

from dataclasses import replace

from kernels.config import ModelConfig
from kernels.family import Settings
from kernels.models.llama import Decoder


class Dream(Decoder):
    """models/dream.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    causal = False
    gguf = "dream"
    biased = True
    gguf_unused = ("output.bias",)

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, whatever the file says."""
        del fields
        return replace(config, causal=False)

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return self.of_gguf(config, fields)


FAMILY = Dream()
