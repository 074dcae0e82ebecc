"""chatglm: a llama of which half of each head rotates, in adjacent pairs; q, k and v in one, gate and up in one."""

from collections.abc import Iterator
from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.models.llama import Decoder


class ChatGLM(Decoder):
    """models/chatglm.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    pairs = "norm"
    partly: ClassVar[tuple[str, float] | None] = ("partial_rotary_factor", 0.5)
    gguf = "chatglm"
    gguf_modules = MappingProxyType({"ffn_up": "mlp.gate_up_proj"})

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that chatglm has there"


FAMILY = ChatGLM()
