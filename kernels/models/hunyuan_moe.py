"""hunyuan-moe: a hunyuan_v1_dense with experts in all layers, and a part beside them for every token."""

from collections.abc import Iterator
from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.hunyuan_v1_dense import HunYuanDense
from kernels.models.llama import decoder_stages

_BESIDE = "expert_shared_feed_forward_length"


class HunYuanMoe(HunYuanDense):
    """models/hunyuan-moe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_rope_norm", "k_rope_norm", *experts.NAMES)
    expert_parts = ExpertParts()
    model_types = ()
    gguf = "hunyuan-moe"
    keys = MappingProxyType(
        {
            "gguf": Keys(
                used=GGUF_USED | {_BESIDE, "expert_feed_forward_length"},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,), "expert_gating_func": (1,)},
            )
        }
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, where an expert has the channels of a feed-forward block."""
        beside = fields.integer(_BESIDE, low=0) or config.intermediate_size
        return expert_settings.of_gguf(config, fields, config.intermediate_size, shared_intermediate_size=beside)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from super().refused_by_llama_cpp(config)
        yield from expert_settings.refused_without(config)


FAMILY = HunYuanMoe()
