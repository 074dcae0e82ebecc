"""ernie4_5: a llama that rotates adjacent pairs in every container, and has biases everywhere or nowhere."""

from types import MappingProxyType
from typing import ClassVar

from kernels.config import RopeType
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder

_BLOCKS = {"self_attn": ("q", "k", "v", "qkv", "o"), "mlp": ("gate", "up", "down", "gate_up")}


class Ernie45(Decoder):
    """Defaults of Ernie4_5Config in transformers 5.24; models/ernie4-5.cpp in llama-cpp-python 0.3.36."""

    pairs: ClassVar[RopeType] = "norm"
    ffn_biases = True
    model_types: ClassVar[tuple[str, ...]] = ("ernie4_5",)
    defaults = MappingProxyType(
        {
            "vocab_size": 103424,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 18,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 5e5,
            "tie_word_embeddings": True,
        }
    )
    gguf = "ernie4_5"
    gguf_unused: ClassVar[tuple[str, ...]] = ("attn_output.bias",)
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("use_bias",)),
                ignored={
                    "sliding_window": (),
                    "layer_types": ("full_attention",),
                    "mlp_bias": (),
                    "attention_bias": (),
                },
            ),
            "gguf": Keys(ignored={"expert_count": (), "expert_used_count": ()}),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"{block}.{part}_proj.bias" for block, parts in _BLOCKS.items() for part in parts)
        return frozenset(named) if fields.flag("use_bias") else frozenset()


FAMILY = Ernie45()
