"""qwen3vl, its text model: a qwen3 whose pairs turn with time, height and width in turn, which are one in text."""

from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.family import Keys, Settings, plain_sections
from kernels.models.llama import Decoder, decoder_stages


class Qwen3VL(Decoder):
    """models/qwen3vl.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm")
    head_norms = True
    gguf = "qwen3vl"
    gguf_unused: ClassVar[tuple[str, ...]] = ("cls.output.weight",)
    keys = MappingProxyType(
        {"gguf": Keys(used=frozenset(("rope.dimension_sections",)), irrelevant=("n_deepstack_layers",))}
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        plain_sections(config, fields, "rope.dimension_sections", in_turn=True)
        return config


FAMILY = Qwen3VL()
