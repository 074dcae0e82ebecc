"""mellum: a qwen3moe with windows in three of four layers, whose rotation is never scaled."""

from dataclasses import replace
from types import MappingProxyType

from kernels import expert_settings
from kernels.config import SLIDING, ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_USED
from kernels.family import Keys, Settings, gguf_layer_types
from kernels.models.qwen3moe import Qwen3Moe

_PATTERN = 4  # layers, of which the last is full, where nothing is said
_WINDOW, _BASE = "attention.sliding_window", "rope.freq_base_swa"


class Mellum(Qwen3Moe):
    """models/mellum.cpp in llama-cpp-python 0.3.36."""

    model_types = ()
    gguf = "mellum"
    gguf_unused = ()
    keys = MappingProxyType(
        {
            "gguf": Keys(
                used=GGUF_USED | {"expert_feed_forward_length", _WINDOW, "attention.sliding_window_pattern", _BASE},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,), "expert_gating_func": (1,)},
            )
        }
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, which loads a rotary base for sliding layers and turns them by that of the others."""
        if (base := fields.single(_BASE)) not in (None, config.rope_theta):
            raise fields.unsupported(f"gives {self.gguf}.{_BASE} as {base:g}; only one base is supported.")
        inner, window = expert_settings.gguf_inner(config, fields), fields.integer(_WINDOW, low=0)
        config, types = expert_settings.of_gguf(config, fields, inner), gguf_layer_types(config, fields, _PATTERN)
        if not window or SLIDING not in types:
            return config
        return replace(config, sliding_window=window, layer_types=types, rope_local_theta=config.rope_theta)


FAMILY = Mellum()
