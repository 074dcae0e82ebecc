"""orion: a llama with layer norms."""

from collections.abc import Iterator

from kernels.config import ModelConfig
from kernels.models.llama import Decoder


class Orion(Decoder):
    """models/orion.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    layer_norms = True
    norm_biases = True
    gguf = "orion"

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that {self.gguf} has there"
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = Orion()
