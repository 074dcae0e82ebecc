"""minimax-m2: q and k normed over all heads at once, of which a part rotates; experts chosen by sigmoids."""

from collections.abc import Iterator
from types import MappingProxyType
from typing import ClassVar

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, decoder_stages


class MiniMaxM2(Decoder):
    """models/minimax-m2.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", *experts.NAMES)
    expert_parts = ExpertParts(selection=True)
    head_norms = True
    norms_together = True
    partly: ClassVar[tuple[str, float] | None] = ("partial_rotary_factor", 1.0)
    gguf = "minimax-m2"
    keys = MappingProxyType(
        {
            "gguf": Keys(
                used=GGUF_USED | {"expert_gating_func", "expert_feed_forward_length"},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,)},
            )
        }
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, where an expert has the channels of a feed-forward block and weights add up to 1."""
        scoring = expert_settings.gguf_scoring(fields)
        return expert_settings.of_gguf(config, fields, config.intermediate_size, expert_scoring=scoring)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from expert_settings.refused_without(config)
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = MiniMaxM2()
