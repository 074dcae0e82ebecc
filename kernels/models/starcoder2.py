"""starcoder2: a decoder with layer norms, a feed-forward block without gate, GELU (tanh), and biases everywhere."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.kinds.gelu import GeluTanh
from kernels.models.llama import Decoder, decoder_stages

_PARTS = (*(f"self_attn.{part}_proj" for part in "qkvo"), "mlp.up_proj", "mlp.down_proj")


class Starcoder2(Decoder):
    """Defaults of Starcoder2Config in transformers 5.24; models/starcoder2.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(without=("ffn_gate", "ffn_swigl"))
    layer_norms = True
    norm_biases = True
    gated = False
    biased = True
    ffn_biases = True
    activation = GeluTanh()
    model_types: ClassVar[tuple[str, ...]] = ("starcoder2",)
    defaults = MappingProxyType(
        {
            "vocab_size": 49152,
            "hidden_size": 3072,
            "intermediate_size": 12288,
            "num_hidden_layers": 30,
            "num_attention_heads": 24,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "norm_epsilon": 1e-5,
            "use_bias": True,
            "tie_word_embeddings": True,
        }
    )
    activations: ClassVar[tuple[str, tuple[str, ...]]] = ("hidden_act", ("gelu_pytorch_tanh", "gelu_new"))
    spelled = MappingProxyType({"rms_norm_eps": "norm_epsilon"})
    modules = MappingProxyType(
        {
            "model.layers.N.mlp.up_proj": "model.layers.N.mlp.c_fc",
            "model.layers.N.mlp.down_proj": "model.layers.N.mlp.c_proj",
        }
    )
    gguf = "starcoder2"
    more = r"attn_output\.bias|ffn_(?:up|down)\.bias"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("use_bias", "sliding_window")),
                ignored={"layer_types": ("sliding_attention",)},
                irrelevant=("residual_dropout", "embedding_dropout", "mlp_type", "norm_type"),
            )
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        return frozenset(f"{part}.bias" for part in _PARTS) if fields.flag("use_bias") else frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return replace(config, sliding_window=fields.integer("sliding_window"))

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {} if config.sliding_window is None else {"sliding_window": config.sliding_window}

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that starcoder2 has there"


FAMILY = Starcoder2()
