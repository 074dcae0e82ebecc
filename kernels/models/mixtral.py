"""mixtral: a mistral with experts, chosen by softmax, whose weights add up to 1; its GGUF files are those of llama."""

from types import MappingProxyType

from kernels import experts
from kernels.config import ModelConfig
from kernels.expert_settings import COUNTS, OF_TRAINING, USED, of_hugging_face
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import decoder_stages
from kernels.models.mistral import Mistral


class Mixtral(Mistral):
    """Defaults of MixtralConfig in transformers 5.24."""

    stages = decoder_stages(*experts.NAMES)
    expert_parts = ExpertParts()
    model_types = ("mixtral",)
    defaults = MappingProxyType(
        {
            **{key: value for key, value in Mistral.defaults.items() if key != "sliding_window"},
            **{"rms_norm_eps": 1e-5, COUNTS[1]: 8, USED: 2, "rope_theta": 1e6},
        }
    )
    told = (COUNTS[1], USED)
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=Mistral.keys["safetensors"].used | {*COUNTS, USED},
                ignored=Mistral.keys["safetensors"].ignored,
                irrelevant=(*Mistral.keys["safetensors"].irrelevant, *OF_TRAINING),
            )
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return of_hugging_face(super().of_hugging_face(config, fields), fields, "intermediate_size")

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return super().to_hugging_face(config) | {COUNTS[1]: config.num_experts, USED: config.num_experts_per_tok}


FAMILY = Mixtral()
