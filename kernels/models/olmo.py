"""olmo: a llama with layer norms that have neither weight nor bias, and a bound of q, k and v in some models."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, decoder_stages

_EPSILON = 1e-5  # transformers has no key for it


class Olmo(Decoder):
    """Defaults of OlmoConfig in transformers 5.24; models/olmo.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("qkv_clip")
    layer_norms = True
    norm_weights = False
    model_types = ("olmo",)
    defaults = MappingProxyType(
        {
            "vocab_size": 50304,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 2048,
            "rms_norm_eps": _EPSILON,
        }
    )
    gguf = "olmo"
    interleaved = True
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", "clip_qkv")),
                ignored={"sliding_window": (), "layer_types": ("full_attention",), "mlp_bias": ()},
            ),
            "gguf": Keys(used=frozenset(("attention.clamp_kqv",))),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"self_attn.{part}_proj.bias" for part in "qkvo")
        return frozenset(named) if fields.flag("attention_bias") else frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        if fields.number("rms_norm_eps") != _EPSILON:
            raise fields.unsupported(f"gives rms_norm_eps, which is always {_EPSILON:g} in olmo; correct it.")
        return replace(config, clip_qkv=fields.number("clip_qkv"))

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {} if config.clip_qkv is None else {"clip_qkv": config.clip_qkv}

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp: 0 is no bound."""
        given = fields.find("attention.clamp_kqv")[1]
        return replace(config, clip_qkv=fields.single("attention.clamp_kqv") if given else None)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that {self.gguf} has there"


FAMILY = Olmo()
