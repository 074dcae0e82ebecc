"""phi (1, 1.5, 2): both blocks side by side behind one layer norm, half of each head rotates, biases everywhere."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.kinds.gelu import GeluTanh
from kernels.models.llama import Decoder, decoder_stages

_BIASED = (*(f"self_attn.{part}_proj.bias" for part in "qkvo"), "mlp.up_proj.bias", "mlp.down_proj.bias")


class Phi(Decoder):
    """Defaults of PhiConfig in transformers 5.24; models/phi2.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(without=("post_attn_residual", "ffn_norm", "ffn_gate", "ffn_swigl"))
    layer_norms = True
    norm_biases = True
    ffn_norm = None
    added_last = "before"
    gated = False
    biased = True
    ffn_biases = True
    head_bias = True
    activation = GeluTanh()
    model_types = ("phi",)
    defaults = MappingProxyType(
        {
            "vocab_size": 51200,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
        }
    )
    activations: ClassVar[tuple[str, tuple[str, ...]]] = ("hidden_act", ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"))
    spelled = MappingProxyType({"rms_norm_eps": "layer_norm_eps"})
    partly: ClassVar[tuple[str, float] | None] = ("partial_rotary_factor", 0.5)
    modules = MappingProxyType(
        {
            "model.layers.N.self_attn.o_proj": "model.layers.N.self_attn.dense",
            "model.layers.N.mlp.up_proj": "model.layers.N.mlp.fc1",
            "model.layers.N.mlp.down_proj": "model.layers.N.mlp.fc2",
            "model.norm": "model.final_layernorm",
        }
    )
    gguf = "phi2"
    queries_scaled = True
    more = r"attn_output\.bias|ffn_(?:up|down)\.bias"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("qk_layernorm",)),
                ignored={"sliding_window": (), "layer_types": ("full_attention",)},
            )
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        return frozenset((*_BIASED, "lm_head.bias"))

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        if fields.flag("qk_layernorm"):
            raise fields.unsupported("sets qk_layernorm, which this program does not compute in phi.")
        return replace(config, parallel=True)

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return replace(config, parallel=True)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that {self.gguf} has there"
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = Phi()
