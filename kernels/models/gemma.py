"""gemma: a llama with GELU, embeddings times the root of their size, and norm weights that are stored less 1."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.graph import Stage
from kernels.kinds.embed import Embed
from kernels.kinds.gelu import GeluTanh
from kernels.models.llama import Decoder


class Gemma(Decoder):
    """Defaults of GemmaConfig in transformers 5.24; models/gemma.cpp in llama-cpp-python 0.3.36."""

    activation = GeluTanh()
    model_types = ("gemma",)
    defaults = MappingProxyType(
        {
            "vocab_size": 256000,
            "hidden_size": 3072,
            "intermediate_size": 24576,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "head_dim": 256,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
        }
    )
    # The second name is taken for the first in transformers.
    activations: ClassVar[tuple[str, tuple[str, ...]]] = ("hidden_act", ("gelu_pytorch_tanh", "gelu"))
    less_one = True
    gguf = "gemma"
    queries_scaled = True
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", "use_bidirectional_attention")),
                ignored={
                    **{"hidden_activation": ("gelu_pytorch_tanh",), "mlp_bias": ()},
                    **{"sliding_window": (), "layer_types": ("full_attention",)},
                },
            ),
            "gguf": Keys(ignored={"hidden_activation": ("gelu_pytorch_tanh",)}),
        }
    )

    def first(self, config: ModelConfig) -> tuple[Stage, ...]:
        (embedding,) = super().first(config)
        return (replace(embedding, kind=Embed(float(np.float32(config.hidden_size**0.5)))),)

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv", "o"))
        return frozenset(named) if fields.flag("attention_bias") else frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        if fields.flag("use_bidirectional_attention"):
            raise fields.unsupported("sets use_bidirectional_attention, which this program does not compute.")
        return config

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if not config.tie_word_embeddings:
            yield f"it has an output.weight, which it does not know in {self.gguf}"


FAMILY = Gemma()
