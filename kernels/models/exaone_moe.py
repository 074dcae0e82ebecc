"""exaone-moe: windows in three of four layers, which alone rotate; experts behind the first layers, in groups."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_SIZES, GGUF_USED, GGUF_WEIGHTS
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings, gguf_layer_types, rotating_where_sliding
from kernels.models.llama import Decoder, decoder_stages

_PATTERN = 4  # layers, of which the last is full, where nothing is said
_WINDOW, _BASE = "attention.sliding_window", "rope.freq_base_swa"
_BESIDE = "expert_shared_feed_forward_length"


class ExaoneMoe(Decoder):
    """models/exaone-moe.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", *experts.NAMES)
    expert_parts = ExpertParts(selection=True)
    head_norms = True
    predicts = True
    rope_freqs = True
    gguf = "exaone-moe"
    more = r"nextn\.[a-z_]+\.(?:weight|scale|input_scale)"
    keys = MappingProxyType(
        {
            "gguf": Keys(
                GGUF_USED | GGUF_SIZES | GGUF_WEIGHTS | {_BESIDE, _WINDOW, "attention.sliding_window_pattern", _BASE},
                GGUF_OTHERS,
            )
        }
    )

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
