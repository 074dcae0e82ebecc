"""dots1: a qwen3 with experts behind its first layers, chosen by sigmoids and what is added to them for the choice."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import FULL, SLIDING, ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_USED, OF_TRAINING, USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings, given_layer_types
from kernels.models.llama import Decoder, decoder_stages
from kernels.models.qwen3 import Qwen3

_INNER, _COUNT, _DENSE, _BESIDE = (
    "moe_intermediate_size",
    "n_routed_experts",
    "first_k_dense_replace",
    "n_shared_experts",
)
_CHOICE = ("n_group", "topk_group", "norm_topk_prob", "routed_scaling_factor")
_OF_GGUF = ("expert_feed_forward_length", "expert_shared_count", "leading_dense_block_count")
_WEIGHTS = ("expert_weights_scale", "expert_weights_norm", "expert_gating_func")


class Dots1(Qwen3):
    """Defaults of Dots1Config in transformers 5.24; models/dots1.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", *experts.NAMES)
    expert_parts = ExpertParts(selection=True)
    model_types = ("dots1",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 152064, "hidden_size": 4608, "intermediate_size": 10944, _INNER: 1408},
            **{"num_hidden_layers": 62, "num_attention_heads": 32, "num_key_value_heads": 32},
            **{"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 62},
            **{"n_group": 1, "topk_group": 1, _DENSE: 0, "norm_topk_prob": False, "routed_scaling_factor": 1.0},
        }
    )
    gguf = "dots1"
    scaled = Decoder.scaled
    told = (_COUNT, USED, _INNER, _DENSE, _BESIDE, *_CHOICE)
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (
                        *("attention_bias", "sliding_window", "max_window_layers", "layer_types"),
                        *(_COUNT, USED, _INNER, _DENSE, _BESIDE, *_CHOICE),
                    )
                ),
                ignored={"mlp_bias": (), "use_sliding_window": (), "scoring_func": ("sigmoid", "noaux_tc")},
                irrelevant=OF_TRAINING,
            ),
            "gguf": Keys(used=GGUF_USED | {*_OF_GGUF, *_WEIGHTS}, ignored=GGUF_OTHERS),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """The layers from max_window_layers on slide where no types of layers are given."""
        inner, beside = fields.integer(_INNER), fields.integer(_BESIDE)
        if beside is None:
            raise fields.wrong(f"does not say {_BESIDE}; add it, it is needed and cannot be guessed.")
        dense, layers = fields.integer(_DENSE, low=0) or 0, range(config.num_hidden_layers)
        config = expert_settings.of_hugging_face(
            *(config, fields, _INNER),
            count=(_COUNT,),
            expert_scoring="sigmoid",
            norm_topk_prob=bool(fields.flag("norm_topk_prob")),
            routed_scaling_factor=fields.number("routed_scaling_factor") or 1.0,
            n_group=fields.integer("n_group") or 1,
            topk_group=fields.integer("topk_group") or 1,
            expert_layers=tuple(layer >= dense for layer in layers),
            shared_intermediate_size=(inner or 0) * beside,
        )
        window, full = fields.integer("sliding_window"), fields.integer("max_window_layers", low=0) or 0
        types = given_layer_types(config, fields) or tuple(SLIDING if layer >= full else FULL for layer in layers)
        if window is None or SLIDING not in types:
            return config
        return replace(config, sliding_window=window, layer_types=types)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        types = config.layer_types or ((FULL if config.sliding_window is None else SLIDING,) * config.num_hidden_layers)
        return {
            "sliding_window": config.sliding_window,
            "layer_types": list(types),
            _COUNT: config.num_experts,
            USED: config.num_experts_per_tok,
            _INNER: config.moe_intermediate_size,
            _DENSE: len(expert_settings.dense_layers(config)),
            _BESIDE: config.shared_intermediate_size // max(config.moe_intermediate_size, 1),
            "n_group": config.n_group,
            "topk_group": config.topk_group,
            "norm_topk_prob": config.norm_topk_prob,
            "routed_scaling_factor": config.routed_scaling_factor,
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        inner = expert_settings.gguf_inner(config, fields)
        return expert_settings.of_gguf(
            *(config, fields, inner),
            **expert_settings.gguf_weights(fields),
            expert_scoring=expert_settings.gguf_scoring(fields),
            expert_layers=expert_settings.gguf_leading(config, fields),
            shared_intermediate_size=inner * (fields.integer("expert_shared_count", low=0) or 0),
        )

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from super().refused_by_llama_cpp(config)
        if config.kv_size != config.q_size:
            yield f"its {config.kv_size} channels of K are not the {config.q_size} that {self.gguf} has there"
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = Dots1()
