"""rnd1: a qwen3moe of which every token attends to all."""

from dataclasses import replace
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.experts import ExpertParts
from kernels.family import Settings
from kernels.models.qwen3moe import Qwen3Moe


class Rnd1(Qwen3Moe):
    """models/rnd1.cpp in llama-cpp-python 0.3.36."""

    expert_parts = ExpertParts()
    model_types: ClassVar[tuple[str, ...]] = ()
    gguf = "rnd1"

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return replace(super().of_gguf(config, fields), causal=False)


FAMILY = Rnd1()
