"""qwen3next: a qwen35moe of which Hugging Face has all of a delta net's products in two tensors, by heads of keys."""

from types import MappingProxyType

from kernels import expert_settings
from kernels.config import ModelConfig
from kernels.expert_settings import COUNTS, USED, dense_layers, sparse_layers
from kernels.family import Keys, Settings
from kernels.models.qwen35 import GGUF_MODULES, Qwen35
from kernels.models.qwen35moe import BESIDE, INNER, Qwen35Moe

_SPARSE = ("norm_topk_prob", "decoder_sparse_step", "mlp_only_layers")


class Qwen3Next(Qwen35Moe):
    """Defaults of Qwen3NextConfig in transformers 5.24; models/qwen3next.cpp in llama-cpp-python 0.3.36."""

    tiled = False
    rope_sections = False
    delta_scaled = ()
    model_types = ("qwen3_next",)
    defaults = MappingProxyType(
        {
            **Qwen35Moe.defaults,
            **{"vocab_size": 151936, "intermediate_size": 5632, "num_hidden_layers": 48},
            **{USED: 10, COUNTS[0]: 512, "norm_topk_prob": True, "decoder_sparse_step": 1},
        }
    )
    gguf = "qwen3next"
    gguf_modules = MappingProxyType({**GGUF_MODULES, "ssm_ba": "linear_attn.in_proj_ba"})
    gguf_unused = ("ssm_in.weight", "ssm_in.scale")  # another form of what is in attn_qkv and attn_gate
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=Qwen35Moe.keys["safetensors"].used | set(_SPARSE),
                ignored=Qwen35.keys["safetensors"].ignored,
                irrelevant=Qwen35Moe.keys["safetensors"].irrelevant,
            ),
            "gguf": Keys(
                used=Qwen35Moe.keys["gguf"].used - {"rope.dimension_sections"},
                ignored={**Qwen35Moe.keys["gguf"].ignored, "rope.dimension_sections": ()},
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return expert_settings.of_hugging_face(
            *(Qwen35.of_hugging_face(self, config, fields), fields, INNER),
            norm_topk_prob=bool(fields.flag("norm_topk_prob")),
            expert_layers=sparse_layers(config, fields),
            shared_intermediate_size=fields.integer(BESIDE) or 0,
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return super().to_hugging_face(config) | {
            "norm_topk_prob": config.norm_topk_prob,
            "mlp_only_layers": dense_layers(config),
            "decoder_sparse_step": 1,
        }


FAMILY = Qwen3Next()
