"""granite: a llama with factors of its own for embeddings, blocks, scores and logits."""

from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels import expert_settings
from kernels.config import ModelConfig
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import Llama

_BESIDE = "shared_intermediate_size"
MULTIPLIERS = ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")


class Granite(Llama):
    """Defaults of GraniteConfig in transformers 5.24; models/granite.cpp in llama-cpp-python 0.3.36."""

    expert_parts = ExpertParts()
    model_types: ClassVar[tuple[str, ...]] = ("granite",)
    defaults = MappingProxyType({**Llama.defaults, **dict.fromkeys(MULTIPLIERS, 1.0)})
    gguf = "granite"
    switched: ClassVar[bool] = True  # by a setting that others have for another purpose
    scaled = tuple(f"self_attn.{part}_proj" for part in "qkvo")
    told: ClassVar[tuple[str, ...]] = MULTIPLIERS
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", "mlp_bias", *MULTIPLIERS)),
                ignored={"sliding_window": (), "layer_types": ("full_attention",)},
                irrelevant=("use_sliding_window", "max_window_layers"),
            ),
            "gguf": Keys(
                used=Llama.keys["gguf"].used
                | {"logit_scale", "residual_scale", "embedding_scale", "attention.scale", "rope.scaling.finetuned"}
                | {"expert_shared_feed_forward_length"},
                ignored=Llama.keys["gguf"].ignored,
            ),
            "apr": Keys(used=Llama.keys["apr"].used | {_BESIDE}),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        numbers = [number for key in MULTIPLIERS if (number := fields.number(key)) is not None]
        if len(numbers) != len(MULTIPLIERS):
            raise fields.wrong(f"does not say all of {', '.join(MULTIPLIERS)}; add what is absent or null.")
        beside = fields.integer(_BESIDE, low=0) or 0
        return replace(
            self.multiplied(super().of_hugging_face(config, fields), *numbers), shared_intermediate_size=beside
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        scores = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
        numbers = (config.embedding_scale, config.residual_scale, scores, config.logits_scale**-1)
        beside = {_BESIDE: config.shared_intermediate_size} if config.shared_intermediate_size else {}
        return dict(zip(MULTIPLIERS, numbers, strict=True)) | super().to_hugging_face(config) | beside

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp: what is absent or 0 is no factor; without rope.scaling.finetuned layers rotate."""
        keys = ("embedding_scale", "residual_scale", "attention.scale")
        embedding, residual, scores = (fields.single(key) if fields.find(key)[1] else None for key in keys)
        logits = fields.single("logit_scale")
        if logits is None:
            raise fields.wrong(
                f"does not say {self.gguf}.logit_scale, which the logits are divided by; convert it again."
            )
        if self.switched and fields.flag("rope.scaling.finetuned") is False:
            config = replace(config, rotated_layers=(False,) * config.num_hidden_layers)
        beside = fields.integer("expert_shared_feed_forward_length", low=0) or 0
        config = expert_settings.of_gguf(config, fields, config.intermediate_size, shared_intermediate_size=beside)
        return self.multiplied(config, embedding or 1.0, residual or 1.0, scores or config.head_dim**-0.5, logits)

    @staticmethod
    def multiplied(config: ModelConfig, embedding: float, residual: float, scores: float, logits: float) -> ModelConfig:
        """The configuration with the four factors; scores and logits as the files have them."""
        usual = abs(scores * config.head_dim**0.5 - 1) <= 2.0**-23
        return replace(
            config,
            embedding_scale=embedding,
            residual_scale=residual,
            attention_scale=None if usual else scores,
            logits_scale=1 / logits,
        )


FAMILY = Granite()
