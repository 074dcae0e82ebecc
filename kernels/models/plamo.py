"""plamo: a llama whose two blocks read the same norm and are added at once."""

from dataclasses import replace

from kernels.config import ModelConfig
from kernels.family import Settings
from kernels.models.llama import Decoder, decoder_stages


class Plamo(Decoder):
    """models/plamo.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    stages = decoder_stages(without=("ffn_norm", "post_attn_residual"))
    ffn_norm = None
    added_last = "before"
    gguf = "plamo"

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        del fields
        return replace(config, parallel=True)

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return self.of_gguf(config, fields)


FAMILY = Plamo()
