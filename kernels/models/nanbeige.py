"""nanbeige: a llama whose layers may run several times; only those that run once are computed."""

from types import MappingProxyType

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, Llama


class Nanbeige(Decoder):
    """models/nanbeige.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    gguf = "nanbeige"
    interleaved = True
    rope_freqs = True
    scaled = Llama.scaled
    keys = MappingProxyType({"gguf": Keys(used=frozenset(("num_loops", "skip_loop_final_norm")))})

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        if (loops := fields.integer("num_loops")) not in (None, 1):
            raise fields.unsupported(f"runs its layers {loops} times (num_loops); only once is supported.")
        return config


FAMILY = Nanbeige()
