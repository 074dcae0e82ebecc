"""exaone_moe: windows in three of four layers, which alone rotate; experts behind the first layers, in groups."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import FULL, SLIDING, ModelConfig
from kernels.expert_settings import (
    COUNTS,
    DENSE,
    GGUF_OTHERS,
    GGUF_SIZES,
    GGUF_USED,
    GGUF_WEIGHTS,
    INNER,
    OF_GROUPS,
    OF_TRAINING,
    USED,
)
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings, every, gguf_layer_types, given_layer_types, rotating_where_sliding
from kernels.models.llama import Decoder, decoder_stages

_PATTERN = 4  # layers, of which the last is full, where nothing is said
_WINDOW, _BASE = "attention.sliding_window", "rope.freq_base_swa"
_SHARED, _TYPES = "num_shared_experts", "mlp_layer_types"
_OF_EXPERTS = (COUNTS[0], USED, INNER, _SHARED, *OF_GROUPS)
_BESIDE = "expert_shared_feed_forward_length"


class ExaoneMoe(Decoder):
    """Defaults of ExaoneMoeConfig in transformers 5.24; models/exaone-moe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", *experts.NAMES)
    expert_parts = ExpertParts(selection=True)
    head_norms = True
    predicts = True
    rope_freqs = True
    model_types = ("exaone_moe",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 32},
            **{"num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 2048},
            **{"rms_norm_eps": 1e-5, "sliding_window": 4096, "sliding_window_pattern": _PATTERN, DENSE: 1, INNER: 1024},
            **{COUNTS[0]: 64, USED: 8, _SHARED: 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5},
            **{"n_group": 1, "topk_group": 1},
        }
    )
    told = (*_OF_EXPERTS, DENSE, "sliding_window", "layer_types")
    gguf = "exaone-moe"
    more = r"nextn\.[a-z_]+\.(?:weight|scale|input_scale)"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (*_OF_EXPERTS, DENSE, _TYPES, "sliding_window", "sliding_window_pattern", "layer_types")
                ),
                ignored={"mlp_bias": (), "attention_bias": ()},
                irrelevant=(*OF_TRAINING, "num_nextn_predict_layers"),
            ),
            "gguf": Keys(
                GGUF_USED | GGUF_SIZES | GGUF_WEIGHTS | {_BESIDE, _WINDOW, "attention.sliding_window_pattern", _BASE},
                GGUF_OTHERS,
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """Types of layers count before the number of the first ones, and types of attention before a pattern."""
        count, dense = config.num_hidden_layers, fields.integer(DENSE, low=0) or 0
        kinds = fields.find(_TYPES)[1] or ["dense" if n < dense else "sparse" for n in range(count)]
        if not isinstance(kinds, list) or len(kinds) < count or not set(kinds) <= {"dense", "sparse"}:
            raise fields.unsupported(f"has {_TYPES} other than dense and sparse, or fewer than layers.")
        config = expert_settings.of_hugging_face(
            *(config, fields, INNER),
            expert_scoring="sigmoid",
            norm_topk_prob=bool(fields.flag("norm_topk_prob")),
            routed_scaling_factor=fields.number("routed_scaling_factor") or 1.0,
            n_group=fields.integer("n_group") or 1,
            topk_group=fields.integer("topk_group") or 1,
            expert_layers=tuple(kind == "sparse" for kind in kinds[:count]),
            shared_intermediate_size=(fields.integer(INNER) or 0) * (fields.integer(_SHARED, low=0) or 0),
        )
        window, types = fields.integer("sliding_window"), given_layer_types(config, fields)
        if window is not None and types is None:
            if isinstance(fields.find("sliding_window_pattern")[1], str):
                raise fields.unsupported("gives sliding_window_pattern as text and no layer_types; add layer_types.")
            types = every(fields.integer("sliding_window_pattern") or _PATTERN, config)
        if window is None and SLIDING in (types or ()):
            raise fields.wrong(f"has layer_types with {SLIDING}, but no sliding_window; correct it.")
        return rotating_where_sliding(config, window, types)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {
            COUNTS[0]: config.num_experts,
            USED: config.num_experts_per_tok,
            INNER: config.moe_intermediate_size,
            DENSE: len(expert_settings.dense_layers(config)),
            _SHARED: config.shared_intermediate_size // max(config.moe_intermediate_size, 1),
            **{key: getattr(config, key) for key in OF_GROUPS},
            "sliding_window": config.sliding_window,
            "layer_types": list(config.layer_types or (FULL,) * config.num_hidden_layers),
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, where what is beside the experts is one, however many are counted."""
        if (base := fields.single(_BASE)) not in (None, config.rope_theta):
            raise fields.unsupported(f"gives {self.gguf}.{_BASE} as {base:g}; only one base is supported.")
        window = fields.integer(_WINDOW)
        if window is None:
            raise fields.wrong(f"does not say {self.gguf}.{_WINDOW}, which llama.cpp asks for; convert it again.")
        found = expert_settings.gguf_in_groups(config, fields)
        beside = fields.integer(_BESIDE, low=0) or found.moe_intermediate_size
        found = replace(found, shared_intermediate_size=beside)
        return rotating_where_sliding(found, window, gguf_layer_types(config, fields, _PATTERN))

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = ExaoneMoe()
