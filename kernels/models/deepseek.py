"""deepseek: a llama with experts behind its first layers, and a part beside them for every token."""

from collections.abc import Iterator
from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, decoder_stages

_OF_GGUF = ("expert_feed_forward_length", "expert_shared_count", "leading_dense_block_count", "expert_weights_scale")


class Deepseek(Decoder):
    """models/deepseek.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(*experts.NAMES)
    expert_parts = ExpertParts()
    gguf = "deepseek"
    interleaved = True
    keys = MappingProxyType(
        {
            "gguf": Keys(
                used=GGUF_USED | {*_OF_GGUF},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (False,), "expert_gating_func": (1,)},
            )
        }
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp: weights are those of the softmax over all experts, whatever the file says."""
        inner = expert_settings.gguf_inner(config, fields)
        more = expert_settings.gguf_weights(fields) | {"norm_topk_prob": False}
        return expert_settings.of_gguf(
            *(config, fields, inner),
            **more,
            expert_layers=expert_settings.gguf_leading(config, fields),
            shared_intermediate_size=inner * (fields.integer("expert_shared_count", low=0) or 0),
        )

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that {self.gguf} has there"


FAMILY = Deepseek()
