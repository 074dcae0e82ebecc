"""qwen, the first: a llama with biases of q, k and v, whose files count gate and up as one block."""

from dataclasses import replace
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.family import Settings
from kernels.models.llama import Decoder


class Qwen(Decoder):
    """models/qwen.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    biased = True
    partly: ClassVar[tuple[str, float] | None] = ("partial_rotary_factor", 1.0)
    gguf = "qwen"

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        if config.intermediate_size % 2:
            raise fields.wrong(
                f"gives an odd {self.gguf}.feed_forward_length, of gate and up together; convert it again."
            )
        return replace(config, intermediate_size=config.intermediate_size // 2)


FAMILY = Qwen()
