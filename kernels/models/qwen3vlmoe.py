"""qwen3vlmoe, its text model: a qwen3vl with experts, whose weights of a token add up to 1."""

from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import decoder_stages
from kernels.models.qwen3vl import Qwen3VL


class Qwen3VLMoe(Qwen3VL):
    """models/qwen3vlmoe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", *experts.NAMES)
    expert_parts = ExpertParts()
    gguf = "qwen3vlmoe"
    gguf_unused = ()
    keys = MappingProxyType(
        {
            "gguf": Keys(
                used=GGUF_USED | {"rope.dimension_sections", "expert_feed_forward_length"},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,), "expert_gating_func": (1,)},
                irrelevant=Qwen3VL.keys["gguf"].irrelevant,
            )
        }
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        config = super().of_gguf(config, fields)
        return expert_settings.of_gguf(config, fields, expert_settings.gguf_inner(config, fields))


FAMILY = Qwen3VLMoe()
