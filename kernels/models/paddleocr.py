"""paddleocr, its text model: an ernie4_5 that turns halves, with sections that are one for text."""

from types import MappingProxyType

from kernels.config import ModelConfig
from kernels.family import Keys, Settings, plain_sections
from kernels.models.ernie4_5 import Ernie45


class PaddleOCR(Ernie45):
    """models/paddleocr.cpp in llama-cpp-python 0.3.36."""

    pairs = "neox"
    model_types = ()
    gguf = "paddleocr"
    gguf_unused = ()
    keys = MappingProxyType(
        {
            "gguf": Keys(
                used=frozenset(("rope.dimension_sections",)), ignored={"expert_count": (), "expert_used_count": ()}
            )
        }
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        plain_sections(config, fields, "rope.dimension_sections")
        return config


FAMILY = PaddleOCR()
