"""llada_moe: a qwen3moe whose experts' weights do not add up to 1, and of which every token attends to all."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.experts import ExpertParts
from kernels.family import Settings
from kernels.models.llama import Decoder
from kernels.models.qwen3moe import Qwen3Moe


class LladaMoe(Qwen3Moe):
    """models/llada-moe.cpp in llama-cpp-python 0.3.36."""

    expert_parts = ExpertParts()
    model_types: ClassVar[tuple[str, ...]] = ()
    gguf = "llada-moe"
    scaled = Decoder.scaled

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return replace(super().of_gguf(config, fields), causal=False, norm_topk_prob=False)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from super().refused_by_llama_cpp(config)
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that {self.gguf} has there"
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = LladaMoe()
