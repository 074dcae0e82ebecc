"""granite: a llama with factors of its own for embeddings, blocks, scores and logits."""

from dataclasses import replace
from types import MappingProxyType

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.models.llama import Llama

_MULTIPLIERS = ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")


class Granite(Llama):
    """Defaults of GraniteConfig in transformers 5.24; models/granite.cpp in llama-cpp-python 0.3.36."""

    model_types = ("granite",)
    defaults = MappingProxyType({**Llama.defaults, **dict.fromkeys(_MULTIPLIERS, 1.0)})
    gguf = "granite"
    scaled = tuple(f"self_attn.{part}_proj" for part in "qkvo")
    told = _MULTIPLIERS
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", "mlp_bias", *_MULTIPLIERS)),
                ignored={"sliding_window": (), "layer_types": ("full_attention",)},
                irrelevant=("use_sliding_window", "max_window_layers"),
            ),
            "gguf": Keys(
                used=Llama.keys["gguf"].used
                | {"logit_scale", "residual_scale", "embedding_scale", "attention.scale", "rope.scaling.finetuned"},
                ignored=Llama.keys["gguf"].ignored,
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        numbers = [number for key in _MULTIPLIERS if (number := fields.number(key)) is not None]
        if len(numbers) != len(_MULTIPLIERS):
            raise fields.wrong(f"does not say all of {', '.join(_MULTIPLIERS)}; add what is absent or null.")
        return _with(config, *numbers)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        scores = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
        numbers = (config.embedding_scale, config.residual_scale, scores, config.logits_scale**-1)
        return dict(zip(_MULTIPLIERS, numbers, strict=True))

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp: what is absent or 0 is no factor; without rope.scaling.finetuned layers rotate."""
        keys = ("embedding_scale", "residual_scale", "attention.scale")
        embedding, residual, scores = (fields.single(key) if fields.find(key)[1] else None for key in keys)
        logits = fields.single("logit_scale")
        if logits is None:
            raise fields.wrong(
                f"does not say {self.gguf}.logit_scale, which the logits are divided by; convert it again."
            )
        if fields.flag("rope.scaling.finetuned") is False:
            config = replace(config, rotated_layers=(False,) * config.num_hidden_layers)
        config = super().of_gguf(config, fields)
        return _with(config, embedding or 1.0, residual or 1.0, scores or config.head_dim**-0.5, logits)


def _with(config: ModelConfig, embedding: float, residual: float, scores: float, logits: float) -> ModelConfig:
    usual = abs(scores * config.head_dim**0.5 - 1) <= 2.0**-23
    return replace(
        config,
        embedding_scale=embedding,
        residual_scale=residual,
        attention_scale=None if usual else scores,
        logits_scale=1 / logits,
    )


FAMILY = Granite()
