"""minimax_m2: q and k normed over all heads at once, of which a part rotates; experts chosen by sigmoids."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import COUNTS, GGUF_OTHERS, GGUF_USED, OF_TRAINING, USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, decoder_stages

_TURNED = "rotary_dim"


class MiniMaxM2(Decoder):
    """Defaults of MiniMaxM2Config in transformers 5.24; models/minimax-m2.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", *experts.NAMES)
    expert_parts = ExpertParts(selection=True)
    head_norms = True
    norms_together = True
    partly: ClassVar[tuple[str, float] | None] = ("partial_rotary_factor", 1.0)
    model_types = ("minimax_m2",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 200064, "hidden_size": 3072, "intermediate_size": 1536, "num_hidden_layers": 62},
            **{"num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-6},
            **{"max_position_embeddings": 196608, "rope_theta": 5e6, USED: 8, COUNTS[1]: 256},
        }
    )
    told = (COUNTS[1], USED)
    gguf = "minimax-m2"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset((COUNTS[0], COUNTS[1], USED, _TURNED)),
                ignored={
                    **{"sliding_window": (), "layer_types": ("full_attention",), "mlp_bias": (), "attention_bias": ()},
                    **{"use_qk_norm": (True,), "qk_norm_type": ("per_layer",), "use_routing_bias": (True,)},
                    **{"scoring_func": ("sigmoid",), "shared_intermediate_size": (), "attn_type_list": (1,)},
                },
                irrelevant=(*OF_TRAINING, "use_mtp", "num_mtp_modules", "mtp_transformer_layers"),
            ),
            "gguf": Keys(
                used=GGUF_USED | {"expert_gating_func", "expert_feed_forward_length"},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,)},
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """How many channels of a head rotate may be said by themselves, where no share is."""
        config = expert_settings.of_hugging_face(
            *(config, fields, "intermediate_size", COUNTS[1:]), expert_scoring="sigmoid"
        )
        turned = fields.integer(_TURNED)
        if turned is None or config.rotary_dim is not None or turned == config.head_dim:
            return config
        if turned % 2 or turned > config.head_dim or config.rope_factors is not None:
            raise fields.unsupported(
                f"gives {_TURNED} as {turned}; supported are even numbers up to the {config.head_dim} channels of a "
                "head, without scaled rotation."
            )
        return replace(config, rotary_dim=turned)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {COUNTS[1]: config.num_experts, USED: config.num_experts_per_tok}

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, where an expert has the channels of a feed-forward block and weights add up to 1."""
        scoring = expert_settings.gguf_scoring(fields)
        return expert_settings.of_gguf(config, fields, config.intermediate_size, expert_scoring=scoring)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from expert_settings.refused_without(config)
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = MiniMaxM2()
