"""bailingmoe: a llama with experts in all layers, and a part beside them for every token."""

from collections.abc import Iterator
from types import MappingProxyType

from kernels import expert_settings
from kernels.config import ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_USED
from kernels.family import Keys, Settings
from kernels.models.deepseek import Deepseek

_OF_GGUF = ("expert_feed_forward_length", "expert_shared_count", "expert_weights_scale", "expert_weights_norm")


class BailingMoe(Deepseek):
    """models/bailingmoe.cpp in llama-cpp-python 0.3.36."""

    gguf = "bailingmoe"
    keys = MappingProxyType(
        {
            "gguf": Keys(
                used=GGUF_USED | {*_OF_GGUF},
                ignored={**GGUF_OTHERS, "expert_gating_func": (1,), "leading_dense_block_count": ()},
            )
        }
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        inner = expert_settings.gguf_inner(config, fields)
        return expert_settings.of_gguf(
            *(config, fields, inner),
            **expert_settings.gguf_weights(fields),
            shared_intermediate_size=inner * (fields.integer("expert_shared_count", low=0) or 0),
        )

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = BailingMoe()
