"""lfm2moe: an lfm2 with experts behind its first layers, chosen by sigmoids and what is added for the choice."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import COUNTS, GGUF_OTHERS, GGUF_USED, INNER, OF_TRAINING, USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.lfm2 import LAYER, Lfm2
from kernels.models.llama import decoder_stages

_DENSE, _ADDED = "num_dense_layers", "use_expert_bias"
_WEIGHTS = ("norm_topk_prob", "routed_scaling_factor")


class Lfm2Moe(Lfm2):
    """Defaults of Lfm2MoeConfig in transformers 5.24; models/lfm2moe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", "conv_in", "conv_gated", "convolved", "conv_out", *experts.NAMES)
    expert_parts = ExpertParts(selection=True)
    in_apr = False
    model_types = ("lfm2_moe",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 65536, "hidden_size": 2048, "intermediate_size": 7168, "num_hidden_layers": 32},
            **{"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 128000},
            **{"norm_eps": 1e-5, "tie_word_embeddings": True, "rope_theta": 1e6, "conv_L_cache": 3, INNER: 1792},
            **{_DENSE: 2, USED: 4, COUNTS[0]: 32, _ADDED: True, "norm_topk_prob": True, "routed_scaling_factor": 1.0},
        }
    )
    modules = MappingProxyType(
        {
            **{f"model.layers.N.{name}": f"model.layers.N.{own}" for name, own in LAYER.items()},
            "model.layers.N.mlp.gate": "model.layers.N.feed_forward.gate",
            "model.norm": "model.embedding_norm",
        }
    )
    gguf = "lfm2moe"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("layer_types", "full_attn_idxs", "conv_L_cache", "conv_bias", "tie_embedding"))
                | {COUNTS[0], USED, INNER, _DENSE, _ADDED, *_WEIGHTS},
                irrelevant=OF_TRAINING,
            ),
            "gguf": Keys(
                used=GGUF_USED
                | {"shortconv.l_cache", "expert_feed_forward_length", "leading_dense_block_count"}
                | {"expert_gating_func"},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,)},
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        config, dense = super().of_hugging_face(config, fields), fields.integer(_DENSE, low=0) or 0
        if not fields.flag(_ADDED):
            raise fields.unsupported(f"sets {_ADDED} to false; only models with what is added for the choice are read.")
        return expert_settings.of_hugging_face(
            *(config, fields, INNER, COUNTS[:1]),
            expert_scoring="sigmoid",
            norm_topk_prob=bool(fields.flag("norm_topk_prob")),
            routed_scaling_factor=fields.number("routed_scaling_factor") or 1.0,
            expert_layers=tuple(layer >= dense for layer in range(config.num_hidden_layers)),
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        of_layers = super().to_hugging_face(config)
        return {
            **{key: of_layers[key] for key in ("conv_L_cache", "layer_types")},
            COUNTS[0]: config.num_experts,
            USED: config.num_experts_per_tok,
            INNER: config.moe_intermediate_size,
            _DENSE: len(expert_settings.dense_layers(config)),
            **{key: getattr(config, key) for key in _WEIGHTS},
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, whatever a file says: no windows; weights add up to 1 and are multiplied by nothing."""
        config, inner = super().of_gguf(config, fields), expert_settings.gguf_inner(config, fields)
        config = replace(config, sliding_window=None)
        return expert_settings.of_gguf(
            *(config, fields, inner),
            expert_scoring=expert_settings.gguf_scoring(fields),
            expert_layers=expert_settings.gguf_leading(config, fields),
        )

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from super().refused_by_llama_cpp(config)
        if not config.norm_topk_prob or config.routed_scaling_factor != 1:
            yield "its weights of experts do not add up to 1, which they always do there"


FAMILY = Lfm2Moe()
