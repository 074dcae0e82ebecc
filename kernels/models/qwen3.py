"""qwen3: a qwen2 with heads of their own size, each of q and k normed before its rotation, mostly without biases."""

from collections.abc import Iterator
from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, Llama, decoder_stages
from kernels.models.qwen2 import Qwen2


class Qwen3(Qwen2):
    """Defaults of Qwen3Config in transformers 5.24; models/qwen3.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm")
    head_norms = True
    biased = False
    model_types: ClassVar[tuple[str, ...]] = ("qwen3",)
    defaults = MappingProxyType({**Qwen2.defaults, "head_dim": 128})
    gguf = "qwen3"
    gguf_unused: ClassVar[tuple[str, ...]] = ("cls.output.weight",)
    scaled = Llama.scaled
    head_bias = False
    keys = MappingProxyType(
        {"safetensors": Keys(Qwen2.keys["safetensors"].used | {"attention_bias"}, Qwen2.keys["safetensors"].ignored)}
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv", "o"))
        return frozenset(named) if fields.flag("attention_bias") else frozenset()

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        return Decoder.refused_by_llama_cpp(self, config)


FAMILY = Qwen3()
