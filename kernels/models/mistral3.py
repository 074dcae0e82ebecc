"""mistral3 (Ministral 3 in GGUF): a llama, as long as queries are not scaled by their positions."""

from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.models.llama import Llama

# What llama.cpp reads in this family and not in llama.
_BY_POSITION = ("attention.temperature_scale", "rope.scaling.yarn_log_multiplier")
_BETAS = {"rope.scaling.yarn_beta_fast": 32, "rope.scaling.yarn_beta_slow": 1}


class Mistral3(Llama):
    """models/mistral3.cpp in llama-cpp-python 0.3.36."""

    model_types: ClassVar[tuple[str, ...]] = ()
    gguf = "mistral3"
    keys = MappingProxyType(
        {
            "gguf": Keys(
                used=Llama.keys["gguf"].used | frozenset((*_BY_POSITION, *_BETAS)),
                ignored=Llama.keys["gguf"].ignored,
            )
        }
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        for key in _BY_POSITION:
            if fields.find(key)[1]:
                raise fields.unsupported(f"sets {self.gguf}.{key}; this program does not compute what that changes.")
        for key, usual in _BETAS.items():
            if fields.number(key) not in (None, usual):
                raise fields.unsupported(f"sets {self.gguf}.{key} to another number than {usual}.")
        return super().of_gguf(config, fields)


FAMILY = Mistral3()
