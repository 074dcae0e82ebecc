"""bailingmoe2 (Ling 2): a part of each normed head rotates; experts behind the first layers, in groups."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_SIZES, GGUF_USED, GGUF_WEIGHTS
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, decoder_stages

_BESIDE = "expert_shared_feed_forward_length"


class BailingMoe2(Decoder):
    """models/bailingmoe2.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", *experts.NAMES)
    expert_parts = ExpertParts(selection=True)
    head_norms = True
    predicts = True
    partly: ClassVar[tuple[str, float] | None] = ("partial_rotary_factor", 1.0)
    gguf = "bailingmoe2"
    more = r"nextn\.[a-z_]+\.(?:weight|scale|input_scale)|layer_output_norm\.weight"
    keys = MappingProxyType({"gguf": Keys(GGUF_USED | GGUF_SIZES | GGUF_WEIGHTS | {_BESIDE}, GGUF_OTHERS)})

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """The part beside the experts may have channels of its own for each that it counts."""
        found = expert_settings.gguf_in_groups(config, fields)
        beside, count = (fields.integer(key, low=0) or 0 for key in (_BESIDE, "expert_shared_count"))
        return replace(found, shared_intermediate_size=beside * count) if beside else found

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that {self.gguf} has there"
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = BailingMoe2()
