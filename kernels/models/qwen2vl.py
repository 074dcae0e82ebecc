"""qwen2vl, its text model: a qwen2 whose pairs turn with sections that are one for text."""

from types import MappingProxyType

from kernels.config import ModelConfig
from kernels.family import Keys, Settings, plain_sections
from kernels.models.qwen2 import Qwen2


class Qwen2VL(Qwen2):
    """models/qwen2vl.cpp in llama-cpp-python 0.3.36."""

    model_types = ()
    gguf = "qwen2vl"
    gguf_unused = ("output.bias",)
    head_bias = False
    epsilon_read = False
    keys = MappingProxyType(
        {"gguf": Keys(used=frozenset(("rope.dimension_sections",)), ignored={"attention.layer_norm_rms_epsilon": (0,)})}
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        plain_sections(config, fields, "rope.dimension_sections")
        return config


FAMILY = Qwen2VL()
