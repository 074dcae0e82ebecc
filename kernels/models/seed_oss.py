"""seed_oss: a llama with heads of their own size, whose q, k and v have biases."""

from types import MappingProxyType

from kernels.family import Keys, Settings
from kernels.models.llama import Decoder


class SeedOss(Decoder):
    """Defaults of SeedOssConfig in transformers 5.24; models/seed-oss.cpp in llama-cpp-python 0.3.36."""

    biased = True
    ffn_biases = True
    model_types = ("seed_oss",)
    defaults = MappingProxyType(
        {
            "vocab_size": 155136,
            "hidden_size": 4096,
            "intermediate_size": 27648,
            "num_hidden_layers": 64,
            "num_attention_heads": 80,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 524288,
            "rms_norm_eps": 1e-6,
            "attention_bias": True,
        }
    )
    gguf = "seed_oss"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", "attention_out_bias", "mlp_bias")),
                ignored={"sliding_window": (), "layer_types": ("full_attention",)},
                irrelevant=("residual_dropout", "use_sliding_window", "max_window_layers"),
            )
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        of_key = {
            "attention_bias": [f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv")],
            "attention_out_bias": ["self_attn.o_proj.bias"],
            "mlp_bias": [f"mlp.{part}_proj.bias" for part in ("gate", "up", "down")],
        }
        return frozenset(name for key, names in of_key.items() if fields.flag(key) for name in names)


FAMILY = SeedOss()
