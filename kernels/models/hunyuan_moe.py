"""hunyuan_moe: a hunyuan_v1_dense with experts in all layers, and a part beside them for every token."""

from collections.abc import Iterator
from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import COUNTS, GGUF_OTHERS, GGUF_USED, OF_TRAINING
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.hunyuan_v1_dense import HunYuanDense
from kernels.models.llama import decoder_stages

_BESIDE, _CHOSEN = "expert_shared_feed_forward_length", "moe_topk"
_LISTS = ("moe_intermediate_size", "num_shared_expert", "moe_layer_num_skipped", "use_mixed_mlp_moe", "moe_*")


class HunYuanMoe(HunYuanDense):
    """Defaults of HunYuanMoEV1Config in transformers 5.24; models/hunyuan-moe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_rope_norm", "k_rope_norm", *experts.NAMES)
    expert_parts = ExpertParts()
    model_types = ("hunyuan_v1_moe",)
    defaults = MappingProxyType({**HunYuanDense.defaults, COUNTS[0]: 1, _CHOSEN: 1})
    modules = MappingProxyType(
        {
            "model.layers.N.mlp.gate": "model.layers.N.mlp.gate.wg",
            **{
                f"model.layers.N.mlp.shared_expert.{part}_proj": f"model.layers.N.mlp.shared_mlp.{part}_proj"
                for part in ("gate", "up", "down")
            },
        }
    )
    told = (COUNTS[0], _CHOSEN)
    gguf = "hunyuan-moe"
    keys = MappingProxyType(
        {
            "safetensors": HunYuanDense.keys["safetensors"]._replace(
                used=HunYuanDense.keys["safetensors"].used | {COUNTS[0], _CHOSEN},
                irrelevant=(*HunYuanDense.keys["safetensors"].irrelevant, *OF_TRAINING, *_LISTS),
            ),
            "gguf": Keys(
                used=GGUF_USED | {_BESIDE, "expert_feed_forward_length"},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,), "expert_gating_func": (1,)},
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As transformers, where an expert and what is beside them have the channels of a feed-forward block."""
        config, chosen = super().of_hugging_face(config, fields), fields.find(_CHOSEN)[1]
        each = chosen if isinstance(chosen, list) else [chosen]
        if not each or type(each[0]) is not int or each[0] < 1 or any(number != each[0] for number in each):
            raise fields.unsupported(f"gives {_CHOSEN} not as one number for all layers.")
        return expert_settings.with_experts(
            *(config, fields, fields.integer(COUNTS[0]) or 1, each[0], config.intermediate_size),
            shared_intermediate_size=config.intermediate_size,
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return super().to_hugging_face(config) | {COUNTS[0]: config.num_experts, _CHOSEN: config.num_experts_per_tok}

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, where an expert has the channels of a feed-forward block."""
        beside = fields.integer(_BESIDE, low=0) or config.intermediate_size
        return expert_settings.of_gguf(config, fields, config.intermediate_size, shared_intermediate_size=beside)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from super().refused_by_llama_cpp(config)
        yield from expert_settings.refused_without(config)


FAMILY = HunYuanMoe()
