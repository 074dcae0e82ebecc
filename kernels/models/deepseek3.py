"""deepseek3 (DeepSeek V3): a deepseek2 whose experts are chosen by sigmoids and what is added for the choice."""

from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig, RopeType
from kernels.expert_settings import USED
from kernels.family import Keys, Settings
from kernels.models.deepseek2 import BESIDE, COUNT, DENSE, INNER, OF_CHOICE, SIZES, UNUSED, DeepseekV2, needed


class DeepseekV3(DeepseekV2):
    """Defaults of DeepseekV3Config in transformers 5.24; its GGUF files are those of deepseek2."""

    model_types: ClassVar[tuple[str, ...]] = ("deepseek_v3",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, INNER: 2048},
            **{"num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128},
            **{"max_position_embeddings": 4096, "rms_norm_eps": 1e-6, BESIDE: 1, COUNT: 256, USED: 8, DENSE: 3},
            **{"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64},
            **{"v_head_dim": 128, "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5},
            **{"norm_topk_prob": True, "rope_interleave": True},
        }
    )
    not_loaded: ClassVar[tuple[str, ...]] = ()
    gguf: ClassVar[str | None] = None
    gguf_family = "deepseek2"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset((*SIZES, *OF_CHOICE, "norm_topk_prob", "rope_interleave", "attention_bias", "mlp_bias")),
                ignored={"scoring_func": ("sigmoid",), "topk_method": ("noaux_tc",), "moe_layer_freq": (1,)},
                irrelevant=UNUSED,
            )
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        pairs: RopeType = "norm" if fields.flag("rope_interleave") else "neox"
        return self._of_both(
            *(replace(config, rope_type=pairs), fields),
            expert_scoring="sigmoid",
            norm_topk_prob=bool(fields.flag("norm_topk_prob")),
            n_group=needed(fields, "n_group"),
            topk_group=needed(fields, "topk_group"),
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        own = {"norm_topk_prob": config.norm_topk_prob, "rope_interleave": config.rope_type == "norm"}
        return {key: value for key, value in super().to_hugging_face(config).items() if key != "topk_method"} | own


FAMILY = DeepseekV3()
