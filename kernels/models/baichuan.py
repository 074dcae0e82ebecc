"""baichuan: a llama, of which the small model rotates; any but that and the large one know of no positions."""

from dataclasses import replace

from kernels.config import ModelConfig
from kernels.family import Settings
from kernels.models.llama import Decoder

_ROTATES, _LARGE = 32, 40  # layers of the two published models


class Baichuan(Decoder):
    """models/baichuan.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    gguf = "baichuan"
    interleaved = True

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, which tells the models by how many layers they have."""
        if config.num_hidden_layers == _LARGE:
            raise fields.unsupported(f"has {_LARGE} layers, whose scores llama.cpp biases by distance (ALiBi).")
        if config.num_hidden_layers == _ROTATES:
            return config
        return replace(config, rotated_layers=(False,) * config.num_hidden_layers)

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return self.of_gguf(config, fields)


FAMILY = Baichuan()
