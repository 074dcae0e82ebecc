"""jais2: layer norms, a feed-forward block without gate that squares what ReLU leaves, and biases everywhere."""

from types import MappingProxyType
from typing import ClassVar

from kernels.family import Keys, Settings
from kernels.kinds.activation import ReluSquared
from kernels.models.llama import Decoder, decoder_stages


class Jais2(Decoder):
    """Defaults of Jais2Config in transformers 5.24; models/jais2.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(without=("ffn_gate", "ffn_swigl"))
    layer_norms = True
    norm_biases = True
    gated = False
    biased = True
    ffn_biases = True
    activation = ReluSquared()
    model_types = ("jais2",)
    defaults = MappingProxyType(
        {
            "vocab_size": 150272,
            "hidden_size": 3328,
            "intermediate_size": 26624,
            "num_hidden_layers": 32,
            "num_attention_heads": 26,
            "max_position_embeddings": 8192,
            "layer_norm_eps": 1e-5,
            "attention_bias": True,
            "mlp_bias": True,
        }
    )
    activations: ClassVar[tuple[str, tuple[str, ...]]] = ("hidden_act", ("relu2",))
    spelled = MappingProxyType({"rms_norm_eps": "layer_norm_eps"})
    gguf = "jais2"
    more = r"attn_output\.bias|ffn_(?:up|down)\.bias"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", "mlp_bias")),
                ignored={"sliding_window": (), "layer_types": ("full_attention",)},
            )
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        attention = [f"self_attn.{part}_proj.bias" for part in "qkvo"]
        named = (("attention_bias", attention), ("mlp_bias", ["mlp.up_proj.bias", "mlp.down_proj.bias"]))
        return frozenset(name for key, names in named if fields.flag(key) for name in names)


FAMILY = Jais2()
