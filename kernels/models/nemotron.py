"""nemotron: layer norms that are stored less 1, a feed-forward block without gate that squares what ReLU leaves."""

from collections.abc import Iterator
from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.kinds.activation import ReluSquared
from kernels.models.llama import Decoder, decoder_stages


class Nemotron(Decoder):
    """Defaults of NemotronConfig in transformers 5.24; models/nemotron.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(without=("ffn_gate", "ffn_swigl"))
    layer_norms = True
    norm_biases = True
    less_one = True
    gated = False
    ffn_biases = True
    activation = ReluSquared()
    model_types = ("nemotron",)
    defaults = MappingProxyType(
        {
            "vocab_size": 256000,
            "hidden_size": 6144,
            "intermediate_size": 24576,
            "num_hidden_layers": 32,
            "num_attention_heads": 48,
            "max_position_embeddings": 4096,
            "norm_eps": 1e-5,
        }
    )
    activations: ClassVar[tuple[str, tuple[str, ...]]] = ("hidden_act", ("relu2",))
    spelled = MappingProxyType({"rms_norm_eps": "norm_eps"})
    partly: ClassVar[tuple[str, float] | None] = ("partial_rotary_factor", 0.5)
    gguf = "nemotron"
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

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that {self.gguf} has there"
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = Nemotron()
