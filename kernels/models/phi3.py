"""phi3, phi4: a llama whose files hold q, k and v in one, and gate and up; LongRoPE; a share of each head rotates."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder


class Phi3(Decoder):
    """Defaults of Phi3Config in transformers 5.24; models/phi3.cpp in llama-cpp-python 0.3.36."""

    partly: ClassVar[tuple[str, float] | None] = ("partial_rotary_factor", 1.0)
    # Older configurations call LongRoPE otherwise.
    rope_kinds = MappingProxyType({"default": "default", **dict.fromkeys(("longrope", "su", "yarn"), "longrope")})
    model_types = ("phi3",)
    defaults = MappingProxyType(
        {
            "vocab_size": 32064,
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
        }
    )
    gguf = "phi3"
    queries_scaled = True
    gguf_modules = MappingProxyType({"ffn_up": "mlp.gate_up_proj"})
    long_rope = True
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("sliding_window",)),
                ignored={"layer_types": ("sliding_attention",), "mlp_bias": (), "attention_bias": ()},
                irrelevant=("use_sliding_window", "max_window_layers", "resid_pdrop", "embd_pdrop"),
            )
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return replace(config, sliding_window=fields.integer("sliding_window"))

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {"sliding_window": config.sliding_window}

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that phi3 has there"


FAMILY = Phi3()
