"""olmo2: norms behind both blocks and none before them, q and k normed over all their heads at once."""

from collections.abc import Iterator
from types import MappingProxyType

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.models.llama import AFTER, Decoder, decoder_stages

_NORMS = ("attn_norm", "ffn_norm")


class Olmo2(Decoder):
    """Defaults of Olmo2Config in transformers 5.24; models/olmo2.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", "post_attn_norm", "post_ffn_norm", without=_NORMS)
    attn_norm = None
    ffn_norm = None
    after = AFTER
    head_norms = True
    norms_together = True
    model_types = ("olmo2",)
    defaults = MappingProxyType(
        {
            "vocab_size": 50304,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
        }
    )
    gguf = "olmo2"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias",)),
                ignored={"sliding_window": (), "layer_types": ("full_attention",), "mlp_bias": ()},
                irrelevant=("use_sliding_window", "max_window_layers"),
            ),
            "gguf": Keys(used=frozenset(("attention.sliding_window",))),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv", "o"))
        return frozenset(named) if fields.flag("attention_bias") else frozenset()

    def reads_gguf(self, fields: Settings) -> bool:
        """llama.cpp has one name for this and olmo3, which has windows."""
        return not fields.integer("attention.sliding_window", low=0)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that olmo2 has there"
        if config.tie_word_embeddings:
            yield "it has no output.weight, which it asks for in olmo2"


FAMILY = Olmo2()
