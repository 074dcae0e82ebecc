"""dbrx: layer norms without bias, bounds of q, k and v, and experts in all layers."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, decoder_stages

_BOUND = "attention.clamp_kqv"


class Dbrx(Decoder):
    """models/dbrx.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("qkv_clip", *experts.NAMES)
    layer_norms = True
    expert_parts = ExpertParts()
    gguf = "dbrx"
    gguf_modules = MappingProxyType({"attn_output_norm": "post_attention_layernorm"})
    keys = MappingProxyType(
        {
            "gguf": Keys(
                used=GGUF_USED | {_BOUND},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,), "expert_gating_func": (1,)},
            )
        }
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, where an expert has the channels of a feed-forward block and weights add up to 1."""
        bound = fields.single(_BOUND) if fields.find(_BOUND)[1] else None
        return replace(expert_settings.of_gguf(config, fields, config.intermediate_size), clip_qkv=bound)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from expert_settings.refused_without(config)
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that {self.gguf} has there"
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = Dbrx()
